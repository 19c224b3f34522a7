"""What the gateway reads of the protocols stays light, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys


def test_the_gateways_part_of_the_protocols_never_imports_numpy() -> None:
    code = "import sys, salver.protocols.schema, salver.protocols.v2.metadata; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
