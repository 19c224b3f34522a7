"""Keras 3 models on the torch backend, saved as .keras archives and loaded in safe mode."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from salver import plugins
from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, torch_tensors
from salver.frameworks.answers import promised
from salver.frameworks.torch_tensors import import_torch
from salver.frameworks.zip_file import rewrite
from salver.release import MODEL_DIR
from salver.signature import Signature

FILE: Final = "model.keras"
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_PROBABILITIES: Final = ("sigmoid", "softmax")


class Keras:
    """The adapter of Keras 3. The bits of weights are kept; a row's last bits may change with the size of its batch.

    Options: `device` ("cpu", "cuda", "cuda:1", "mps"); `method`, `classes` and `from_logits` as in
    `torch_tensors.answering`. `from_logits` is false by itself where the last layer ends in softmax or sigmoid.
    """

    name = "keras"
    options = ("method", "classes", "from_logits", "device")

    def handles(self, model: object) -> bool:
        """Whether a base of the model's class is the Model of Keras."""
        if isinstance(model, type):
            return False
        return any(
            (base.__module__, base.__name__) == ("keras.src.models.model", "Model") for base in type(model).__mro__
        )

    def save(self, model: Any, folder: Path) -> Saved:
        """Write model/model.keras without dates, optimizer and loss; read it back, as a worker will."""
        keras, target = _keras(), folder / MODEL_DIR
        if not model.built:
            raise error("unsupported-model", f"{model.name} has no weights yet", hint="call it on some rows first")
        target.mkdir(parents=True, exist_ok=True)
        path = target / FILE
        try:
            keras.saving.save_model(model, path)
            custom = _settle(path)
            _read(path)
        except (TypeError, ValueError, NotImplementedError, AttributeError, ImportError) as problem:
            path.unlink(missing_ok=True)
            raise error(
                "unsupported-model",
                f"{model.name} can't be kept in a .keras file: {problem}",
                hint="register own classes and functions with @keras.saving.register_keras_serializable(), give own "
                "layers a get_config, and replace Lambda layers by layers of your own",
            ) from None
        return Saved(FILE, {"imports": sorted({"keras", "torch", *custom}), "from_logits": _gives_logits(model)}, "")

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load the archive in safe mode to the option `device`; nothing is unpickled."""
        keras, place = _keras(), torch_tensors.device(options)
        torch_tensors.use_threads()
        for name in options.get("imports", ()):
            if ":" in name:  # importing the user's own module registers its classes
                importlib.import_module(name.partition(":")[0])
        with keras.device(str(place)):
            model = _read(folder / MODEL_DIR / entry)
        return promised(_call(model, options, signature, place), signature)

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with `model` as it is in memory, or with what was saved for another device."""
        keras, place = _keras(), torch_tensors.device(options)
        if any(variable.value.device != place for variable in model.variables):
            with keras.device(str(place)):
                model = _read(folder / MODEL_DIR / FILE)
        return _call(model, options, signature, place)


FRAMEWORK = Keras()


def _keras() -> Any:
    """The package keras on its torch backend; raises `unsupported-model` where another one was chosen before."""
    import_torch()
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras
    except ModuleNotFoundError as problem:
        if problem.name != "keras":
            raise
        raise plugins.missing_extra("keras", needed_for="a Keras model") from None
    require_torch(keras.config.backend())
    return keras


def require_torch(backend: str) -> None:
    """Raise `unsupported-model` where Keras runs on another backend."""
    if backend != "torch":
        raise error(
            "unsupported-model",
            f"Keras runs on its {backend} backend; a release needs torch",
            hint="set KERAS_BACKEND=torch before keras is imported",
        )


def _read(path: Path) -> Any:
    return _keras().saving.load_model(path, compile=False, safe_mode=True)


def _call(model: Any, options: Mapping[str, Any], signature: Signature, place: Any) -> Callable[[Columns], Any]:
    keras, torch = _keras(), import_torch()
    names = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
    required = len(names)
    if not required:  # a subclass of Model takes what it is given
        names = [field.name for field in signature.inputs]
    dtype = torch_tensors.weights_dtype(variable.value for variable in model.variables)
    arrange = torch_tensors.arrangement(signature, names, required, dtype, place)
    answer = torch_tensors.answering(options, signature.outputs)
    where = str(place)

    def call(columns: Columns) -> Any:
        with torch.inference_mode(), keras.device(where):
            inputs = arrange(columns)
            return answer(model(inputs.named or inputs.one, training=False))

    return call


def _gives_logits(model: Any) -> bool:
    """Whether the last layer ends in no activation that makes probabilities."""
    last = model.layers[-1] if model.layers else None
    activation = getattr(last, "activation", None) or last
    name = getattr(activation, "__name__", type(activation).__name__)
    return name.lower() not in _PROBABILITIES


# The archive


def _settle(path: Path) -> set[str]:
    """Write the archive anew: the same bytes each time, and only what predicting needs.

    Returns the user's own classes and functions that it names, as `module:name`.
    """
    custom: set[str] = set()

    def change(name: str, data: bytes) -> bytes:
        if name == METADATA:
            kept = {key: value for key, value in json.loads(data).items() if key != "date_saved"}
            return json.dumps(kept, sort_keys=True).encode()
        if name == CONFIG:
            config = json.loads(data)
            config.pop("compile_config", None)
            _renumber(config)
            custom.update(_custom(config))
            return json.dumps(config, separators=(",", ":")).encode()
        return _without_optimizer(data) if name == WEIGHTS else data

    rewrite(path, change=change)
    return custom


def _renumber(config: Any) -> None:
    """Number shared objects by their first use; Keras writes their addresses."""
    numbers: dict[int, int] = {}
    for node in _nodes(config):
        if "shared_object_id" in node:
            node["shared_object_id"] = numbers.setdefault(node["shared_object_id"], len(numbers) + 1)


def _custom(config: Any) -> Iterator[str]:
    """The registered classes and functions that the config names, as `module:name`."""
    registered = _keras().saving.get_registered_object
    for node in _nodes(config):
        name = node.get("config") if node.get("class_name") == "function" else node.get("registered_name")
        found = registered(name) if isinstance(name, str) else None
        if found is not None and found.__module__.partition(".")[0] != "keras":
            yield f"{found.__module__}:{found.__qualname__}"


def _nodes(config: Any) -> Iterator[dict[str, Any]]:
    """Every object in the config, parents first, in the order of the file."""
    stack = [config]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(reversed(item.values()))
        elif isinstance(item, list):
            stack.extend(reversed(item))


def _without_optimizer(data: bytes) -> bytes:
    """The file of weights without the state of the optimizer, which is twice as large and never used again."""
    h5py: Any = importlib.import_module("h5py")  # a requirement of keras
    out = io.BytesIO()
    with h5py.File(io.BytesIO(data), "r") as old, h5py.File(out, "w") as new:
        new.attrs.update(old.attrs)
        for name in sorted(old):
            if name != "optimizer":
                old.copy(name, new)
    return out.getvalue()
