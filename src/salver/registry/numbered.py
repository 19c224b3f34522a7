"""An append-only, numbered list of records: releases, routes and policies are each one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic

from salver.registry.layout import numbered, numbered_key
from salver.registry.sealed import T, seal, unseal
from salver.storage import Storage


class NumberedList(Generic[T]):
    """The records of one kind below `prefix`, from number 1.

    An entry is created once and never changes, so that whoever creates a number has won it: there is no other lock.
    """

    def __init__(self, storage: Storage, prefix: str, kind: type[T]) -> None:
        self._storage = storage
        self._prefix = prefix
        self._kind = kind

    def numbers(self) -> list[int]:
        """All numbers, ascending."""
        found = (numbered(self._prefix, key) for key in self._storage.list(self._prefix))
        return sorted(number for number in found if number is not None)

    def get(self, number: int) -> T | None:
        """Entry `number`, or None."""
        key = numbered_key(self._prefix, number)
        data = self._storage.read(key)
        return None if data is None else unseal(data, self._kind, f"{self._storage.place}/{key}")

    def last(self) -> T | None:
        """The entry with the highest number, or None."""
        numbers = self.numbers()
        return self.get(numbers[-1]) if numbers else None

    def all(self) -> list[T]:
        """All entries by number."""
        return list(self._present(self.numbers()))

    def after(self, number: int) -> list[T]:
        """The entries that follow `number` without a gap: asks for the next one until there is none, never lists."""
        found: list[T] = []
        while (entry := self.get(number + len(found) + 1)) is not None:
            found.append(entry)
        return found

    def append(self, number: int, record: T) -> bool:
        """Create entry `number`; False when somebody else has. Either way entry `number` is durable then."""
        return self._storage.create(numbered_key(self._prefix, number), [seal(record)])

    def _present(self, numbers: Iterable[int]) -> Iterator[T]:
        for number in numbers:
            entry = self.get(number)
            if entry is not None:
                yield entry
