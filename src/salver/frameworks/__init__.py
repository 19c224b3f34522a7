"""The port every framework adapter fulfils; one adapter per file, found through entry points (`salver.frameworks`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from salver.release import ROWS_PER_CALL
from salver.signature import Signature

Columns = Mapping[str, NDArray[Any]]
"""Named arrays of equal length: one entry (or sub-array, for a tensor) per row."""

Predict = Callable[[Columns], Columns]
"""The inputs' columns in, the outputs' columns out, the same number of rows; raises what the model raises.

That of a model with the capability `stream` has a method of that name: the same, piece by piece.
"""


class Saved(NamedTuple):
    """What `save` wrote: the entry to load again, the framework's options, and why loading may run code (or '').

    `max_batch` is the most rows for which one call of the model pays. `capabilities` are what the model can do besides
    answering: `stream`.
    """

    entry: str
    options: dict[str, Any]
    unsafe: str
    max_batch: int = ROWS_PER_CALL
    capabilities: tuple[str, ...] = ()


class Framework(Protocol):
    """Saves, loads and calls one kind of model.

    An adapter that takes options names them in `options`, a tuple; any other is refused when a model is released.
    """

    name: str

    def handles(self, model: object) -> bool:
        """Whether this adapter releases `model`; decided without importing anything new."""
        ...

    def save(self, model: Any, folder: Path) -> Saved:
        """Write `model` below `folder`, in the safest format that keeps it whole, the same bytes each time."""
        ...

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load what `save` wrote and return the function that predicts."""
        ...
