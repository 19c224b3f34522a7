"""The demo tells its whole story, and every figure in it is true."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.conftest import Terminal


def test_the_demo_serves_promotes_survives_a_kill_and_rolls_back_without_a_failure(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    report = terminal.json("demo", "--folder", "demo")
    assert report["problems"] == []
    assert report["failures"] == {}
    assert set(report["answers"]) == {"credit@1", "credit@2"}
    assert sum(report["answers"].values()) == report["requests"] >= 3000
    assert list(tmp_path.iterdir()) == [tmp_path / "demo"]


def test_the_demo_does_not_work_in_a_folder_with_other_things(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    said = Terminal(tmp_path).salver("demo", "--folder", ".")
    assert said.code == 4
    assert "is not empty" in said.err
    assert (tmp_path / "mine.txt").read_text() == "mine"
