"""What the cases of every adapter's tests are held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from salver.testing import frameworks
from salver.testing.frameworks import Case

each_check = pytest.mark.parametrize("check", frameworks.CHECKS, ids=lambda check: check.__name__)


def kept_by(cases: Sequence[Callable[[], Case]]) -> Any:
    """A test of every check of the shipped contract on each of these cases."""

    @pytest.mark.parametrize("case", cases, ids=lambda case: case.__name__)
    @each_check
    def test(check: Callable[[Case, Path], None], case: Callable[[], Case], tmp_path: Path) -> None:
        check(case(), tmp_path)

    return test


def assert_same_bits(adapter: Any, one: Case, folder: Path) -> None:
    """What `adapter` saves and loads answers the rows of the case as the model in memory does, bit by bit."""
    saved = adapter.save(one.model, folder)
    own = adapter.in_memory(one.model, folder, saved.options, one.signature)(one.columns)
    outputs = adapter.load(folder, saved.entry, saved.options, one.signature)(one.columns)
    own = own if isinstance(own, Mapping) else {"prediction": own}
    assert sorted(own) == sorted(outputs)
    for name, values in own.items():
        assert outputs[name].tolist() == values.tolist()
