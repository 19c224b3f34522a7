"""The examples do what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.acceptance.conftest import EXAMPLES, Terminal


def test_the_script_releases_a_model_that_predicts(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "script" / "train.py", tmp_path)
    terminal = Terminal(tmp_path)
    trained = terminal.run("train.py")
    assert trained.code == 0, trained
    assert "<cancer@1 sha256:" in trained.out
    (facts,) = terminal.json("list")
    assert (facts["name"], facts["live"]) == ("cancer", "cancer@1")
    row = {field["name"]: 1.0 for field in terminal.json("show", "cancer")["manifest"]["signature"]["inputs"]}
    said = terminal.salver("predict", "cancer", "-", "--format", "json", stdin=f"[{row}]".replace("'", '"'))
    assert said.code == 0, said
    assert '"prediction":' in said.out
