"""Builds the folder of a release up to what needs a running worker: artifacts, code, environment, signature."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from salver import golden, plugins, tables
from salver.environments.closure import Wishes, lock_for
from salver.environments.modules import modules_of, own_of
from salver.environments.place import default_cache
from salver.errors import SalverError, error
from salver.frameworks import Columns, Framework, Saved
from salver.frameworks.owners import is_own
from salver.lock import Lock
from salver.packaging import assembly, closure, proof, session
from salver.protocols import Decoded
from salver.publish import golden_rows
from salver.publish.infer import infer_inputs, infer_outputs, to_columns, to_rows
from salver.publish.native import Native
from salver.publish.options import answers_differ, categories, plain, require_options
from salver.publish.request import ReleaseRequest
from salver.release import CODE_DIR, FORMAT, LOCK, MODEL_DIR, Manifest, Serving
from salver.signature import Column, Field, Signature

SAMPLE = 1000
"""How many examples, evenly spread, are predicted to learn what the outputs are."""


class Staged(Struct, frozen=True):
    """A release folder before its golden rows.

    The manifest so far; the examples as columns, the outputs that a sample of them got, and the examples as request
    rows; the golden requests and the answers that the model object itself gave to them. What needs the model to be run
    is empty where it must not be.
    """

    folder: Path
    manifest: Manifest
    columns: Columns
    outputs: Columns
    rows: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    own_answers: list[Any]
    remarks: tuple[str, ...]


def stage(request: ReleaseRequest, folder: Path) -> Staged:
    """Write model/, code/ and environment/ of a release to the empty `folder`, and infer what isn't given."""
    adapter = choose_framework(request)
    require_options(adapter, request)
    examples = _examples(adapter, request)
    inputs = _inputs(request, examples)
    rows = to_rows(examples, inputs)
    requests = [golden_rows.stand_in(rows[index], inputs) for index in golden_rows.choose(rows, golden.MAX_ROWS)]
    with session.as_module():
        saved = _save(adapter, request, folder)
        options = plain({**saved.options, **request.options}, request.name)
        provisional = Signature(inputs, request.signature.outputs if request.signature else _UNKNOWN)
        options |= _categories(adapter, request, examples, options, provisional)
        in_memory = getattr(adapter, "in_memory", None)
        call = in_memory(request.model, folder, options, provisional) if in_memory is not None else None
        lock = _close(request, _needed(saved, call), folder)
        if call is None:
            call = adapter.load(folder, saved.entry, options, provisional)
        runs = request.side_effects != "unsafe"
        signature, outputs = _learn(request, call, rows, provisional) if runs else (_given(request), {})
        signature = Signature(inputs, signature.outputs)
        own = _own_answers(request, call, requests, signature) if runs else []
    manifest = Manifest(
        format=FORMAT,
        model=request.name,
        signature=signature,
        framework=adapter.name,
        entry=saved.entry,
        files=(),
        python=".".join(platform.python_version_tuple()[:2]),
        lock=lock.digest,
        options=options,
        unsafe=saved.unsafe,
        side_effects=request.side_effects,
        serving=_serving(request, saved),
        capabilities=saved.capabilities,
    )
    columns = to_columns(examples, inputs)
    return Staged(folder, manifest, columns, outputs, rows, requests if runs else [], own, lock.notes)


def choose_framework(request: ReleaseRequest) -> Framework:
    """The adapter asked for, or the one that handles the model; one that can't be imported here handles nothing."""
    if request.framework:
        chosen: Framework = plugins.framework(request.framework)
        if isinstance(request.model, str | os.PathLike) and not chosen.handles(request.model):
            raise _no_model_at(request)
        return chosen
    broken: list[str] = []
    for name in plugins.names(plugins.FRAMEWORKS):
        try:
            adapter: Framework = plugins.framework(name)
        except SalverError as problem:
            broken.append(problem.message)
            continue
        if adapter.handles(request.model):
            return adapter
    if isinstance(request.model, str | os.PathLike):
        raise _no_model_at(request)
    alone = isinstance(request.model, type)
    kind: type[Any] = request.model if alone else type(request.model)
    if all(_is_users(base) for base in kind.__mro__[:-1]):
        raise _not_whole(request.name, kind)
    raise error(
        "unsupported-model",
        f"{request.name}: no framework handles {'the class' if alone else 'a'} {kind.__module__}.{kind.__qualname__}"
        + (" itself: give an object of it" if alone else ""),
        hint="write a class with load(self, files) and predict(self, rows), see salver.Model; frameworks: "
        + ", ".join(plugins.names(plugins.FRAMEWORKS)),
        details=tuple(broken),
    )


def _is_users(kind: type[Any]) -> bool:
    return kind.__module__ == session.MAIN or is_own(kind.__module__)


def _not_whole(name: str, kind: type[Any]) -> SalverError:
    """The error for a class of the user's own, given itself or as an object, that isn't a model yet."""
    lacks = [
        said
        for method, said in (("load", "load(self, files)"), ("predict", "predict(self, rows)"))
        if not callable(getattr(kind, method, None))
    ]
    return error(
        "unsupported-model",
        f"{name}: {kind.__qualname__} of {kind.__module__} has no {' and no '.join(lacks)}, so it is no model",
        hint="add what lacks (load may do nothing), or inherit from salver.Model; a worker builds the class anew and "
        "calls load, so what an object was given before has to be in files=",
    )


def _no_model_at(request: ReleaseRequest) -> SalverError:
    """The error for a path that was given as the model."""
    path = os.fspath(request.model)
    if not os.path.exists(path):
        return error(
            "missing-file",
            f"{request.name}: the model is given as the path {path!r}, where nothing lies",
            hint="give a path that exists (looked up in the working directory), or the model object itself",
        )
    return error(
        "unsupported-model",
        f"{request.name}: the model is given as the path {path!r}, which no framework can take",
        hint="as a path, models are .onnx files and MLflow folders (with MLmodel); "
        "load any other and give the object, such as transformers.pipeline(task, folder)",
    )


_UNKNOWN: tuple[Field, ...] = (Column("prediction", "float"),)
"""Stands for the outputs until the model has answered once."""


def _examples(adapter: Framework, request: ReleaseRequest) -> Any:
    """The examples, cut to the columns that the model was trained on where it knows them (a label is no input)."""
    known = getattr(adapter, "columns", None)
    names = known(request.model) if known is not None and hasattr(request.examples, "columns") else ()
    if names and set(names) <= set(request.examples.columns):
        return request.examples[list(names)]
    return request.examples


def _inputs(request: ReleaseRequest, examples: Any) -> tuple[Field, ...]:
    if request.signature is None:
        return infer_inputs(examples, private=request.private)
    unknown = set(request.private) - {field.name for field in request.signature.inputs}
    if unknown:
        raise error("bad-signature", f"private fields that the signature doesn't have: {', '.join(sorted(unknown))}")
    return tuple(
        msgspec.structs.replace(field, private=field.private or field.name in request.private)
        for field in request.signature.inputs
    )


def _save(adapter: Framework, request: ReleaseRequest, folder: Path) -> Saved:
    if request.files is not None:
        assembly.copy_files(Path(request.files), folder / MODEL_DIR)
    return adapter.save(request.model, folder)


def _serving(request: ReleaseRequest, saved: Saved) -> Serving:
    """What was asked for, checked, with the framework's own number of rows where none was said."""
    try:
        asked = msgspec.convert(msgspec.to_builtins(request.serving), Serving)
    except msgspec.ValidationError as problem:
        raise error("bad-settings", f"{request.name}: serving: {problem}") from None
    return asked if asked.max_batch else replace(asked, max_batch=saved.max_batch)


def _needed(saved: Saved, call: object) -> list[str]:
    """What the release needs importable: what the adapter names, and what a model of the user's own has loaded."""
    named: list[str] = list(saved.options.get("imports", ()))
    model = getattr(call, "model", None)
    if model is not None:
        named += sorted(modules_of(model))
        named += sorted(name for name in own_of(model) if closure.can_travel(name.partition(":")[0]))
    return named


def _categories(
    adapter: Any, request: ReleaseRequest, examples: Any, options: dict[str, Any], provisional: Signature
) -> dict[str, Any]:
    """The option `categories`, where the model answers otherwise, or not at all, without those of the examples."""
    added = categories(request, examples, provisional.inputs) if getattr(adapter, "takes_categories", False) else {}
    if not added or request.side_effects == "unsafe":
        return added
    columns = to_columns(examples, provisional.inputs)
    sample = golden_rows.spread(len(examples), SAMPLE)
    without, within = (
        adapter.in_memory(request.model, None, each, provisional) for each in (options, {**options, **added})
    )
    differ = answers_differ(without, within, {name: values[sample] for name, values in columns.items()})
    return added if differ else {}


def _close(request: ReleaseRequest, needed: Sequence[str], folder: Path) -> Lock:
    """Write code/ and environment/: the user's modules, proven importable, and the packages they and the model need."""
    closed = closure.close(needed, request.module)
    code = folder / CODE_DIR
    for relative, source in closed.files.items():
        path = code / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
    if request.include:
        if request.project is None:
            raise error("bad-settings", f"{request.name}: include needs a project folder to look in")
        assembly.copy_included(request.project, request.include, code, closed.files)
    own = set(closure.modules(closed))
    proof.prove(code, sorted({name.partition(":")[0] for name in needed} & own), closed)
    wishes = Wishes(Path(request.constraints) if request.constraints else None, request.packages)
    lock = lock_for(closed.imports, Path(request.cache or default_cache()), wishes)
    path = folder / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lock.text, encoding="utf-8")
    return lock


def _learn(
    request: ReleaseRequest, call: Callable[[Columns], Any], rows: list[dict[str, Any]], provisional: Signature
) -> tuple[Signature, Columns]:
    """Run the model object on a sample of the examples: the signature, if none is given, and the outputs."""
    sample = [rows[index] for index in golden_rows.spread(len(rows), SAMPLE)]
    decoded = Native(request.name, provisional).decode(sample)
    raw = _called(request, call, decoded)
    signature = request.signature or Signature(provisional.inputs, infer_outputs(raw))
    return signature, tables.outputs_from(raw, signature.outputs, decoded.count)


def _given(request: ReleaseRequest) -> Signature:
    if request.signature is None:
        raise error(
            "bad-signature",
            f"{request.name} has unsafe side effects, so it is not run to learn its outputs",
            hint="give signature=",
        )
    return request.signature


def _own_answers(
    request: ReleaseRequest, call: Callable[[Columns], Any], requests: list[dict[str, Any]], signature: Signature
) -> list[Any]:
    native = Native(request.name, signature)
    decoded = native.decode(requests)
    return native.answers(decoded, _called(request, call, decoded))


def _called(request: ReleaseRequest, call: Callable[[Columns], Any], decoded: Decoded) -> Any:
    try:
        return call(decoded.columns)
    except SalverError:
        raise
    except Exception as raised:  # the user's model, run on his own examples in his own process
        raise error(
            "bad-examples",
            f"{request.name}: the model raised {type(raised).__name__} on the examples: {raised}",
            hint="fit the model first"
            if type(raised).__name__ == "NotFittedError"
            else "give examples that the model can answer",
        ) from raised
