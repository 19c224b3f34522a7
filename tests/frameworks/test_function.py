"""What the adapter of plain Python takes for a model, and what it says of one that lacks a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import salver
from salver.errors import SalverError
from salver.frameworks.function import FRAMEWORK as FUNCTION


class Words(salver.Model):
    """Reads a file that nobody gave."""

    def load(self, files: Path) -> None:
        self.words = (files / "words.txt").read_text()

    def predict(self, rows: Any) -> Any:
        return rows["x"]


class Stored:
    """As libraries have it: `load` makes an object from a file."""

    @classmethod
    def load(cls, name: str) -> Stored:
        raise NotImplementedError(name)

    def predict(self, rows: Any) -> Any:
        return rows


class Plain:
    """The contract without its base class."""

    def load(self, files: Path) -> None:
        """Needs nothing."""

    def predict(self, rows: Any) -> Any:
        return rows["x"]


def test_a_class_whose_load_makes_objects_is_not_taken_for_a_model() -> None:
    assert not FUNCTION.handles(Stored())
    assert not FUNCTION.handles(Stored)
    assert FUNCTION.handles(Plain)
    assert FUNCTION.handles(Plain())


def test_a_file_that_load_misses_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        salver.release("words", Words, examples=[{"x": 1.0}], registry=str(tmp_path))
    assert caught.value.code == "missing-file"
    assert caught.value.message == "Words.load looked for words.txt, which is not there"
    assert "files=" in caught.value.hint
