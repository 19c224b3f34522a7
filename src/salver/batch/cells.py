"""CSV has only text: what a cell means is said by the signature."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import msgspec

from salver.signature import Column, Field

_INTEGER = re.compile(r"[+-]?\d+(\.0*)?")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def parse_cell(text: str, field: Field) -> Any:
    """The value of a cell in the type its field declares; empty is null. Raises ValueError with what was expected."""
    if text == "":
        return None
    if not isinstance(field, Column):
        return _parse_tensor(text, field.name, private=field.private)
    try:
        match field.type:
            case "float":
                return _parse_float(text)
            case "int":
                return _parse_int(text)
            case "bool":
                return _BOOLEANS[text.strip().lower()]
            case _:
                return text
    except (ValueError, KeyError):
        raise ValueError(_expected(field.name, field.type, text, private=field.private)) from None


def write_cell(value: Any) -> str:
    """A predicted value as text: null is empty, bytes are base64, lists and mappings JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, bool | list | dict):
        return msgspec.json.encode(value).decode()
    return str(value)


def _parse_float(text: str) -> float:
    value = float(text)
    if "_" in text or value != value or value in (float("inf"), float("-inf")):
        raise ValueError
    return value


def _parse_int(text: str) -> int:
    text = text.strip()
    if not _INTEGER.fullmatch(text):
        raise ValueError
    return int(text.partition(".")[0])


def _parse_tensor(text: str, name: str, *, private: bool) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise ValueError(_expected(name, "an array in JSON", text, private=private)) from None


def _expected(name: str, kind: str, text: str, *, private: bool) -> str:
    return f"{name}: expected {kind}, got " + ("another value" if private else repr(text[:40]))
