"""The pages with commands do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Block, blocks, check_output, run_page

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "docs/tutorial.md",
    *(f"docs/guides/{p.name}" for p in sorted((ROOT / "docs/guides").glob("*.md"))),
]


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_the_page_works_and_prints_what_the_page_shows(name: str, tmp_path: Path) -> None:
    assert run_page(ROOT / name, tmp_path) > 0


def test_a_block_knows_its_line_its_words_and_its_text() -> None:
    indented = "   ```python file=a.py\n   if x:\n       y()\n   ```\n"
    page = "# A\n\n```bash server\nsalver serve iris\n```\n\n1. x\n\n" + indented
    assert blocks(page) == [
        Block(3, "bash", ("server",), "salver serve iris\n"),
        Block(9, "python", ("file=a.py",), "if x:\n    y()\n"),
    ]


def test_a_page_whose_command_fails_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\nfalse\necho never\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:1: exit status 1"):
        run_page(page, tmp_path)


def test_a_page_that_promises_another_output_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\necho one two\n```\n\n```text output\none ...\n```\n")
    assert run_page(page, tmp_path) == 2
    with pytest.raises(AssertionError, match="promises"):
        check_output("one three\n", "one two\n", "page.md:5")


def test_a_file_of_a_page_is_written_before_the_next_command(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python file=a/b.py\nprint(40 + 2)\n```\n```bash\npython a/b.py\n```\n```text output\n42\n```\n")
    assert run_page(page, tmp_path) == 3
