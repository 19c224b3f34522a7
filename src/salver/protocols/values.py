"""Values of JSON: the names of their types, and how bytes are written.

Bytes are base64 text, also in an object `{"b64": text}`; in the data of V2 they are the text that they are in UTF-8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64decode
from typing import Any

_MARK = "b64"
_NAMES = {bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object", type(None): "null"}


def json_type(value: Any) -> str:
    """What JSON calls the type of a value."""
    return _NAMES.get(type(value), "something else")


class _Blob(ABC):
    """Bytes, as a type that decoders leave to us: what it reads is plain bytes, which count as an instance of it."""

    @classmethod
    @abstractmethod
    def read(cls, value: Any) -> bytes:
        """Read the JSON value; ValueError says what it is instead."""


class Base64(_Blob):
    """Bytes that came as base64 text, in the standard alphabet with padding, or as an object that holds it."""

    @classmethod
    def read(cls, value: Any) -> bytes:
        """Read the JSON value."""
        if is_packed(value):
            value = value[_MARK]
        if type(value) is not str:
            raise ValueError(f"expected bytes in base64, got {json_type(value)}")
        try:
            return b64decode(value, validate=True)
        except ValueError:
            raise ValueError("expected bytes in base64, got other text") from None


class Utf8(_Blob):
    """Bytes that came as the text which they are in UTF-8."""

    @classmethod
    def read(cls, value: Any) -> bytes:
        """Read the JSON value."""
        if type(value) is not str:
            raise ValueError(f"expected text, got {json_type(value)}")
        return value.encode()


for _kind in (Base64, Utf8):
    _kind.register(bytes)


def is_packed(value: Any) -> bool:
    """Whether a Python value is an object of nothing but base64."""
    return type(value) is dict and value.keys() == {_MARK}


def unpacked_text(value: Any) -> Any:
    """A Python value with the text of each base64 object in its place; ValueError where one holds no text in UTF-8."""
    if type(value) is list:
        return list(map(unpacked_text, value))
    if not is_packed(value):
        return value
    try:
        return Base64.read(value).decode()
    except ValueError:
        raise ValueError("expected text, got a b64 object that holds no base64 of UTF-8") from None
