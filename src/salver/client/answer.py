"""What a model answered, with the release that answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from salver.errors import SalverError, error

Row = dict[str, Any]


class Answer:
    """The outputs of one request: one row per row sent, in order.

    `rows` holds a mapping from output to value per row, None where that row failed; `errors` then has its error by
    index. `prediction` is the value itself (a list of values where a list was sent). `release` (`churn@7`) answered,
    and `prediction_id` finds the prediction in the server's log.
    """

    __slots__ = ("errors", "prediction_id", "release", "rows", "single")

    def __init__(
        self, rows: list[Row | None], *, single: bool, errors: dict[int, SalverError], release: str, prediction_id: str
    ) -> None:
        self.rows = rows
        self.single = single
        self.errors = errors
        self.release = release
        self.prediction_id = prediction_id

    @property
    def prediction(self) -> Any:
        """The output named `prediction`: one value for one row, a list for a list."""
        return self["prediction"]

    def __getitem__(self, output: str) -> Any:
        known = next((row for row in self.rows if row is not None), None)
        if known is not None and output not in known:
            raise error(
                "bad-request", f"{self.release} has no output {output!r}", hint=f"it has {', '.join(map(str, known))}"
            )
        values = [None if row is None else row[output] for row in self.rows]
        return values[0] if self.single else values

    def __iter__(self) -> Iterator[Row | None]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        failed = f", {len(self.errors)} failed" if self.errors else ""
        return f"<Answer of {self.release}: {len(self.rows)} rows{failed}>"
