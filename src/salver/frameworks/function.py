"""Any Python as a model: a subclass of `salver.Model`, or any class with `load` and `predict`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from salver import tables
from salver.errors import SalverError, error
from salver.frameworks import Columns, Predict, Saved
from salver.frameworks.answers import promised
from salver.frameworks.pieces import STREAM, Streaming, gathered
from salver.model import Model
from salver.release import CODE_DIR, MODEL_DIR
from salver.signature import Signature


class Function:
    """The adapter of user-written classes. The class travels as code, its files in model/; nothing is pickled."""

    name = "function"

    def handles(self, model: object) -> bool:
        """Whether `model` is a class with `load` and `predict`, or an instance of one.

        A `load` that belongs to the class and makes an object of it, as libraries have it, is not the one meant here.
        """
        kind = _kind(model)
        return issubclass(kind, Model) or (_has(kind, "load") and _has(kind, "predict"))

    def save(self, model: Any, folder: Path) -> Saved:
        """Write nothing but the folder; the entry names the class, which code/ will hold."""
        kind = _kind(model)
        (folder / MODEL_DIR).mkdir(parents=True, exist_ok=True)
        if kind.predict is Model.predict:
            raise error("unsupported-model", f"{kind.__qualname__} doesn't define predict")
        if "<locals>" in kind.__qualname__:
            raise error(
                "code-not-closed",
                f"{kind.__qualname__} of {kind.__module__} is defined inside a function",
                hint="move the class to the top of its module",
            )
        needed = [name for name in inspect.signature(kind).parameters.values() if _required(name)]
        if needed:
            raise error(
                "unsupported-model",
                f"{kind.__qualname__}() needs arguments ({', '.join(p.name for p in needed)}); a worker has none",
                hint="give them defaults, or read them in load(self, files)",
            )
        entry = f"{kind.__module__}:{kind.__qualname__}"
        frame = ["pandas"] if getattr(kind, "rows_as", "columns") == "dataframe" else []
        return Saved(entry, {"imports": [entry, *frame]}, "", capabilities=(STREAM,) if _yields(kind) else ())

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Import the class, build it, and call its `load` with the release's model/ folder."""
        del options
        kind = _find(entry)
        loaded = _Loaded(kind, folder, signature)
        return Streaming(loaded.pieces, signature) if _yields(kind) else promised(loaded, signature)

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with a fresh object of the class; its raw answers show what the outputs are.

        Its attribute `model` is that object: what it has loaded shows which packages it needs beside its imports.
        """
        del options
        return _Loaded(_kind(model), folder, signature)


FRAMEWORK = Function()


def _kind(model: object) -> type[Any]:
    return model if isinstance(model, type) else type(model)


def _yields(kind: type[Any]) -> bool:
    return inspect.isgeneratorfunction(kind.predict)


def _has(kind: type[Any], name: str) -> bool:
    found = getattr(kind, name, None)
    return callable(found) and not inspect.ismethod(found)


def _required(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not variadic


def _find(entry: str) -> type[Any]:
    module, _, path = entry.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as problem:
        raise error(
            "load-failed",
            f"the model's class {entry} can't be found: {type(problem).__name__}",
            hint="define it at the top of its module, under the name that it has itself",
        ) from problem
    if not isinstance(found, type):
        raise error("load-failed", f"{entry} is not a class")
    return found


def _absent(who: str, problem: FileNotFoundError, code: Path) -> SalverError:
    """The error for a file that the model's class opens and the release lacks: beside its module, or elsewhere."""
    path, code = Path(str(problem.filename or "a file")).resolve(), code.resolve()
    beside = path.is_relative_to(code)
    name = path.relative_to(code).as_posix() if beside else path.name
    return error(
        "missing-file",
        f"{who} looked for {name}, which is not there",
        hint="add it to include, or give it in files= and read it from the folder that load gets"
        if beside
        else "what it reads from the folder `files` is given to salver.release as files=",
    )


class _Loaded:
    """A model that is built and loaded, as the chain of its preprocess, predict and postprocess."""

    def __init__(self, kind: type[Any], folder: Path, signature: Signature) -> None:
        step = "__init__"
        try:
            self.model = kind()
            step = "load"
            self.model.load(folder / MODEL_DIR)
        except FileNotFoundError as problem:
            raise _absent(f"{kind.__qualname__}.{step}", problem, folder / CODE_DIR) from problem
        self._yields = _yields(kind)
        self._before: list[Callable[[Any], Any]] = []
        if getattr(self.model, "rows_as", "columns") == "dataframe":
            self._before.append(lambda columns: tables.to_dataframe(columns, signature.inputs))
        preprocess = getattr(self.model, "preprocess", None)
        if preprocess is not None:
            self._before.append(preprocess)
        self._after = getattr(self.model, "postprocess", None) or (lambda value: value)

    def __call__(self, columns: Columns) -> Any:
        """The whole answer, as the class gave it."""
        if self._yields:
            return gathered(list(self.pieces(columns)))
        return self._after(self.model.predict(self._prepared(columns)))

    def pieces(self, columns: Columns) -> Generator[Any, None, None]:
        """What a class that yields gives, piece by piece, each through its postprocess."""
        for piece in self.model.predict(self._prepared(columns)):
            yield self._after(piece)

    def _prepared(self, columns: Columns) -> Any:
        value: Any = columns
        for step in self._before:
            value = step(value)
        return value
