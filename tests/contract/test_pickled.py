"""A pickle may name only what its release lists, however it names it and whoever reads it."""

from __future__ import annotations

import builtins
import copyreg
import io
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from salver.cli import show
from salver.errors import SalverError
from salver.frameworks import pickled
from salver.frameworks.sklearn import FRAMEWORK as SKLEARN
from salver.signature import Column, Signature

HARMLESS = {
    "joblib.numpy_pickle:NumpyArrayWrapper",
    "numpy._core.multiarray:_reconstruct",
    "numpy._core.numeric:_frombuffer",
    "numpy:dtype",
    "numpy:ndarray",
}
SUFFIXES = (".pickle", ".joblib")


class Gadget:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


class Nested:
    """Unpickles more when it is unpickled, out of sight of whoever reads the file."""

    def __init__(self, inner: bytes) -> None:
        self.inner = inner

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.value = pickle.loads(state["inner"])


def write(value: Any, path: Path, **how: Any) -> None:
    if path.suffix == ".joblib":
        joblib.dump(value, path, **how)
    else:
        path.write_bytes(pickle.dumps(value, protocol=5))


def refused(path: Path, allowed: set[str]) -> str:
    with pytest.raises(SalverError) as caught:
        pickled.load(path, allowed)
    assert caught.value.code == "untrusted-artifact"
    return caught.value.details[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "function", [os.system, builtins.eval, builtins.exec, subprocess.call, os.remove, builtins.open]
)
def test_a_gadget_is_refused_by_name_and_never_runs(function: Any, suffix: str, tmp_path: Path) -> None:
    path, trace = tmp_path / f"model{suffix}", tmp_path / "trace"
    argument = {"eval": f"open({str(trace)!r}, 'w')", "exec": f"open({str(trace)!r}, 'w')", "open": str(trace)}
    write({"weights": np.ones(3), "x": [Gadget(function, argument.get(function.__name__, f"touch {trace}"))]}, path)
    assert refused(path, HARMLESS) == f"{function.__module__}:{function.__name__}"
    assert not trace.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_gadget_in_an_object_array_is_refused(suffix: str, tmp_path: Path) -> None:
    path, trace = tmp_path / f"model{suffix}", tmp_path / "trace"
    hostile = np.array([1, "two", Gadget(os.system, f"touch {trace}")], object)
    write({"deep": [hostile]}, path)
    assert refused(path, HARMLESS) == "posix:system"
    assert not trace.exists()


def test_a_module_is_held_to_the_list_as_well(tmp_path: Path) -> None:
    path = tmp_path / "model.pickle"
    allowed = pickled.save(Gadget(pickled.module, "numpy.linalg"), path)
    assert allowed == {"salver.frameworks.pickled:module", "numpy.linalg:"}
    assert pickled.needed(allowed) == ["numpy"]
    assert pickled.needed([f"{__name__}:"]) == [__name__]
    assert pickled.load(path, allowed) is np.linalg
    write(Gadget(pickled.module, "antigravity"), path)
    assert refused(path, allowed) == "antigravity:"
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pickle_within_an_allowed_object_is_held_to_the_same_list(suffix: str, tmp_path: Path) -> None:
    path, trace = tmp_path / f"model{suffix}", tmp_path / "trace"
    write(Nested(pickle.dumps(Gadget(os.system, f"touch {trace}"))), path)
    assert refused(path, {f"{__name__}:Nested"}) == "posix:system"
    assert not trace.exists()


def test_a_pickle_within_a_pickle_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "model.pickle"
    seen = pickled.save(Nested(pickle.dumps(np.float64(1.5))), path)
    assert {f"{__name__}:Nested", "numpy:dtype"} < seen
    assert pickled.load(path, seen).value == 1.5


@pytest.mark.parametrize(
    ("hostile", "named"),
    [
        (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__:eval"),  # Python 2's name, which protocol 2 translates
        (b"\x80\x04\x8c\x05numpy\x8c\x09os.system\x93.", "numpy:os.system"),  # a way through an allowed module
        (b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.", "numpy:ndarray.__init__"),
        (b"(S'true'\niposix\nsystem\n.", "posix:system"),  # INST
        (b"(cposix\nsystem\nS'true'\no.", "posix:system"),  # OBJ
    ],
)
def test_another_spelling_of_a_gadget_is_refused(hostile: bytes, named: str, tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"model{suffix}"
        path.write_bytes(hostile)
        assert refused(path, HARMLESS) == named


@pytest.fixture
def extension() -> Iterator[bytes]:
    """A pickle that names os.system by a number, in a process where that number was used before."""
    copyreg.add_extension("posix", "system", 240)
    hostile = b"\x80\x02\x82\xf0(X\x04\x00\x00\x00truetR."
    assert pickle.load(io.BytesIO(b"\x80\x02\x82\xf0.")) is os.system
    yield hostile
    copyreg.remove_extension("posix", "system", 240)
    copyreg.clear_extension_cache()


def test_an_extension_code_is_a_name_as_well(extension: bytes, tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        pickle.loads(b"\x80\x02\x82\xf0.")
        path = tmp_path / f"model{suffix}"
        path.write_bytes(extension)
        assert refused(path, HARMLESS) == "posix:system"


def test_a_class_saved_by_its_extension_code_is_recorded(tmp_path: Path) -> None:
    copyreg.add_extension(__name__, "Nested", 241)
    try:
        seen = pickled.save(Nested(pickle.dumps(1)), tmp_path / "model.pickle")
        assert f"{__name__}:Nested" in seen
        assert refused(tmp_path / "model.pickle", HARMLESS) == f"{__name__}:Nested"
    finally:
        copyreg.remove_extension(__name__, "Nested", 241)
        copyreg.clear_extension_cache()


def test_a_persistent_id_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "model.pickle").write_bytes(b"Pposix\n.")
    with pytest.raises(pickle.UnpicklingError):
        pickled.load(tmp_path / "model.pickle", HARMLESS)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_joblib_files_of_every_compression_are_read_and_held_to_the_list(compress: Any, tmp_path: Path) -> None:
    path, big = tmp_path / "model.joblib", np.arange(3_000_000, dtype=float).reshape(1000, 3000).T
    write({"big": big}, path, compress=compress)
    assert np.array_equal(pickled.load(path, HARMLESS)["big"], big)
    write({"big": big, "x": Gadget(os.getcwd)}, path, compress=compress)
    assert refused(path, HARMLESS) == "posix:getcwd"


def test_what_is_recorded_is_what_is_needed_and_not_one_less(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True)
    model = make_pipeline(SplineTransformer(), Ridge()).fit(features, target)
    for suffix in SUFFIXES:
        path = tmp_path / f"model{suffix}"
        seen = pickled.save(model, path)
        assert "scipy.interpolate._bsplines:BSpline" in seen
        assert np.array_equal(pickled.load(path, seen).predict(features), model.predict(features))
        for name in seen:
            assert refused(path, seen - {name}) == name


def test_other_threads_unpickle_as_they_like_meanwhile() -> None:
    answers: list[Any] = []
    with pickled.only((), "nothing"):
        other = threading.Thread(target=lambda: answers.append(pickle.loads(pickle.dumps(os.getcwd))))
        other.start()
        other.join()
        with pytest.raises(SalverError):
            pickle.loads(pickle.dumps(os.getcwd))
    assert answers == [os.getcwd]
    assert pickle.loads(pickle.dumps(os.getcwd)) is os.getcwd


def test_a_block_inside_another_can_not_widen_it() -> None:
    with pickled.only((), "outer"), pickled.only({"posix:getcwd"}, "inner"), pytest.raises(SalverError, match="outer"):
        pickle.loads(pickle.dumps(os.getcwd))


def test_what_can_not_be_pickled_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        pickled.save({"scale": lambda x: x}, tmp_path / "model.pickle")
    assert caught.value.code == "unsupported-model"
    assert not (tmp_path / "model.pickle").exists()


def test_what_was_defined_again_since_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = [Gadget(str), Nested(b"")]
    again = type("Nested", (), {"__module__": __name__})
    monkeypatch.setattr(sys.modules[__name__], "Nested", again)
    with pytest.raises(SalverError, match=r"Nested was defined again after the model was made") as caught:
        pickled.save(model, tmp_path / "model.pickle")
    assert caught.value.hint == "make the model again: run the cell or the lines that fit it"


def test_a_release_from_before_globals_were_listed_is_refused_with_what_to_do(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    saved = SKLEARN.save(make_pipeline(SplineTransformer(), Ridge()).fit(features, target), tmp_path)
    signature = Signature(tuple(Column(name, "float") for name in features), (Column("prediction", "float"),))
    old = {name: value for name, value in saved.options.items() if name != "globals"}
    with pytest.raises(SalverError) as caught:
        SKLEARN.load(tmp_path, saved.entry, old, signature)
    assert caught.value.code == "untrusted-artifact"
    assert "release the model again" in caught.value.hint
    assert saved.options["globals"] == sorted(saved.options["globals"])
    SKLEARN.load(tmp_path, saved.entry, saved.options, signature)


def test_globals_are_grouped_by_package_and_told_from_the_users_own() -> None:
    names = [
        "sklearn.linear_model._ridge:Ridge",
        "numpy:dtype",
        "builtins:slice",
        "numpy:ndarray",
        f"{__name__}:Nested",
    ]
    assert pickled.by_package(names)["numpy"] == ["numpy:dtype", "numpy:ndarray"]
    assert list(pickled.by_package(names)) == sorted({"builtins", "numpy", "sklearn", __name__.partition(".")[0]})
    assert pickled.needed(names) == sorted(["sklearn", "numpy", f"{__name__}:Nested"])


def test_show_counts_the_globals_by_package_and_names_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    show._print_globals({"globals": ["numpy:a", "numpy:b", "numpy:c", "numpy:d", "posix:system"]})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["numpy", "4", "numpy:a,", "numpy:b,", "numpy:c,", "…"] in lines
    assert ["posix", "1", "posix:system"] in lines
    show._print_globals({"trusted": []})
    assert capsys.readouterr().out == ""
