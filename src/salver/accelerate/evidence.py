"""What a comparison of an accelerated model with its original found, as plain data that travels in the release."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from salver.release import Tolerance

FORMAT = 1
EVIDENCE = "evidence/acceleration.json"
RTOL = 1e-5
DISTANCE = 1e-6
SHOWN = 50


class Difference(Struct, frozen=True):
    """One row that got another answer: which rows it belongs to, the row, both answers, and why it counts or not.

    `verdict` is `boundary` (the original itself gives this answer within the stated distance), `refused` (the original
    refuses the row) or `different`, which forbids the acceleration.
    """

    rows: str
    row: dict[str, Any]
    original: Any
    accelerated: Any
    verdict: str


class Compared(Struct, frozen=True, omit_defaults=True):
    """One set of rows: how many got the same bits, the same within the tolerance, and another answer by its verdict.

    `invalid` rows are no requests that the signature allows; they were left out and aren't in `count`.
    """

    rows: str
    count: int
    equal: int
    close: int
    boundary: int
    refused: int
    different: int
    invalid: int = 0


class Speed(Struct, frozen=True):
    """The CPU time of a request of so many rows in a worker, in nanoseconds: of the original, of the accelerated."""

    rows: int
    before_ns: int
    after_ns: int


class Evidence(Struct, frozen=True):
    """The whole comparison. `holds` is whether nothing is `different`.

    `distance` is the relative change of the numbers of a row within which the original's own answers count;
    `tolerances` hold for each output of numbers, `largest` is the largest difference seen where no split was crossed.
    `kept` are the steps that stay in scikit-learn.
    """

    format: int
    original: str
    converter: dict[str, str]
    distance: float
    tolerances: dict[str, Tolerance]
    largest: dict[str, float]
    compared: list[Compared]
    differences: list[Difference]
    unlisted: int = 0
    kept: list[str] = []

    @property
    def holds(self) -> bool:
        """Whether no row got an answer that the original wouldn't give within the stated distance."""
        return not any(each.different for each in self.compared)
