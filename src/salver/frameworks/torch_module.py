"""A module as its class and its weights: the class travels as code, the weights in safetensors, nothing is pickled."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from salver import plugins
from salver.errors import SalverError, error
from salver.frameworks import Saved
from salver.frameworks.torch_tensors import import_torch
from salver.release import MODEL_DIR

FILE: Final = "model.safetensors"
_WRAP: Final = (
    "wrap it in a class of your own that builds it, or release torch.export.export(…) or torch.jit.script(…) of it"
)
_HINT: Final = (
    "give what its constructor needs as options={'arguments': {…}} or in an attribute `arguments`, "
    "or release torch.export.export(…) or torch.jit.script(…) of it"
)


def save(module: Any, folder: Path) -> Saved:
    """Write the state of `module` to model/model.safetensors; the entry names its class.

    A tensor that has several names is written once; the others stand in the option `tied`.
    """
    kind = type(module)
    if "<locals>" in kind.__qualname__:
        raise error(
            "code-not-closed",
            f"{kind.__qualname__} of {kind.__module__} is defined inside a function",
            hint="move the class to the top of its module",
        )
    tensors, tied = _distinct(module)
    try:
        _safetensors().save_file(tensors, folder / MODEL_DIR / FILE)
    except (ValueError, KeyError, RuntimeError) as problem:
        raise error("unsupported-model", f"{kind.__name__} can't be kept in safetensors: {problem}") from None
    entry = f"{kind.__module__}:{kind.__qualname__}"
    own = [] if kind.__module__.partition(".")[0] == "torch" else [entry]
    options: dict[str, Any] = {"imports": [*own, "safetensors", "torch"]}
    if tied:
        options["tied"] = tied
    if (arguments := _own_arguments(module)) is not None:
        options["arguments"] = arguments
    return Saved(entry, options, "")


def load(folder: Path, entry: str, options: Mapping[str, Any]) -> Any:
    """Build the class of `entry` and give it the saved state; raises `load-failed` where the two don't fit."""
    state = _safetensors().load_file(folder / MODEL_DIR / FILE)
    state.update({name: state[kept] for name, kept in options.get("tied", {}).items()})
    module = build(entry, options)
    _match_dtypes(module, state)
    try:
        module.load_state_dict(state)
    except RuntimeError as problem:
        raise error("load-failed", f"{entry} doesn't fit the saved state: {problem}", hint=_HINT) from None
    return module


def build(entry: str, options: Mapping[str, Any]) -> Any:
    """A new module of the class that `entry` names, with the option `arguments` as keyword arguments."""
    kind = _find(entry)
    arguments = options.get("arguments", {})
    if not isinstance(arguments, Mapping):
        raise error("bad-settings", f"arguments: expected a mapping, got {type(arguments).__name__}")
    try:
        inspect.signature(kind).bind(**arguments)
        return kind(**arguments)
    except Exception as problem:  # the user's own constructor
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise error(
            "unsupported-model",
            f"{kind.__name__}({shown}) can't be built again: {type(problem).__name__}: {problem}",
            hint=_HINT,
        ) from problem


def require_rebuildable(module: Any, options: Mapping[str, Any]) -> None:
    """Build the class of `module` anew; raises `unsupported-model` listing what in its state differs."""
    torch, kind = import_torch(), type(module)
    with torch.random.fork_rng(devices=[]):
        fresh = build(f"{kind.__module__}:{kind.__qualname__}", options).state_dict()
    state = module.state_dict()
    problems = [f"{name} is missing" for name in state if name not in fresh]
    problems += [f"{name} is not in the model" for name in fresh if name not in state]
    for name, tensor in fresh.items():
        lazy = torch.nn.parameter.is_lazy(tensor)
        if name in state and not lazy and tensor.shape != state[name].shape:
            problems.append(f"{name} has the shape {list(tensor.shape)}, in the model {list(state[name].shape)}")
    if problems:
        raise error(
            "unsupported-model",
            f"{kind.__name__} built again differs from the model",
            hint=_WRAP if kind.__module__.startswith("torch.nn.") else _HINT,
            details=tuple(problems),
        )


def _distinct(module: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors of a module's state by name, each once and in storage of its own; and the other names of each."""
    torch = import_torch()
    tensors: dict[str, Any] = {}
    tied: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise error(
                "unsupported-model",
                f"{type(module).__name__}: {name} of its state is no dense tensor",
                hint="release torch.export.export(…) or torch.jit.script(…) of it",
            )
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, str(tensor.device))
        if tensor.numel() and place in first:
            tied[name] = first[place]
            continue
        first[place] = name
        storage = tensor.untyped_storage().data_ptr()
        dense = tensor.detach().cpu().contiguous()
        tensors[name] = dense.clone() if storage in storages else dense
        storages.add(storage)
    return tensors, tied


def _match_dtypes(module: Any, state: Mapping[str, Any]) -> None:
    """Give a fresh module the dtypes of the saved state, as `.half()` or `.double()` did to the one that was saved."""
    fresh = module.state_dict()
    different = {name for name, tensor in state.items() if name in fresh and fresh[name].dtype != tensor.dtype}
    floats = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    if different and len(floats) == 1:
        module.to(floats.pop())
    members = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in members:
        if name in different:
            tensor.data = tensor.data.to(state[name].dtype)


def _own_arguments(module: Any) -> dict[str, Any] | None:
    """The attribute `arguments` of a module, as JSON keeps it; None where it has no such mapping."""
    arguments = getattr(module, "arguments", None)
    if not isinstance(arguments, Mapping):
        return None
    try:
        kept: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(arguments)), type=dict[str, Any])
    except (TypeError, msgspec.MsgspecError, OverflowError) as problem:
        raise error(
            "unsupported-model",
            f"{type(module).__name__}: its attribute `arguments` holds what JSON can't keep: {problem}",
            hint="construct the module from numbers, text, lists and dicts",
        ) from None
    return kept


def _find(entry: str) -> Any:
    name, _, path = entry.partition(":")
    try:
        found: Any = importlib.import_module(name)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as problem:
        raise _not_found(entry, str(problem)) from problem
    if not (isinstance(found, type) and issubclass(found, import_torch().nn.Module)):
        raise _not_found(entry, "it is no subclass of torch.nn.Module")
    return found


def _not_found(entry: str, why: str) -> SalverError:
    return error("load-failed", f"the model's class {entry} can't be found: {why}")


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as problem:
        if problem.name != "safetensors":
            raise
        raise plugins.missing_extra("safetensors", needed_for="a PyTorch model") from None
    return safetensors.torch
