"""PyTorch: modules as code and safetensors, TorchScript as .pt, exported programs as .pt2."""

from __future__ import annotations

import copy
import inspect
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, torch_module, torch_tensors
from salver.frameworks.answers import promised
from salver.frameworks.torch_tensors import Inputs, import_torch
from salver.frameworks.zip_file import rewrite
from salver.release import MODEL_DIR
from salver.signature import Column, Signature

SCRIPT, EXPORTED = "model.pt", "model.pt2"
_KINDS: Final = {
    ("torch.nn.modules.module", "Module"),
    ("torch.export.exported_program", "ExportedProgram"),
}
_OTHERS: Final = {"keras", "transformers", "sentence_transformers"}
"""Packages whose modules have an adapter of their own."""

_SCRIPT_UNSAFE: Final = "TorchScript: the file holds a program, whose operators may read and write files"
_EXPORTED_UNSAFE: Final = "torch.export: loading evaluates the symbolic sizes that the file holds as text"


class Torch:
    """The adapter of PyTorch. The bits of weights are kept; a row's last bits may change with the size of its batch.

    Options: `arguments`, what the class of a module is built with; `device` ("cpu", "cuda", "cuda:1", "mps"); `method`,
    `classes` and `from_logits` as in `torch_tensors.answering`.
    """

    name = "torch"
    options = ("arguments", "method", "classes", "from_logits", "device")

    def handles(self, model: object) -> bool:
        """Whether it is a module or an exported program, and no model of a package with an adapter of its own."""
        bases = type(model).__mro__
        if isinstance(model, type) or {base.__module__.partition(".")[0] for base in bases} & _OTHERS:
            return False
        return any((base.__module__, base.__name__) in _KINDS for base in bases)

    def save(self, model: Any, folder: Path) -> Saved:
        """Write model/model.safetensors, model/model.pt (TorchScript) or model/model.pt2 (an exported program)."""
        torch, target = import_torch(), folder / MODEL_DIR
        target.mkdir(parents=True, exist_ok=True)
        model = _original(model)
        if isinstance(model, torch.export.ExportedProgram):
            _require_free_batch(model)
            _export(model, target / EXPORTED)
            return Saved(EXPORTED, {"imports": ["torch"]}, _EXPORTED_UNSAFE)
        if isinstance(model, torch.jit.ScriptModule):
            torch.jit.save(model, str(target / SCRIPT))
            rewrite(target / SCRIPT, drop=_is_debug)
            return Saved(SCRIPT, {"imports": ["torch"]}, _SCRIPT_UNSAFE)
        return torch_module.save(model, folder)

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load what `save` wrote to the option `device`, in eval mode; nothing is unpickled."""
        torch, place = import_torch(), torch_tensors.device(options)
        torch_tensors.use_threads()
        path = folder / MODEL_DIR / entry
        if entry == EXPORTED:
            _refuse_pickles(path)
            model = _moved(torch.export.load(path), place)
        elif entry == SCRIPT:
            model = _evaluating(torch.jit.load(str(path), map_location=place))
        else:
            model = _evaluating(torch_module.load(folder, entry, options).to(place))
        return promised(_call(model, options, signature, place), signature)

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with `model` as it is in memory, in eval mode, which is then set back.

        A module is also built again from its class: raises `unsupported-model` where its keys or shapes differ.
        """
        del folder
        torch, place = import_torch(), torch_tensors.device(options)
        model = _original(model)
        if isinstance(model, torch.export.ExportedProgram):
            return _hinting(_call(_moved(model, place), options, signature, place), model, signature)
        if not isinstance(model, torch.jit.ScriptModule):
            torch_module.require_rebuildable(model, options)
        if any(tensor.device != place for tensor in _weights(model)):
            model = copy.deepcopy(model).to(place)
        call = _hinting(_call(model, options, signature, place), model, signature)

        def predict(columns: Columns) -> Any:
            with _in_eval_mode(model):
                return call(columns)

        return predict


FRAMEWORK = Torch()


def _call(model: Any, options: Mapping[str, Any], signature: Signature, place: Any) -> Callable[[Columns], Any]:
    torch = import_torch()
    names, required, forward = _forward(model)
    arrange = torch_tensors.arrangement(signature, names, required, torch_tensors.weights_dtype(_weights(model)), place)
    answer = torch_tensors.answering(options, signature.outputs)
    # A script that was called with gradients keeps tensors for them, which those of inference mode can't be.
    without_gradients = torch.no_grad if isinstance(model, torch.jit.ScriptModule) else torch.inference_mode

    def call(columns: Columns) -> Any:
        with without_gradients():
            return answer(forward(arrange(columns)))

    return call


def _hinting(call: Callable[[Columns], Any], model: Any, signature: Signature) -> Callable[[Columns], Any]:
    """`call`, which says what to do where whole numbers became a matrix of floats and the model looks them up."""

    def hinting(columns: Columns) -> Any:
        try:
            return call(columns)
        except RuntimeError as raised:
            matrix = all(isinstance(field, Column) and field.type == "int" for field in signature.inputs)
            if not matrix or "indices" not in str(raised):
                raise
            name = next(iter(_forward(model)[0]), "ids")
            raise error(
                "bad-examples",
                "columns of numbers become one matrix of floats, and the model has an embedding, which looks up ids",
                hint=f"give the array by name, which makes it one input: examples={{{name!r}: array}}",
            ) from raised

    return hinting


def _forward(model: Any) -> tuple[list[str], int, Callable[[Inputs], Any]]:
    """The names of a model's arguments, how many of them it needs, and how it is called."""
    torch = import_torch()
    if isinstance(model, torch.export.ExportedProgram):
        return _exported_forward(model)
    if isinstance(model, torch.jit.ScriptModule):
        arguments = model.forward.schema.arguments[1:]
        names = [argument.name for argument in arguments]
        required = sum(not argument.has_default_value() for argument in arguments)
    else:
        given = inspect.signature(model.forward).parameters.values()
        plain = [one for one in given if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        names = [one.name for one in plain]
        required = sum(one.default is one.empty for one in plain)
    return names, required, lambda inputs: model(**inputs.named) if inputs.named else model(inputs.one)


def _exported_forward(program: Any) -> tuple[list[str], int, Callable[[Inputs], Any]]:
    """An exported program takes its arguments as they were given to the export: by place or by name."""
    module = program.module()
    positional, by_name = program.call_spec.in_spec.children()
    names = program.module_call_graph[0].signature.forward_arg_names or list(program.graph_signature.user_inputs)
    names = [*names[: positional.num_children], *by_name.context] if by_name.num_children else list(names)
    places, keys = names[: positional.num_children], names[positional.num_children :]

    def forward(inputs: Inputs) -> Any:
        if inputs.named:
            return module(*(inputs.named[name] for name in places), **{name: inputs.named[name] for name in keys})
        return module(**{keys[0]: inputs.one}) if keys else module(inputs.one)

    return names, len(names), forward


def _original(model: Any) -> Any:
    """The module that torch.compile wrapped, or the model itself."""
    return getattr(model, "_orig_mod", model)


def _weights(model: Any) -> list[Any]:
    """The parameters and buffers of a model."""
    found = [*model.parameters(), *model.buffers()]
    return [tensor for tensor in found if not import_torch().nn.parameter.is_lazy(tensor)]


def _moved(program: Any, place: Any) -> Any:
    if all(tensor.device == place for tensor in _weights(program)):
        return program
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, place)


def _evaluating(model: Any) -> Any:
    return model.eval() if hasattr(model, "training") else model  # a frozen TorchScript module has no modes


@contextmanager
def _in_eval_mode(model: Any) -> Iterator[None]:
    modes = [(part, part.training) for part in model.modules() if hasattr(part, "training")]
    _evaluating(model)
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


# Archives


def _export(program: Any, path: Path) -> None:
    """Write a program for the CPU, without the example rows and source lines that torch keeps with it."""
    torch = import_torch()
    examples = program.example_inputs
    program.example_inputs = None
    try:
        torch.export.save(_moved(program, torch.device("cpu")), path)
    finally:
        program.example_inputs = examples
    rewrite(path, drop=_is_debug, change=_without_traces)
    _refuse_pickles(path)


def _is_debug(name: str) -> bool:
    """Names of source files, and an id that is drawn anew each time; torch needs neither."""
    return name.endswith((".debug_pkl", "/serialization_id"))


def _without_traces(name: str, data: bytes) -> bytes:
    if "/models/" not in name or not name.endswith(".json"):
        return data
    program = json.loads(data)
    for node in program["graph_module"]["graph"]["nodes"]:
        node["metadata"].pop("stack_trace", None)
    return json.dumps(program, separators=(",", ":")).encode()


def _refuse_pickles(path: Path) -> None:
    """Raise `untrusted-artifact` for an exported program of which torch would unpickle a part."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        bad = [name for name in names if "/sample_inputs/" in name and archive.getinfo(name).file_size]
        for name in names:
            if name.endswith("_config.json") and '"use_pickle": true' in archive.read(name).decode():
                bad.append(name)
    if bad:
        raise error(
            "untrusted-artifact",
            f"{path.name} holds pickles, which are never loaded",
            hint="export a model whose weights and constants are plain tensors",
            details=tuple(bad),
        )


def _require_free_batch(program: Any) -> None:
    """Raise `unsupported-model` where a program was exported for one size of batch only."""
    wanted = set(program.graph_signature.user_inputs)
    fixed = [
        f"{node.name} has the shape {list(node.meta['val'].shape)}"
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in wanted and isinstance(next(iter(node.meta["val"].shape), 0), int)
    ]
    if fixed:
        raise error(
            "unsupported-model",
            "the program was exported for one size of batch",
            hint="export it with dynamic_shapes={'x': {0: torch.export.Dim('batch')}} and examples of two rows or more",
            details=tuple(fixed),
        )
