"""Graphs that a library writes itself: CatBoost's and PyTorch's."""

from __future__ import annotations

import inspect
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from salver import plugins
from salver.accelerate import graphs
from salver.accelerate.convert import Graph
from salver.errors import SalverError, error
from salver.frameworks import boosting, torch_module, torch_tensors
from salver.release import MODEL_DIR, Manifest
from salver.signature import Signature, Tensor

SAMPLE = 3
"""Rows of the input that a module is traced with; a size of 0 or 1 would be taken for fixed."""


def catboost(folder: Path, manifest: Manifest) -> Graph:
    """The graph of a CatBoost model without categories or texts."""
    library = boosting.package("catboost")
    model = getattr(library, manifest.options["kind"])()
    model.load_model(str(folder / MODEL_DIR / manifest.entry), format="cbm")
    if model.get_cat_feature_indices() or model.get_text_feature_indices():
        raise _can_not("of CatBoost, models without categories and texts can be")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        try:
            model.save_model(str(path), format="onnx")
        except library.CatBoostError as problem:
            raise _can_not("CatBoost has no graph of this model") from problem
        data = path.read_bytes()
    if graphs.classifies(data) and not hasattr(model, "predict_proba"):
        raise _can_not(
            f"a {manifest.options['kind']} that was trained on classes answers raw scores, where a graph answers "
            "classes; a CatBoostClassifier can be converted"
        )
    return Graph(graphs.without_maps(data, manifest.signature.outputs[0].name), {})


def torch(folder: Path, manifest: Manifest) -> Graph:
    """The graph of a module or an exported program that takes one tensor and answers one, for any number of rows."""
    library = torch_tensors.import_torch()
    path = folder / MODEL_DIR / manifest.entry
    if path.suffix == ".pt":
        raise _can_not("of PyTorch, modules and exported programs can be, TorchScript can't")
    if path.suffix == ".pt2":
        model = library.export.load(path).module()
    else:
        model = torch_module.load(folder, manifest.entry, manifest.options).eval()
    name, example = _example(library, model, manifest.signature)
    answer = _answer(library, model, manifest.options)
    proba = manifest.options.get("method") == "predict_proba"
    output = "probabilities" if proba else manifest.signature.outputs[0].name
    graph = _export(library, answer, example, (name, output))
    if proba:
        graphs.labelled(graph, manifest.options.get("classes"))
    graphs.plain(graph)
    return Graph(graphs.written(graph), {})


def _export(library: Any, answer: Any, example: Any, names: tuple[str, str]) -> Any:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = library.onnx.export(
                answer, (example,), dynamo=True, verbose=False, input_names=[names[0]], output_names=[names[1]],
                dynamic_shapes=({0: library.export.Dim("rows")},),
            )  # fmt: skip
    except ModuleNotFoundError as problem:
        raise plugins.missing_extra(problem.name or "onnxscript", needed_for="converting a module to ONNX") from None
    except Exception as problem:  # an exporter may fail in any way: it is read as "can't"
        raise _can_not(f"{type(problem).__name__}: {str(problem)[:300]}") from problem
    return program.model_proto


def _example(library: Any, model: Any, signature: Signature) -> tuple[str, Any]:
    """The name of the graph's one input, and a few rows of what goes there."""
    fields = signature.inputs
    if len(fields) == 1 and isinstance(fields[0], Tensor):
        shape = (SAMPLE, *(3 if size < 0 else size for size in fields[0].row_shape))
        return fields[0].name, library.from_numpy(np.zeros(shape, fields[0].dtype))
    arguments = set(inspect.signature(model.forward).parameters)
    if any(isinstance(field, Tensor) for field in fields) or {field.name for field in fields} <= arguments:
        raise _can_not("of PyTorch, modules that take one tensor can be")
    dtype = torch_tensors.weights_dtype([*model.parameters(), *model.buffers()])
    return "X", library.zeros((SAMPLE, len(fields)), dtype=dtype)


def _answer(library: Any, model: Any, options: Mapping[str, Any]) -> Any:
    """The module with what the adapter makes of its scores as part of it."""
    proba, from_logits = options.get("method") == "predict_proba", bool(options.get("from_logits", True))

    class Answer(library.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, values: Any) -> Any:
            raw = self.model(values)
            if isinstance(raw, tuple | list) and len(raw) == 1:
                raw = raw[0]
            if not isinstance(raw, library.Tensor):
                raise TypeError("the module answers more than one tensor")
            if not proba:
                return raw
            if raw.ndim == 1 or raw.shape[1] == 1:
                share = raw.reshape(-1, 1).sigmoid() if from_logits else raw.reshape(-1, 1)
                return library.cat([1 - share, share], dim=1)
            return raw.softmax(dim=1) if from_logits else raw

    return Answer()


def _can_not(why: str) -> SalverError:
    return error("unsupported-model", f"the model can't be converted to ONNX: {why}", hint="nothing was published")
