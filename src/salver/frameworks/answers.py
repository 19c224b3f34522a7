"""What a model answers, as the outputs that a signature promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from salver import tables
from salver.frameworks import Columns, Predict
from salver.signature import Signature


def promised(call: Callable[[Columns], Any], signature: Signature) -> Predict:
    """`call`, whose raw answers become columns of the signature's outputs and dtypes.

    Raises what `tables.outputs_from` raises where they can't.
    """
    first, outputs = signature.inputs[0].name, signature.outputs
    return lambda columns: tables.outputs_from(call(columns), outputs, len(columns[first]))
