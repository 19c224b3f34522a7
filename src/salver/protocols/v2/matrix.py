"""Which inputs V2 requests name: those of the signature, or one matrix of all its columns, where all are floats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from salver.errors import SalverError, error
from salver.protocols.rows import capped, listed, told
from salver.signature import Column, Field


class Named(Protocol):
    """A tensor of a request."""

    @property
    def name(self) -> str:
        """As the request calls it."""

    @property
    def shape(self) -> Sequence[int]:
        """As the request states it."""


class Inputs:
    """The inputs of a signature."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._names = [field.name for field in fields]
        self.all_float = all(isinstance(field, Column) and field.type == "float" for field in fields)

    def is_matrix(self, given: Sequence[Named]) -> bool:
        """Whether the one input can only be the matrix of all columns."""
        width = len(self._names)
        if not self.all_float or len(given) != 1:
            return False
        only = given[0]
        return len(only.shape) == 2 and only.shape[1] == width and (width > 1 or only.name not in self._names)

    def count_extra(self, requests: Iterable[Sequence[Named]]) -> int:
        """How many tensors of these requests the signature doesn't have."""
        named = [given for given in requests if not self.is_matrix(given)]
        return sum(tensor.name not in self._names for given in named for tensor in given)

    def together(self, problems: Sequence[SalverError]) -> SalverError:
        """One error of several inputs' problems."""
        first = problems[0]
        if len(problems) == 1:
            return first
        matrix = f", or all in one of shape [n, {len(self._names)}]" if self.all_float else ""
        return error(
            first.code,
            f"{len(problems)} inputs are invalid",
            hint=f"the inputs are {listed(self._names)}{matrix}",
            details=capped([told(problem) for problem in problems]),
        )
