"""The model card of a release: what a person has to know before calling or serving it, from its facts alone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

import msgspec

from salver import lock
from salver.frameworks import pickled
from salver.release import CODE_DIR, MODEL_DIR, Manifest
from salver.signature import Field, Tensor, describe_field

MAX_EXAMPLE = 1_500
"""Example rows with more characters than this are named as a file instead of being printed."""
MAX_FILES = 20

_DETERMINISM = {
    "exact": "must come back exactly, fractions within rounding, before a worker takes traffic.",
    "tolerance": "must come back within these tolerances before a worker takes traffic:",
    "schema-only": "may be answered with other values each time, so only the types of answers are proven.",
}
_SIDE_EFFECTS = {
    "none": "Predicting has no side effects: requests may be retried, shadowed and replayed.",
    "idempotent": "Predicting has side effects that may safely happen twice: requests may be retried.",
    "unsafe": "Predicting has side effects that must not happen twice: requests are never retried or replayed.",
}


def card(manifest: Manifest, *, example: Mapping[str, Any] | None = None, lock_text: str = "") -> str:
    """The card as Markdown. `example` is one request row; private fields of it are replaced by neutral values.

    Nothing in it says who published the release or when: that stands in the registry, so that equal releases have
    equal cards.
    """
    sections = [
        _head(manifest),
        _call(manifest, example),
        "## Inputs\n\n" + _fields(manifest.signature.inputs),
        "## Outputs\n\n" + _fields(manifest.signature.outputs),
        "## Behaviour\n\n" + "\n\n".join(_behaviour(manifest)),
        "## Environment\n\n" + _environment(manifest, lock_text),
        "## Files\n\n" + _files(manifest),
    ]
    return "\n\n".join(sections) + "\n"


def _head(manifest: Manifest) -> str:
    outputs = " and ".join(_code(field.name) for field in manifest.signature.outputs)
    count = len(manifest.signature.inputs)
    return (
        f"# {manifest.model}\n\n"
        f"Answers {outputs} from {count} input{'s' * (count != 1)}. Framework: {_code(manifest.framework)}.\n\n"
        "Who published this release, when and from which code stands in the registry: `salver show`."
    )


def _call(manifest: Manifest, example: Mapping[str, Any] | None) -> str:
    inputs = manifest.signature.inputs
    body = ""
    if all(_elements(field) <= MAX_EXAMPLE for field in inputs):
        body = msgspec.json.encode({field.name: _value(field, example) for field in inputs}).decode()
    data = shlex.quote(body) if 0 < len(body) <= MAX_EXAMPLE else "@row.json"
    return (
        "## Call it\n\n"
        "```sh\n"
        f"curl http://127.0.0.1:8080/models/{manifest.model}/predict \\\n"
        "  -H 'content-type: application/json' \\\n"
        f"  -d {data}\n"
        "```\n\n"
        "A list of such objects is answered by a list of the same length."
    )


def _elements(field: Field) -> int:
    return prod(abs(size) for size in field.row_shape) if isinstance(field, Tensor) else 1


def _value(field: Field, example: Mapping[str, Any] | None) -> Any:
    if example is not None and field.name in example and not field.private:
        return example[field.name]
    if isinstance(field, Tensor):
        shape = [1 if size == -1 else size for size in field.row_shape]
        zero: Any = {"str": "", "bool": False}.get(field.dtype, 0.0 if field.dtype.startswith("float") else 0)
        return _nested(zero, shape)
    if field.nullable:
        return None
    if field.type in ("float", "int"):
        low = 0.0 if field.minimum is None or field.private else field.minimum
        return int(low) if field.type == "int" else low
    if field.type == "category" and field.categories and not field.private:
        return field.categories[0]
    return {"bool": False, "datetime": "2000-01-01T00:00:00Z", "bytes": "AP8="}.get(field.type, "text")


def _nested(value: Any, shape: list[int]) -> Any:
    for size in reversed(shape):
        value = [value] * size
    return value


def _fields(fields: Iterable[Field]) -> str:
    rows = ((_code(field.name), _cell(describe_field(field))) for field in fields)
    return _table(("name", "type"), rows)


def _behaviour(manifest: Manifest) -> Iterator[str]:
    count = manifest.golden_rows
    if count:
        words = "golden row travels in the release; it" if count == 1 else "golden rows travel in the release; they"
        yield f"{count} {words} {_DETERMINISM[manifest.determinism]}"
    else:
        yield "No golden rows travel in the release: nothing proves that a worker answers as it did here."
    if manifest.determinism == "tolerance":
        tolerances = sorted(manifest.tolerances.items())
        rows = ((_code(name), f"{limit.rtol:g}", f"{limit.atol:g}") for name, limit in tolerances)
        yield _table(("output", "relative", "absolute"), rows)
    yield _SIDE_EFFECTS[manifest.side_effects]
    if manifest.unsafe:
        why = _cell(manifest.unsafe)
        yield f"**Loading it can run code from its files**: {why}. Serve it only if you trust its author."
        yield from _globals(manifest)
    else:
        yield "Loading its files can't run code that they hold, other than the modules in `code/`."
    yield f"At most {manifest.serving.rows_per_call} rows are given to one call of the model."
    if manifest.uses:
        yield "It calls other releases: " + ", ".join(map(_code, manifest.uses)) + "."


def _globals(manifest: Manifest) -> Iterator[str]:
    """What its pickle may name, all of it, by package."""
    names = pickled.listed(manifest.options)
    if names:
        yield f"Its pickle names these {len(names)} globals; one that names any other is not loaded:"
        packages = pickled.by_package(names).items()
        yield _table(
            ("package", "globals"), ((_code(package), ", ".join(map(_code, own))) for package, own in packages)
        )


def _environment(manifest: Manifest, lock_text: str) -> str:
    text = f"Python {manifest.python}"
    packages = lock.pins(lock_text)
    if not packages:
        return text + "."
    rows = ((_code(name), _code(version)) for name, version in sorted(packages.items()))
    return f"{text}, with exactly these packages:\n\n{_table(('package', 'version'), rows)}"


def _files(manifest: Manifest) -> str:
    own = [file for file in manifest.files if file.path.startswith((f"{MODEL_DIR}/", f"{CODE_DIR}/"))]
    if not own:
        return "The release holds no files of the model's own."
    shown = sorted(own, key=lambda file: file.path)[:MAX_FILES]
    table = _table(("file", "bytes"), ((_code(file.path), f"{file.size:,}") for file in shown))
    more = len(own) - len(shown)
    return f"{table}\n\nand {more} more." if more else table


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text that stays within its cell or line and is shown as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Text as code, whatever it holds: fenced by more backticks than it has in a row."""
    flat = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", flat)), default=0))
    pad = " " if "`" in flat else ""
    return f"{fence}{pad}{flat}{pad}{fence}"
