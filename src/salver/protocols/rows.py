"""The rows of a signature, compiled: JSON to checked structs in one call of C, and words for what is wrong with them.

Rows that msgspec refuses are read again field by field: that finds every problem at once, lets the last of duplicate
keys win, and keeps values out of the words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from salver.errors import SalverError, error
from salver.limits import BODY
from salver.protocols.values import Base64, json_type, unpacked_text
from salver.signature import Column, Field, Tensor, is_blob
from salver.tables import may_be_null

MAX_ROWS = BODY.rows
NAMED_PROBLEMS = 20
UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What decoding raises for a bad body."""

_Read = Callable[[Any], Any]
_PLACE = re.compile(r" - at `\$((?:\[(?:\d+|\.\.\.)\]|\.\w+)*)`$")
"""Where msgspec says a problem is; it ends with a backtick, which its text around a value never does."""

_BYTE = re.compile(r"(.*) \(byte (\d+)\)$")
_TOKEN = re.compile(rb"-?(?:NaN|Infinity)")
_INT64 = (-(2**63), 2**63 - 1)


class Instant(datetime):
    """A date-time as a row holds it: ISO 8601 text, kept in UTC without a zone; text without an offset is UTC."""

    @classmethod
    def read(cls, value: Any) -> Self:
        """Read the JSON value; ValueError says what it is instead."""
        if type(value) is not str:
            raise ValueError(f"expected datetime, got {json_type(value)}")
        try:
            moment = cls.fromisoformat(value)
            return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
        except (ValueError, OverflowError):
            raise ValueError("expected datetime in ISO 8601, got other text") from None


class _FreeTensor:
    """A tensor row that types alone can't check: inner dimensions that are free, yet equal; or 64 unsigned bits.

    Each such tensor gets a subclass of this and of what holds its rows: list, or int where a row is one number.
    """

    nested: ClassVar[Any]
    dtype: ClassVar[np.dtype[Any]]

    @classmethod
    def read(cls, value: Any) -> Self:
        """Read the JSON value; ValueError says what is wrong."""
        try:
            checked = msgspec.convert(value, cls.nested)
            np.array(checked, cls.dtype)
        except msgspec.ValidationError as problem:
            raise ValueError(str(problem)) from None
        except OverflowError:
            raise ValueError(f"expected {cls.dtype}, got a number out of range") from None
        except ValueError:
            raise ValueError("expected arrays of equal length, got different lengths") from None
        return cls(checked)  # type: ignore[call-arg]


def read_custom(kind: Any, value: Any) -> Any:
    """Read a value of one of our own types: msgspec's `dec_hook`."""
    return kind.read(value)


def column_type(column: Column) -> Any:
    """The type of a column's values, with what `enforce` adds."""
    kind: Any
    match column.type:
        case "float":
            kind = float
            if column.enforce and (column.minimum is not None or column.maximum is not None):
                kind = Annotated[float, Meta(ge=column.minimum, le=column.maximum)]
        case "int":
            low, high = _INT64
            if column.enforce and column.minimum is not None:
                low = min(high, max(low, math.ceil(max(column.minimum, -1e19))))
            if column.enforce and column.maximum is not None:
                high = max(low, min(high, math.floor(min(column.maximum, 1e19))))
            kind = Annotated[int, Meta(ge=low, le=high)]
        case "bool":
            kind = bool
        case "datetime":
            kind = Instant
        case "bytes":
            kind = Base64
        case _:
            kind = Literal[column.categories] if column.enforce and column.categories else str
    return kind | None if may_be_null(column) else kind


def element_type(dtype: str, *, tokens: bool = False) -> Any:
    """The type of one element of a tensor; with `tokens` a float may be NaN or infinite, so it has no bounds."""
    if dtype in ("bool", "str"):
        return bool if dtype == "bool" else str
    if dtype == "float64" or (tokens and dtype.startswith("float")):
        return float
    if dtype.startswith("float"):
        most = float(np.finfo(dtype).max)
        return Annotated[float, Meta(ge=-most, le=most)]
    if dtype == "uint64":
        return Annotated[int, Meta(ge=0)]
    bounds = np.iinfo(dtype)
    return Annotated[int, Meta(ge=int(bounds.min), le=int(bounds.max))]


def tensor_type(tensor: Tensor, *, tokens: bool = False) -> Any:
    """The type of one row of a tensor: nested lists whose fixed lengths are checked."""
    kind = element_type(tensor.dtype, tokens=tokens)
    for size in reversed(tensor.row_shape):
        kind = list[kind]  # type: ignore[valid-type]
        if size != -1:
            kind = Annotated[kind, Meta(min_length=size, max_length=size)]
    if -1 in tensor.row_shape[1:] or tensor.dtype == "uint64":
        dtype = np.dtype(object if tensor.dtype == "str" else tensor.dtype)
        return type("FreeTensor", (_FreeTensor, list if tensor.row_shape else int), {"nested": kind, "dtype": dtype})
    return kind


def field_type(field: Field, *, tokens: bool = False) -> Any:
    """The type of one field of a row; `tokens` allows NaN and infinities where a protocol has words for them."""
    return tensor_type(field, tokens=tokens) if isinstance(field, Tensor) else column_type(field)


def is_text(field: Field) -> bool:
    """Whether the JSON of a field holds text that means what it says."""
    if isinstance(field, Tensor):
        return field.dtype == "str"
    return field.type in ("str", "category", "datetime")


def may_be_packed(fields: Sequence[Field]) -> bool:
    """Whether a base64 object may stand for a whole row: for the value of the only field, text or bytes."""
    only = fields[0]
    return len(fields) == 1 and only.name != "b64" and (is_text(only) or is_blob(only))


def converter(field: Field, kind: Any) -> _Read:
    """What reads Python values of a field as `kind`; where text is wanted, base64 objects stand for it."""
    read = partial(msgspec.convert, type=kind, dec_hook=read_custom)
    if not is_text(field):
        return read

    def read_text(value: Any) -> Any:
        try:
            return read(unpacked_text(value))
        except ValueError as problem:
            raise msgspec.ValidationError(str(problem)) from None

    return read_text


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """A decoder that knows our own types."""
    return msgspec.json.Decoder(kind, dec_hook=read_custom)


def struct_of(
    name: str, fields: Sequence[Field], kinds: Sequence[Any], *, kw_only: bool = True, strict: bool = False
) -> type[Struct]:
    """A struct with one attribute per field (`f0`, `f1`, …), whose JSON keys are the fields' names.

    `kinds` holds types, or pairs of a type and a default. Without `kw_only` it is built by
    position; `strict` refuses further keys. Raises `bad-signature` for a name that can't be such a key.
    """
    attributes = [f"f{place}" for place in range(len(fields))]
    members = [(a, *kind) if isinstance(kind, tuple) else (a, kind) for a, kind in zip(attributes, kinds, strict=True)]
    rename = {attribute: field.name for attribute, field in zip(attributes, fields, strict=True)}
    try:
        return msgspec.defstruct(name, members, rename=rename, kw_only=kw_only, forbid_unknown_fields=strict, gc=False)
    except ValueError as problem:
        raise error("bad-signature", f"a field can't be the key of a JSON object: {problem}") from None


class RowType:
    """The rows of one signature: `struct` is their type, and the methods read what does not fit it.

    `strict` is the same type without room for further fields: it decodes as fast, and where it does, none has to be
    counted.
    """

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.fields = fields
        self.kinds = [field_type(field) for field in fields]
        self.token_kinds = [field_type(field, tokens=True) for field in fields]
        self.names = [field.name for field in fields]
        members = [(k, None) if optional(f) else k for f, k in zip(fields, self.kinds, strict=True)]
        self.struct = struct_of("Row", fields, members)
        self.strict = struct_of("StrictRow", fields, members, strict=True)
        self._loose = decoder(struct_of("LooseRow", fields, [(Raw | UnsetType, UNSET)] * len(fields)))
        self._decoders: list[_Read] = [decoder(kind).decode for kind in self.kinds]
        self._converters = list(map(converter, fields, self.token_kinds))

    def read(self, value: Any, where: str) -> Struct:
        """Read one row by name, from JSON bytes or from Python values that `json` read.

        Raises `invalid-row` with every problem, or `bad-json`.
        """
        places = [f"{where}.{name}" for name in self.names]
        if isinstance(value, bytes | Raw):
            return self._assemble(self.loosely(value, where), self._decoders, where, places)
        if not isinstance(value, dict):
            raise error("invalid-row", f"{where}: expected object, got {json_type(value)}")
        return self._assemble([value.get(name, UNSET) for name in self.names], self._converters, where, places)

    def read_positions(self, values: Sequence[Any], where: str, places: list[str] | None = None) -> Struct:
        """Read one row from its values in the order of the fields, like `read`."""
        if len(values) != len(self.names):
            raise error(
                "invalid-row",
                f"{where}: expected array of {len(self.names)} values, got {len(values)}",
                hint=f"the values are {listed(self.names)}",
            )
        readers: Sequence[_Read] = self._decoders if isinstance(values[0], Raw) else self._converters
        return self._assemble(values, readers, where, places or [f"{where}[{place}]" for place in range(len(values))])

    def loosely(self, data: bytes | Raw, where: str) -> tuple[Any, ...]:
        """The values of a JSON object in the order of the fields, unread, UNSET where absent."""
        try:
            return msgspec.structs.astuple(self._loose.decode(data))
        except msgspec.ValidationError as problem:
            raise error("invalid-row", describe(problem, where)) from None
        except UNREADABLE as problem:
            raise bad_json(problem, data, where) from None

    def _assemble(self, values: Sequence[Any], readers: Sequence[_Read], where: str, places: list[str]) -> Struct:
        problems: list[str] = []
        row: list[Any] = []
        missing = False
        for field, value, read, place in zip(self.fields, values, readers, places, strict=True):
            if value is UNSET:
                row.append(None)
                if not optional(field):
                    missing = True
                    problems.append(f"{place}: required field is missing")
                continue
            try:
                row.append(read(value))
            except msgspec.ValidationError as problem:
                problems.append(describe(problem, place, field))
            except UNREADABLE as problem:
                raise bad_json(problem, value, place) from None
        if problems:
            raise invalid_row(where, problems, f"the fields are {listed(self.names)}" if missing else "")
        return self.struct(**{f"f{place}": value for place, value in enumerate(row)})


def optional(field: Field) -> bool:
    """Whether a row may lack the field."""
    return isinstance(field, Column) and field.optional


def listed(names: Sequence[str]) -> str:
    """Up to 20 names, and how many more there are."""
    more = f" and {len(names) - NAMED_PROBLEMS} more" if len(names) > NAMED_PROBLEMS else ""
    return ", ".join(names[:NAMED_PROBLEMS]) + more


def invalid_row(where: str, problems: Sequence[str], hint: str) -> SalverError:
    """The error of one row, from all its problems."""
    if len(problems) == 1:
        return error("invalid-row", problems[0], hint=hint)
    return error("invalid-row", f"{where}: {len(problems)} fields are invalid", hint=hint, details=capped(problems))


def capped(problems: Sequence[str]) -> tuple[str, ...]:
    """At most 20 problems, and how many more there are."""
    if len(problems) <= NAMED_PROBLEMS:
        return tuple(problems)
    return (*problems[:NAMED_PROBLEMS], f"and {len(problems) - NAMED_PROBLEMS} more")


def told(problem: SalverError) -> str:
    """An error as one string, for formats that have room for one."""
    return f"{problem.message}: {'; '.join(problem.details)}" if problem.details else problem.message


def refusal(errors: Mapping[int, SalverError], rows: int) -> SalverError:
    """The error of a request that is refused because of some of its rows; names up to 20 of them."""
    first = errors[min(errors)]
    if rows == 1:
        return first
    verb = "is" if len(errors) == 1 else "are"
    said = [told(problem) for _, problem in sorted(errors.items())]
    return error(first.code, f"{len(errors)} of {rows} rows {verb} refused", hint=first.hint, details=capped(said))


def describe(problem: msgspec.ValidationError, place: str, field: Field | None = None) -> str:
    """What msgspec found at `place`, in our words and without the value."""
    text, path = str(problem), ""
    while match := _PLACE.search(text):
        path += match[1]
        text = text[: match.start()]
    if text.startswith("Invalid enum value"):
        known = field.categories if isinstance(field, Column) and not field.private else None
        text = f"expected one of {listed([repr(name) for name in known])}" if known else "expected a known category"
    elif text.startswith("Object missing required field"):
        text = f"required field {text.split('`')[1]} is missing"
    else:
        text = text.replace("`", "")
        text = text[:1].lower() + text[1:]
    return f"{place}{path}: {text}"


def bad_json(problem: Exception, data: bytes | Raw, where: str = "$", *, tokens: bool = False) -> SalverError:
    """The error of a body, or a part of one, that is not JSON; with `tokens` NaN and Infinity would have been read."""
    text, hint = str(problem), ""
    if isinstance(problem, RecursionError):
        text = "nested too deeply"
    elif isinstance(problem, UnicodeDecodeError):
        text = f"not UTF-8{_utf8_position(bytes(data))}"
    elif "int_max_str_digits" in text:
        text = "a number has too many digits"
    elif text == "Input data was truncated":
        text = f"it ends too early, at byte {len(memoryview(data))}"
    elif match := _BYTE.match(text.removeprefix("JSON is malformed: ")):
        token = "" if tokens else _token(data, int(match[2]))
        hint = "JSON has no NaN and no infinity; a missing value is null" if token else ""
        text = f"{token or match[1]} at byte {match[2]}"
    return error("bad-json", f"{'the body' if where == '$' else where} is not JSON: {text}", hint=hint)


def _token(data: bytes | Raw, byte: int) -> str:
    """The token that JSON lacks at this byte, or with its sign before it; "" if there is none."""
    view = memoryview(data)
    match = _TOKEN.match(view, max(0, byte - 1)) or _TOKEN.match(view, byte)
    return match[0].decode() if match else ""


def _utf8_position(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as problem:
        return f" at byte {problem.start}"
    return ""


def too_many_rows() -> SalverError:
    """The error of a request with more rows than allowed."""
    return error(
        "too-many-rows",
        f"more than {MAX_ROWS} rows in one request",
        hint="send several requests, or score a file in batch",
    )
