"""What campaigns measure by: events checked as they come and then forgotten, quantiles in little memory, a verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

from tests.integration.history import Event, wrong_answers

DEADLINE = 10.1  # the default deadline and the 100 ms that an answer may be late
SHOWN = 5
STEP = math.log(1.02)


class Quantiles:
    """Durations counted in steps of 2 %."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.most = 0.0

    def add(self, seconds: float) -> None:
        self._counts[round(math.log(max(seconds, 1e-6)) / STEP)] += 1
        self.count += 1
        self.most = max(self.most, seconds)

    def at(self, share: float) -> float:
        """The duration that this share does not exceed; NaN of nothing."""
        left = share * self.count
        for step in sorted(self._counts):
            left -= self._counts[step]
            if left <= 0:
                return math.exp(step * STEP)
        return math.nan


class Checker:
    """Counts requests by fault, and prints the first few of each kind with what reproduces them.

    `excused` says which requests without a 200 are as they should be.
    """

    def __init__(self, salts: Mapping[str, int], excused: Callable[[Event], bool] = lambda _: False) -> None:
        self.requests = 0
        self.rows = 0
        self.answered = 0
        self.faults: Counter[str] = Counter()
        self._salts = dict(salts)
        self._excused = excused

    def take(self, event: Event) -> None:
        """Check one request."""
        self.requests += 1
        self.rows += len(event.keys)
        self.answered += event.status == 200
        fault = self._fault(event)
        if fault:
            self.note(fault, describe(event))

    def note(self, fault: str, example: str) -> None:
        """Count a fault that was found elsewhere."""
        self.faults[fault] += 1
        if self.faults[fault] <= SHOWN:
            print(f"{fault.upper()}: {example}", flush=True)

    def _fault(self, event: Event) -> str:
        if event.status == 0:
            return "lost"
        if event.done - event.sent > DEADLINE:
            return "hung"
        if event.status != 200:
            return "" if self._excused(event) else "failed"
        return "wrong" if wrong_answers([event], self._salts) else ""


def describe(event: Event) -> str:
    """A request, so that it can be asked again."""
    return (
        f"status {event.status} from {event.release or 'nobody'} {event.done - event.sent:.3f} s after it was sent at"
        f" {event.sent:.3f}; keys {list(event.keys)} got {list(event.answers)}"
    )


class Verdict:
    """What was found beside what is promised. Only what `must` hold decides the exit code."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._lines: list[tuple[str, str, str, str]] = []
        self.failed = False

    def must(self, what: str, found: str, promised: str, kept: bool) -> None:
        self._lines.append((what, found, promised, "kept" if kept else "BROKEN"))
        self.failed = self.failed or not kept

    def aims(self, what: str, found: str, promised: str, kept: bool) -> None:
        self._lines.append((what, found, promised, "kept" if kept else "missed"))

    def says(self, what: str, found: str) -> None:
        self._lines.append((what, found, "", ""))

    def faults(self, checker: Checker, *kinds: str) -> None:
        """None of these, nor of any that was found."""
        for kind in sorted({*kinds, *checker.faults}):
            self.must(f"{kind}", str(checker.faults[kind]), "0", not checker.faults[kind])

    def show(self) -> int:
        """Print it all; the exit code."""
        rows = [("", "found", "promised", ""), *self._lines]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        print(f"\n{self._title}")
        for row in rows:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print("BROKEN" if self.failed else "held", flush=True)
        return 1 if self.failed else 0
