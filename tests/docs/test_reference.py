"""The reference says what the code says, and no link leads nowhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tools import reference

ROOT = Path(__file__).parents[2]
TEXTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_page_is_what_the_code_says(name: str) -> None:
    committed = (reference.FOLDER / name).read_text("utf-8")
    assert committed == reference.PAGES[name](), f"docs/reference/{name} is old: make docs"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_to_one(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL))
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert missing == []


def test_the_architecture_page_names_every_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = [re.findall(r"(?<![(\w])\w+(?![)\w])", row) for row in contracts[0]["layers"]]
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    drawn = re.search(r"```text\n(__main__.*?)```", page, re.DOTALL)
    assert drawn is not None
    words = {word for line in drawn[1].splitlines() for word in line.split("   ")[0].split(" · ")}
    assert {name for row in layers for name in row} - {word.strip() for word in words} == set()


def test_a_pattern_of_a_path_reads_as_a_path() -> None:
    assert reference.readable(r"/v2/models/(?P<model>[^/:]+)(/versions/(?P<number>\d{1,12}))?/ready") == (
        "/v2/models/{model}[/versions/{number}]/ready"
    )
    assert reference.readable(r"/openapi\.json") == "/openapi.json"
    assert reference.readable(r"/healthz/live|/v2/health/live") == "/healthz/live or /v2/health/live"
