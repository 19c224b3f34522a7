"""ONNX graphs, run by onnxruntime: a `ModelProto`, its bytes, or the path of an .onnx file.

The file travels as it is, so a served graph answers bit for bit as it does in any process with the same onnxruntime.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from salver import plugins, tables
from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, onnx_half
from salver.frameworks.answers import promised
from salver.release import MODEL_DIR
from salver.signature import Column, Field, Signature, Tensor

ENTRY: Final = "model.onnx"
SUFFIX: Final = ".onnx"
MAX_BATCH: Final = 1024
METHODS: Final = ("", "predict", "predict_proba")
DEVICES: Final = {"cpu": ("CPUExecutionProvider",), "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider")}
LEVELS: Final = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
RENAMED: Final = {
    "label": "prediction",
    "output_label": "prediction",
    "variable": "prediction",
    "output_probability": "probabilities",
}
"""What converters call the outputs of classifiers and regressors, and what a release calls them."""

_DTYPES: Final = {
    "tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64,
    "tensor(int8)": np.int8, "tensor(int16)": np.int16, "tensor(int32)": np.int32, "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16, "tensor(uint32)": np.uint32, "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_, "tensor(string)": np.object_,
}  # fmt: skip

Feed = Callable[[Columns], dict[str, Any]]
"""Brings columns into the inputs of a session."""


class Onnx:
    """The adapter of ONNX.

    Options: `device` (cpu, cuda), `optimisation` (none, basic, extended, all), `null_text`, the text that stands for
    null in a string input (without it null is an error), and `method`: predict leaves the probabilities out. Columns
    are stacked where the graph has one input, else each goes to the input of its name. A float column is rounded to the
    float32 that an input wants; a fraction or null never becomes an integer.
    """

    name = "onnx"
    options = ("method", "device", "optimisation", "null_text")

    def handles(self, model: object) -> bool:
        """Whether it is a ModelProto, its bytes, or a path that ends in .onnx."""
        if isinstance(model, bytes):
            return model[:1] == b"\x08"  # the tag of ir_version, which every writer puts first
        if isinstance(model, str | os.PathLike):
            return os.fspath(model).endswith(SUFFIX) if _is_text(model) else False
        kind = type(model)
        return kind.__name__ == "ModelProto" and kind.__module__.partition(".")[0] == "onnx"

    def save(self, model: Any, folder: Path) -> Saved:
        """Write model/model.onnx, and the file of external weights that lies beside a path."""
        target = folder / MODEL_DIR
        target.mkdir(parents=True, exist_ok=True)
        named = "the graph"
        if isinstance(model, str | os.PathLike):
            path, named = Path(model), os.fspath(model)
            data = _read(path)
            outside = path.with_name(f"{path.name}.data")
            if outside.is_file():
                (target / outside.name).write_bytes(outside.read_bytes())
        else:
            data = model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)
        (target / ENTRY).write_bytes(data)
        _check_batch(_session(target / ENTRY, {}, named))
        return Saved(ENTRY, {"imports": ["onnxruntime"]}, "", MAX_BATCH)

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Open a session; it uses as many threads as OMP_NUM_THREADS says."""
        if "half" in options:
            alone = {name: value for name, value in options.items() if name != "half"}
            return onnx_half.load(folder, options, signature, lambda own: self.load(folder, entry, alone, own))
        wanted = tuple(field.name for field in signature.outputs)
        return promised(_call(_session(folder / MODEL_DIR / entry, options), options, signature, wanted), signature)

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that answers every output of the saved graph; its raw answers show what the outputs are."""
        del model
        method = options.get("method", "")
        if method not in METHODS:
            raise error("bad-settings", f"onnx: unknown method {method!r}", hint="predict or predict_proba")
        session = _session(folder / MODEL_DIR / ENTRY, options)
        names = [_renamed(session, each.name) for each in session.get_outputs()]
        if method == "predict":
            names = [name for name in names if name != "probabilities"]
        elif method and "probabilities" not in names:
            raise error("unsupported-model", f"the graph has no probabilities; its outputs are {', '.join(names)}")
        return _call(session, options, signature, tuple(names))


FRAMEWORK = Onnx()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise error(
            "missing-file",
            f"the model is given as the path '{path}', where nothing lies",
            hint="give a path that exists (looked up in the working directory)",
        ) from None
    except OSError as problem:
        raise error("unsupported-model", f"{path} can't be read: {problem.strerror}") from None


def _is_text(path: Any) -> bool:
    return isinstance(os.fspath(path), str)


def _session(path: Path, options: Mapping[str, Any], named: str = "") -> Any:
    """Open the graph at `path`; `named` is what a person calls it."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise plugins.missing_extra("onnxruntime", needed_for="an ONNX model") from None
    level = _chosen("optimisation", options.get("optimisation", "all"), LEVELS)
    providers = _chosen("device", options.get("device", "cpu"), DEVICES)
    if providers[0] not in onnxruntime.get_available_providers():
        raise error(
            "bad-settings",
            f"onnx: this onnxruntime has no {providers[0]}",
            hint="install onnxruntime-gpu in its place, or release with device = 'cpu'",
        )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = _threads()
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would burn a core
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=list(providers))
    except Exception as problem:  # onnxruntime's own errors have no common base
        named = named or path.name
        why = str(problem).replace(str(path), named)[:500]
        raise error("unsupported-model", f"onnxruntime can't open {named}: {why}") from None


def _chosen(option: str, value: Any, table: Mapping[str, Any]) -> Any:
    if value not in table:
        raise error("bad-settings", f"onnx: unknown {option} {value!r}", hint=f"one of {', '.join(table)}")
    return table[value]


def _threads() -> int:
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() and int(said) else 1


def _check_batch(session: Any) -> None:
    fixed = [each.name for each in session.get_inputs() if each.shape and isinstance(each.shape[0], int)]
    if fixed:
        raise error(
            "unsupported-model",
            f"the graph takes a fixed number of rows in {', '.join(fixed)}",
            hint="export it with a free first dimension (dynamic axis)",
        )


def _renamed(session: Any, name: str) -> str:
    """The name in a release of an output of the graph; a name that another output has already stays its own."""
    new = RENAMED.get(name, name)
    return name if new != name and any(each.name == new for each in session.get_outputs()) else new


def _call(
    session: Any, options: Mapping[str, Any], signature: Signature, wanted: Sequence[str]
) -> Callable[[Columns], Columns]:
    """The function from columns to the wanted outputs, by their names in the release."""
    given = {_renamed(session, each.name): each.name for each in session.get_outputs()}
    missing = [name for name in wanted if name not in given]
    if missing:
        raise error(
            "bad-signature",
            f"the graph has no output {', '.join(missing)}",
            hint=f"it has {', '.join(given)}",
        )
    graph_names, run = [given[name] for name in wanted], session.run
    arrays = {field.name for field in signature.outputs if isinstance(field, Tensor)}
    feed = _feed(session.get_inputs(), signature.inputs, options.get("null_text"))

    def call(columns: Columns) -> Columns:
        answers = run(graph_names, feed(columns))
        return {name: _array(value, name in arrays) for name, value in zip(wanted, answers, strict=True)}

    return call


def _array(value: Any, whole: bool) -> Any:
    """An output as one array: the maps that ZipMap makes become a matrix, one column of numbers loses its dimension."""
    if isinstance(value, list):
        if value and isinstance(value[0], Mapping):
            value = [list(row.values()) for row in value]
        return np.asarray(value)
    return value[:, 0] if value.ndim == 2 and value.shape[1] == 1 and not whole else value


def _feed(inputs: Sequence[Any], fields: tuple[Field, ...], null_text: str | None) -> Feed:
    """How the signature's columns become the inputs of the graph: stacked to its one input, else by name."""
    known = {field.name: field for field in fields}
    blobs = [field.name for field in fields if isinstance(field, Column) and field.type == "bytes"]
    if blobs:  # the runtime would make text like b'…' of them
        raise error("bad-signature", f"an ONNX graph takes no bytes: {', '.join(blobs)}", hint="its text is str")
    if all(each.name in known for each in inputs):
        parts = [(each.name, _one(each, known[each.name], null_text)) for each in inputs]
        return lambda columns: {name: fill(columns) for name, fill in parts}
    if len(inputs) > 1:
        missing = [each.name for each in inputs if each.name not in known]
        raise error(
            "bad-signature",
            f"the graph has inputs that the signature doesn't have: {', '.join(missing)}",
            hint="name the examples' columns as the graph does",
        )
    name = inputs[0].name
    fill = _one(inputs[0], fields[0], null_text) if len(fields) == 1 else _stacked(inputs[0], fields, null_text)
    return lambda columns: {name: fill(columns)}


def _stacked(graph_input: Any, fields: tuple[Field, ...], null_text: str | None) -> Callable[[Columns], Any]:
    kind, names = _kind(graph_input), tuple(field.name for field in fields)
    if any(isinstance(field, Tensor) for field in fields):
        raise error("bad-signature", f"arrays can't be stacked to the one input {graph_input.name!r} of the graph")
    if kind != np.object_:
        return lambda columns: _as(tables.matrix(columns, names), kind)
    return lambda columns: np.column_stack([_text(columns[name], null_text) for name in names])


def _one(graph_input: Any, field: Field, null_text: str | None) -> Callable[[Columns], Any]:
    kind, name = _kind(graph_input), field.name
    tall = isinstance(field, Column) and len(graph_input.shape) == 2

    def fill(columns: Columns) -> Any:
        values = columns[name]
        values = _text(values, null_text) if kind == np.object_ else _as(values, kind)
        return values.reshape(-1, 1) if tall else values

    return fill


def _kind(graph_input: Any) -> Any:
    kind = _DTYPES.get(graph_input.type)
    if kind is None:
        raise error("unsupported-model", f"the input {graph_input.name!r} is a {graph_input.type}, which rows can't be")
    return kind


def _as(values: Any, kind: Any) -> Any:
    """The values in the dtype of the graph; ValueError for nulls and fractions where it wants whole numbers."""
    if values.dtype == kind:
        return np.ascontiguousarray(values)
    if values.dtype == object and any(value is None for value in values.flat):
        raise ValueError("null has no place in a number of this graph")
    if np.dtype(kind).kind in "iu" and values.dtype.kind == "f" and not (values == np.trunc(values)).all():
        raise ValueError("a null or fraction has no place in a whole number of this graph")
    with np.errstate(over="ignore"):
        return values.astype(kind, order="C")


def _text(values: Any, null_text: str | None) -> Any:
    if None not in values.tolist():
        return values
    if null_text is None:
        raise ValueError("null has no place in a text of this graph; the option null_text says what stands for it")
    return np.array([null_text if value is None else value for value in values.tolist()], object)
