"""promtool, as Debian has it, on the metrics of a real server."""

from __future__ import annotations

import shutil
import subprocess

from tests.integration.server import Server

ROW = {"key": 7, "act": ""}


def test_promtool_has_nothing_to_say_about_the_metrics(server: Server) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None, "promtool is not installed (Debian package prometheus)"
    assert server.post("/models/oracle/predict", ROW).status == 200
    said = server.get("/metrics", port=server.admin_port).body
    done = subprocess.run([promtool, "check", "metrics"], input=said, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
