"""Tables: rows become columns of arrays, and what a model returns becomes columns of the signature's types."""

from __future__ import annotations

from salver.tables.columns import Columns as Columns
from salver.tables.columns import MatrixColumns as MatrixColumns
from salver.tables.columns import builder as builder
from salver.tables.columns import column as column
from salver.tables.columns import concat as concat
from salver.tables.columns import matrix as matrix
from salver.tables.columns import may_be_null as may_be_null
from salver.tables.columns import rows_between as rows_between
from salver.tables.columns import stack as stack
from salver.tables.columns import to_dataframe as to_dataframe
from salver.tables.columns import unseen_counter as unseen_counter
from salver.tables.outputs import check_finite as check_finite
from salver.tables.outputs import outputs_from as outputs_from
