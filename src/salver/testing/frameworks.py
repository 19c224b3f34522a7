"""The contract of a framework adapter, as checks. Each raises AssertionError with what is broken.

@pytest.mark.parametrize("check", frameworks.CHECKS, ids=lambda check: check.__name__)
def test_my_adapter(check, tmp_path):
    check(frameworks.Case(ADAPTER, model, columns, signature), tmp_path)
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from salver.frameworks import Columns, Framework, Saved
from salver.packaging import closure
from salver.release import CODE_DIR
from salver.signature import Signature

CHUNKS = (1, 2, 3)
TIMEOUT = 600


class Case(NamedTuple):
    """One model for an adapter: the object, columns it can answer, and its signature.

    `exact` is whether it answers bit for bit the same whatever the size of the batch, as trees do and matrices don't.
    """

    adapter: Framework
    model: Any
    columns: Columns
    signature: Signature
    exact: bool = True

    @property
    def rows(self) -> int:
        """How many rows the columns hold."""
        return len(next(iter(self.columns.values())))


def handles_its_model(case: Case, folder: Path) -> None:
    """The adapter handles its model, and no plain value."""
    del folder
    assert case.adapter.handles(case.model), f"{case.adapter.name} doesn't handle {type(case.model).__name__}"
    for other in (None, 1, "text", [1], {"a": 1}, object()):
        assert not case.adapter.handles(other), f"{case.adapter.name} claims to handle {other!r}"


def handles_imports_nothing(case: Case, folder: Path) -> None:
    """Whether a model is handled is decided without importing anything."""
    del folder
    before = set(sys.modules)
    case.adapter.handles(object())
    case.adapter.handles(case.model)
    assert set(sys.modules) == before, f"handles() imported {sorted(set(sys.modules) - before)}"


def saves_the_same_bytes_twice(case: Case, folder: Path) -> None:
    """Saving a model twice gives the same files and the same words about them."""
    first, second = case.adapter.save(case.model, folder / "1"), case.adapter.save(case.model, folder / "2")
    assert first == second, f"two saves said {first} and {second}"
    assert _contents(folder / "1") == _contents(folder / "2"), "two saves wrote different bytes"


def says_what_json_can_keep(case: Case, folder: Path) -> None:
    """The options that `save` returns survive the manifest."""
    saved = case.adapter.save(case.model, folder)
    assert msgspec.json.decode(msgspec.json.encode(saved.options)) == saved.options


def predicts_as_many_rows_as_it_gets(case: Case, folder: Path) -> None:
    """For each size of a batch: all outputs, and one entry of each per row."""
    predict, names = _load(case, folder), [field.name for field in case.signature.outputs]
    for size in (*CHUNKS, case.rows):
        outputs = predict(_rows(case.columns, 0, size))
        assert sorted(outputs) == sorted(names), f"outputs {sorted(outputs)}, the signature has {sorted(names)}"
        for name, values in outputs.items():
            assert len(values) == size, f"{name}: {len(values)} entries for {size} rows"


def leaves_its_input_alone(case: Case, folder: Path) -> None:
    """Predicting doesn't change the columns it was given."""
    columns = {name: values.copy() for name, values in case.columns.items()}
    _load(case, folder)(columns)
    for name, values in columns.items():
        assert _same(values, case.columns[name]), f"predict changed its input {name}"


def predicts_the_same_after_a_reload(case: Case, folder: Path) -> None:
    """Two loads of one save answer bit for bit the same, and so does one load twice."""
    predict = _load(case, folder)
    again = case.adapter.load(folder, *_entry(case, folder), case.signature)
    for outputs in (predict(case.columns), again(case.columns)):
        _require_same(predict(case.columns), outputs, "a second call or load")


def answers_a_row_whatever_its_batch(case: Case, folder: Path) -> None:
    """A row gets the same answer alone and among others (within rounding where the case isn't exact)."""
    predict = _load(case, folder)
    whole = predict(case.columns)
    for row in range(min(case.rows, 5)):
        alone = predict(_rows(case.columns, row, row + 1))
        for name, values in alone.items():
            expected = whole[name][row : row + 1]
            close = not case.exact and values.dtype.kind == "f" and _close(values, expected, whole[name])
            assert close or _same(values, expected), f"row {row} alone: {name} is {values}, among others {expected}"


def predicts_the_same_in_a_clean_process(case: Case, folder: Path) -> None:
    """A process that has only what the release holds, and the installed packages, answers bit for bit the same."""
    saved = case.adapter.save(case.model, folder)
    _write_code(saved, folder)
    expected = case.adapter.load(folder, saved.entry, saved.options, case.signature)(case.columns)
    np.savez(folder / "in.npz", allow_pickle=True, **{f"c{i}": v for i, v in enumerate(case.columns.values())})
    given = {
        "adapter": [type(case.adapter).__module__, case.adapter.name],
        "names": list(case.columns),
        "entry": saved.entry,
        "options": saved.options,
        "signature": msgspec.to_builtins(case.signature),
    }
    (folder / "given.json").write_bytes(msgspec.json.encode(given))
    command = [sys.executable, "-P", "-c", _CLEAN, str(folder), str(folder / CODE_DIR)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, f"the clean process failed: {done.stderr[-2000:]}"
    with np.load(folder / "out.npz", allow_pickle=True) as out:
        _require_same(expected, {name: out[name] for name in out.files}, "the clean process")


CHECKS: tuple[Callable[[Case, Path], None], ...] = (
    handles_its_model,
    handles_imports_nothing,
    saves_the_same_bytes_twice,
    says_what_json_can_keep,
    predicts_as_many_rows_as_it_gets,
    leaves_its_input_alone,
    predicts_the_same_after_a_reload,
    answers_a_row_whatever_its_batch,
    predicts_the_same_in_a_clean_process,
)
"""The whole contract; run every check on each kind of model that the adapter saves in a way of its own."""

_CLEAN = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])
import msgspec, numpy as np
from salver import plugins
from salver.signature import Signature
given = msgspec.json.decode((folder / "given.json").read_bytes())
with np.load(folder / "in.npz", allow_pickle=True) as data:
    columns = {name: data[f"c{i}"] for i, name in enumerate(given["names"])}
adapter = plugins.framework(given["adapter"][1])
signature = msgspec.convert(given["signature"], Signature)
outputs = adapter.load(folder, given["entry"], given["options"], signature)(columns)
np.savez(folder / "out.npz", allow_pickle=True, **outputs)
"""


def _load(case: Case, folder: Path) -> Callable[[Columns], Columns]:
    saved = case.adapter.save(case.model, folder)
    _write_code(saved, folder)
    return case.adapter.load(folder, saved.entry, saved.options, case.signature)


def _entry(case: Case, folder: Path) -> tuple[str, dict[str, Any]]:
    saved = case.adapter.save(case.model, folder)
    return saved.entry, saved.options


def _write_code(saved: Saved, folder: Path) -> None:
    """Put the user's own modules that the model names where a release has them."""
    for relative, source in closure.close(saved.options.get("imports", ())).files.items():
        path = folder / CODE_DIR / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _rows(columns: Columns, start: int, stop: int) -> Columns:
    return {name: values[start:stop] for name, values in columns.items()}


def _same(one: Any, other: Any) -> bool:
    """Equal bit for bit, NaN included."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == object:
        return all(a is b or a == b or (a != a and b != b) for a, b in zip(one.flat, other.flat, strict=True))
    return bool(np.array_equal(one.view(f"V{one.dtype.itemsize}"), other.view(f"V{other.dtype.itemsize}")))


def _close(one: Any, other: Any, whole: Any) -> bool:
    """Equal within 1e-6 of the largest number of the output: a small one may be the difference of large ones."""
    scale = np.abs(whole).max(initial=0.0, where=np.isfinite(whole))
    return bool(np.allclose(one, other, rtol=1e-6, atol=1e-6 * scale, equal_nan=True))


def _require_same(expected: Columns, got: Columns, where: str) -> None:
    assert sorted(expected) == sorted(got), f"{where}: outputs {sorted(got)}, expected {sorted(expected)}"
    for name, values in expected.items():
        assert _same(values, got[name]), f"{where}: {name} differs"
