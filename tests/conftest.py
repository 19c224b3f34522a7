"""What holds for every test: servers run side by side, so that one serves no gRPC unless its test says so."""

from __future__ import annotations

import os

os.environ.setdefault("SALVER_SERVE_GRPC_PORT", "-1")
