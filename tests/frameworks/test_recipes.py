"""Every recipe of a framework runs as its reader would run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import run_page

GUIDES = Path(__file__).parent.parent.parent / "docs" / "guides" / "frameworks"


@pytest.mark.parametrize("page", sorted(GUIDES.glob("*.md")), ids=lambda page: page.stem)
def test_the_recipe_works(page: Path, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) >= 2
