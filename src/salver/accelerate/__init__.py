"""Acceleration with proof: a release converted to ONNX, compared with the original, and only then a release itself.

The work is done by clean processes (`python -m salver.accelerate`, `python -m salver.accelerate.measure`) on folders;
what calls them publishes.
"""

from __future__ import annotations

from salver.accelerate.evidence import EVIDENCE as EVIDENCE
from salver.accelerate.evidence import Evidence as Evidence
from salver.accelerate.evidence import Speed as Speed
from salver.accelerate.run import Accelerated as Accelerated
from salver.accelerate.run import Source as Source
from salver.accelerate.run import accelerate as accelerate
from salver.accelerate.run import require_possible as require_possible
