"""MLflow model folders (`MLmodel`), called through MLflow's own pyfunc; the folder travels as it is.

Whatever the flavour, the globals that loading unpickles are recorded in the release, and loading it allows no others.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Final

import numpy as np

from salver import plugins, tables
from salver.errors import SalverError, error
from salver.frameworks import Columns, Predict, Saved, pickled
from salver.frameworks.answers import promised
from salver.frameworks.arrange import in_order
from salver.frameworks.owners import places
from salver.lock import normalised
from salver.release import MODEL_DIR
from salver.signature import Signature, Tensor

MLMODEL: Final = "MLmodel"
QUIET: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
PICKLES: Final = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".pt", ".pth", ".bin", ".ckpt")
DROPPED: Final = ("uv.lock", "__pycache__", ".git", ".DS_Store", "*.pyc")
ENVIRONMENT: Final = ("requirements.txt", "constraints.txt", "conda.yaml")
_INDEX: Final = re.compile(
    r"\s*(?:- *)?[\"']?(?:-i\b|-f\b|--index-url|--extra-index-url|--find-links|--trusted-host|https?://).*"
)
_REQUIREMENT: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_NUMBERS: Final = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64", "boolean": "bool"}
_DEPTH: Final = 4
BY_VALUE: Final = ("cloudpickle.", "dill.")
"""Where the globals come from that rebuild a function or class out of its code."""


class Mlflow:
    """The adapter of MLflow models: a loaded `mlflow.pyfunc.PyFuncModel`, or the path of a folder with `MLmodel`.

    The signature comes from the examples; that of MLmodel says only which exact number types MLflow insists on. The
    answers are those of the flavour: bit by bit the same. Option `params` goes to each `predict`.
    """

    name = "mlflow"
    options = ("params",)

    def handles(self, model: object) -> bool:
        """Whether this is a pyfunc model, or the path of an existing folder that holds an MLmodel."""
        if isinstance(model, str | os.PathLike):
            return os.path.isfile(os.path.join(os.fspath(model), MLMODEL)) if _is_text(model) else False
        return any(
            kind.__name__ == "PyFuncModel" and kind.__module__ == "mlflow.pyfunc" for kind in type(model).__mro__
        )

    def save(self, model: Any, folder: Path) -> Saved:
        """Copy the model's folder to model/, without addresses of package indexes; MLmodel stays as it is."""
        target = folder / MODEL_DIR
        source = _folder(model, target)
        if source.resolve() != target.resolve():
            shutil.copytree(
                source,
                target,
                ignore=shutil.ignore_patterns(*DROPPED),
                dirs_exist_ok=True,
                copy_function=shutil.copyfile,
            )
        for name in ENVIRONMENT:
            _without_indexes(target / name)
        described = _described(target)
        names = _recorded(described, source)
        own = pickled.needed(name for name in names if not _is_within(name, source))
        options = {pickled.OPTION: sorted(names), "imports": sorted({*_imports(described, target), *own})}
        return Saved(MLMODEL, options, _unsafe(described, target, names))

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Let MLflow load the folder; raises `untrusted-artifact` before a global that the release lacks is built.

        What it finds there may run code, of which the release's `unsafe` tells.
        """
        del entry
        names = pickled.listed(options)
        _import(_described(folder / MODEL_DIR), names)
        with pickled.only(frozenset(names), "the MLflow model"):
            model = _pyfunc(folder / MODEL_DIR)
        return promised(_call(model, options, signature), signature)

    def columns(self, model: Any) -> tuple[str, ...]:
        """The names of the inputs that MLmodel declares; () where it declares none."""
        schema = _metadata(model).get_input_schema()
        return tuple(map(str, schema.input_names())) if schema is not None and schema.has_input_names() else ()

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with the model as it is in memory, or as MLflow loads it from its own folder."""
        del folder
        loaded = _own(Path(model)) if isinstance(model, str | os.PathLike) else model
        return _call(loaded, options, signature)


FRAMEWORK = Mlflow()


def _is_text(path: Any) -> bool:
    return isinstance(os.fspath(path), str)


def _mlflow() -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow.pyfunc
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] in ("mlflow", "pandas"):
            raise plugins.missing_extra("mlflow", needed_for="an MLflow model") from None
        raise
    return mlflow


def _pyfunc(folder: Path) -> Any:
    return _mlflow().pyfunc.load_model(str(folder), suppress_warnings=True)


def _own(folder: Path) -> Any:
    """The model of a folder of the user's; raises `unsupported-model`, naming the folder, for whatever it raises."""
    try:
        return _pyfunc(folder)
    except SalverError:
        raise
    except Exception as raised:
        raise error(
            "unsupported-model",
            f"the MLflow model in {folder} can't be loaded: it raised {type(raised).__name__}",
            hint="mlflow.pyfunc.load_model(folder) has to work here before it can be released",
        ) from raised


def _metadata(model: Any) -> Any:
    if isinstance(model, str | os.PathLike):
        return _mlflow().models.Model.load(os.fspath(model))
    return model.metadata


# Saving


def _folder(model: Any, target: Path) -> Path:
    """The folder of a model: given, already copied to `target` (`files=`), or found by what MLmodel says of itself.

    A loaded model doesn't remember where it came from, but its MLmodel has a unique id.
    """
    if isinstance(model, str | os.PathLike):
        return Path(model)
    metadata = model.metadata
    known = str(metadata.artifact_path or "").removeprefix("file://")
    below = (path.parent for depth in range(_DEPTH) for path in sorted(Path().glob("*/" * depth + MLMODEL)))
    for folder in (target, *([Path(known)] if known else []), *below):
        if (folder / MLMODEL).is_file() and metadata.model_uuid and metadata.model_uuid == _uuid(folder):
            return folder
    raise error(
        "missing-file",
        "the folder that this MLflow model was loaded from can't be found",
        hint="release the folder itself: salver.release(name, Path('the/folder'), ...)",
    )


def _uuid(folder: Path) -> str:
    found = re.search(r"^model_uuid: *['\"]?([0-9a-fA-F-]+)", (folder / MLMODEL).read_text("utf-8"), re.MULTILINE)
    return found[1] if found else ""


def _without_indexes(path: Path) -> None:
    if path.is_file():
        lines = path.read_text("utf-8").splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not _INDEX.fullmatch(line.rstrip("\r\n"))), "utf-8")


def _described(folder: Path) -> Any:
    described = _mlflow().models.Model.load(str(folder))
    if "python_function" not in described.flavors:
        raise error(
            "unsupported-model",
            f"the MLflow model has no python_function flavour, only {', '.join(sorted(described.flavors))}",
            hint="save it with a flavour that mlflow.pyfunc can load",
        )
    return described


def _import(described: Any, names: Iterable[str]) -> None:
    """Import what loading will, where it can be: what an import itself unpickles is not the artifact's."""
    modules = {name.partition(":")[0] for name in names}
    for module in (described.flavors["python_function"]["loader_module"], *sorted(modules)):
        with suppress(ImportError):
            importlib.import_module(module)


def _recorded(described: Any, folder: Path) -> set[str]:
    """The globals that loading the folder unpickles; it is loaded again where the first time imported something."""
    _import(described, ())
    for _ in range(2):
        modules = set(sys.modules)
        with pickled.recording() as seen:
            _own(folder)
        if modules == set(sys.modules):
            break
    return seen


def _is_within(name: str, folder: Path) -> bool:
    """Whether a global is from the code that travels in the model's folder."""
    root = name.partition(":")[0].partition(".")[0]
    return any(place.resolve().is_relative_to(folder.resolve()) for place in places(root))


def _unsafe(described: Any, folder: Path, names: Iterable[str]) -> str:
    """Why loading may run code: pickles in the folder, code that travels in it, types that skops is told to trust."""
    loader = described.flavors["python_function"]
    pickles = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if _is_pickle(path))
    reasons = [f"MLflow unpickles {', '.join(pickles)}"] if pickles else []
    if any(name.startswith(BY_VALUE) for name in names):
        reasons.append("functions or classes are pickled by value: code in the file, which no list of globals limits")
    if loader.get("code"):
        reasons.append(f"it runs the model's own code in {loader['code']}")
    if not str(loader["loader_module"]).startswith("mlflow."):
        reasons.append(f"it is loaded by {loader['loader_module']}")
    trusted = sorted(
        {name for flavour in described.flavors.values() for name in flavour.get("skops_trusted_types") or ()}
    )
    if trusted:
        reasons.append(f"its MLmodel tells skops to trust {', '.join(trusted)}")
    return "; ".join(reasons)


def _is_pickle(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix in PICKLES:
        return True
    with path.open("rb") as file:
        return re.match(rb"\x80[\x02-\x05]", file.read(2)) is not None


def _imports(described: Any, folder: Path) -> list[str]:
    """The modules that loading needs: those of the flavours, and of the packages that MLflow found when it saved.

    MLflow writes its requirements.txt by loading the model and looking at what was imported.
    """
    owners: dict[str, set[str]] = {}
    for module, names in packages_distributions().items():
        for name in names:
            owners.setdefault(normalised(name), set()).add(module)
    wanted = {"mlflow", "pandas"}
    for name in (*_required(folder / "requirements.txt"), *_flavoured(described.flavors)):
        if name not in ("mlflow", "mlflow-skinny"):
            wanted |= {module for module in owners.get(name, ()) if module.isidentifier() and module[0] != "_"}
    return sorted(wanted)


def _required(path: Path) -> Iterable[str]:
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return [normalised(found[1]) for line in lines if (found := _REQUIREMENT.match(line))]


def _flavoured(flavors: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """The packages of the flavours, and of the formats they are written in."""
    packages = {"sklearn": "scikit-learn", "pytorch": "torch", "sentence_transformers": "sentence-transformers"}
    for name, flavour in flavors.items():
        if name == "python_function":
            yield "cloudpickle"
        else:
            yield normalised(packages.get(name, name))
        if flavour.get("serialization_format") == "skops":
            yield "skops"


# Predicting


def _call(model: Any, options: Mapping[str, Any], signature: Signature) -> Callable[[Columns], Any]:
    arrange = _arrangement(model.metadata.get_input_schema(), signature)
    params = options.get("params")
    return lambda columns: model.predict(arrange(columns), params=params) if params else model.predict(arrange(columns))


def _arrangement(schema: Any, signature: Signature) -> Callable[[Columns], Any]:
    """How columns become what MLflow takes: arrays where MLmodel declares tensors, else a DataFrame."""
    inputs = signature.inputs
    names = [field.name for field in inputs]
    if schema is None or not schema.is_tensor_spec():
        if schema is None and len(inputs) == 1 and isinstance(inputs[0], Tensor):
            return lambda columns: columns[names[0]]
        if schema is not None and schema.has_input_names():
            in_order(inputs, [str(spec.name) for spec in schema.inputs if spec.required])
        types = _number_types(schema, names)
        return lambda columns: _exact(tables.to_dataframe(columns, inputs), types)
    kinds = schema.numpy_types()
    if schema.has_input_names():
        wanted = dict(zip(map(str, schema.input_names()), kinds, strict=True))
        return lambda columns: {name: columns[name].astype(kind) for name, kind in wanted.items() if name in columns}
    if len(inputs) == 1 and isinstance(inputs[0], Tensor):
        return lambda columns: columns[names[0]].astype(kinds[0])
    return lambda columns: tables.matrix(columns, names).astype(kinds[0])


def _number_types(schema: Any, names: list[str]) -> dict[str, str]:
    """The numpy types of the numbers that MLmodel declares, by column: MLflow converts none that loses anything."""
    if schema is None:
        return {}
    declared = {str(spec.name): getattr(spec.type, "name", "") for spec in schema.inputs}
    return {name: _NUMBERS[kind] for name in names if (kind := declared.get(name, "")) in _NUMBERS}


def _exact(frame: Any, types: Mapping[str, str]) -> Any:
    for name, kind in types.items():
        values = frame[name].to_numpy()
        whole = np.dtype(kind).kind in "iub"
        if values.dtype.kind in "iufb" and values.dtype != kind and not (whole and np.isnan(values).any()):
            frame[name] = values.astype(kind)
    return frame
