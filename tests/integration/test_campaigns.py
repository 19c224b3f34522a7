"""`make campaign`: its list, and a small dose of R6."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from tests.campaigns import __main__ as dispatcher
from tests.campaigns import r6


def test_without_an_id_every_campaign_is_listed_with_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatcher.main([]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])
    known = [path.stem for path in Path(dispatcher.__file__).parent.glob("[rs]*.py") if path.stem[1:].isdigit()]
    assert set(listed) == {name.upper() for name in known} >= {"R1", "R6", "R12", "R13", "S1", "S4", "S5", "S6"}
    for name in known:
        assert listed[name.upper()] == str(import_module(f"tests.campaigns.{name}").__doc__).splitlines()[0]


def test_an_unknown_campaign_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatcher.main(["R2"]) == 2
    assert "there are: R1, R6" in capsys.readouterr().err


def test_the_list_is_read_from_the_files_without_running_them(tmp_path: Path) -> None:
    (tmp_path / "r10.py").write_text('"""Ten."""\nraise SystemExit\n')
    (tmp_path / "r9.py").write_text('"""Nine."""\n')
    (tmp_path / "stage.py").write_text('"""Not a campaign."""\n')
    assert dispatcher.campaigns(tmp_path) == {"R9": "Nine.", "R10": "Ten."}


def test_switches_leave_no_memory_of_releases_that_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert r6.main(["--switches", "26", "--steady", "1"]) == 0, capsys.readouterr().out
