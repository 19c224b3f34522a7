"""What holds for every test: servers serve no gRPC unless its test says so, and examples may take their time."""

from __future__ import annotations

import os

import hypothesis

os.environ.setdefault("SALVER_SERVE_GRPC_PORT", "-1")

# A slow machine is no defect: what a test finds must not depend on how much of the processor it gets.
hypothesis.settings.register_profile("salver", deadline=None)
hypothesis.settings.load_profile("salver")
