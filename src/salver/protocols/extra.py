"""Counts the fields of row objects that the signature does not have: off the path of an answer, and exactly but where
a body has more than 100,000 of all kinds and its rows differ: there only the first rows count.

The names that were found are compiled into a type of row, so that a client that always sends them costs one more
decoding of its rows; only rows with other names are read as dicts, which takes three times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from itertools import chain, repeat
from operator import attrgetter, is_not
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from salver.errors import SalverError
from salver.protocols.bounds import elements, more_than
from salver.protocols.rows import UNREADABLE, RowType, decoder, may_be_packed
from salver.protocols.values import is_packed

MOST_NAMES = 64
MOST_TYPES = 32
MOST_KEYS = 100_000
SAMPLE = 100
_KEYS = msgspec.json.Decoder(dict[str, Raw] | list[dict[str, Raw]])
_ANYTHING = msgspec.json.Decoder()


class ExtraFields:
    """Counts the extra fields of one signature's rows; learns their names."""

    def __init__(self, rows: RowType) -> None:
        self._rows = rows
        self._known = frozenset(rows.names)
        self._bare = may_be_packed(rows.fields)
        self._learned: frozenset[str] = frozenset()
        self._read: Callable[[Any], Any] | None = None
        self._types = 0

    def count(self, values: Sequence[Any]) -> int:
        """How many keys are no field's name; `values` are row objects or lists of them, as JSON or as Python values."""
        if self._read is not None:
            with suppress(TypeError, *UNREADABLE):  # Python values, other names, invalid rows
                return self._filled(_rows(map(self._read, values)))
        vast = [value for value in values if _is_vast(value)]
        found = self._found([value for value in values if not _is_vast(value)] if vast else values)
        return found + sum(map(self._of_vast, vast))

    def _found(self, values: Iterable[Any]) -> int:
        objects = [row for row in _rows(map(_python, values)) if isinstance(row, dict)]
        if self._bare:
            objects = [row for row in objects if not is_packed(row)]
        found = sum(map(len, map(self._known.union, objects))) - len(self._known) * len(objects)
        if found:
            self._learn(frozenset().union(*objects) - self._known)
        return found

    def _of_vast(self, value: bytes | Raw) -> int:
        """The extra fields of a body of very many, whose rows probably have the same ones; at least 1."""
        with suppress(SalverError):
            first = [row for row in elements(value)[:SAMPLE] if not _is_vast(row)]
            found = self._found(first)
            if self._read is not None:
                with suppress(*UNREADABLE):
                    return self._filled(_rows([self._read(value)]))
            return max(1, found)
        return 1

    def _filled(self, rows: Sequence[Struct]) -> int:
        each = (map(attrgetter(f"x{place}"), rows) for place in range(len(self._learned)))
        return sum(map(is_not, chain.from_iterable(each), repeat(UNSET)))

    def _learn(self, names: frozenset[str]) -> None:
        """Expect these names from now on, beside those that were learned before."""
        if not names - self._learned or len(names) > MOST_NAMES or self._types >= MOST_TYPES:
            return
        if len(names | self._learned) <= MOST_NAMES:
            names |= self._learned
        self._types += 1
        with suppress(ValueError):  # a name that can't be the key of a struct
            self._read, self._learned = _reader(self._rows, names), names


def _reader(rows: RowType, names: Collection[str]) -> Callable[[Any], Any]:
    """What reads rows that have all their fields and may have these besides, but no other."""
    row: Any = msgspec.defstruct(
        "RowWithMore",
        [(f"x{place}", Raw | UnsetType, UNSET) for place in range(len(names))],
        bases=(rows.strict,),
        rename={f"x{place}": name for place, name in enumerate(names)},
    )
    return decoder(row | list[row]).decode


def _rows(values: Iterable[Any]) -> list[Any]:
    """The rows among values that are rows or lists of them."""
    read = list(values)
    if list not in set(map(type, read)):
        return read
    return list(chain.from_iterable(value if isinstance(value, list) else (value,) for value in read))


def _is_vast(value: Any) -> bool:
    """Whether a value is JSON that may have so many keys that a dict of them would take long, and much memory."""
    if not isinstance(value, bytes | Raw) or len(memoryview(value)) <= MOST_KEYS:
        return False
    return more_than(MOST_KEYS, value if isinstance(value, bytes) else memoryview(value).tobytes(), b":")


def _python(value: Any) -> Any:
    """A value as Python, as far as keys matter; an empty list where it can't be read."""
    if not isinstance(value, bytes | Raw):
        return value
    for read in (_KEYS, _ANYTHING):  # the second for a list that holds other things besides objects
        with suppress(*UNREADABLE):
            return read.decode(value)
    return []
