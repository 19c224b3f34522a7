"""Any order of publishing, promoting, rolling back and losing races does to the registry what it does to a list."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from salver.errors import SalverError
from salver.record import Provenance
from salver.registry import Registry
from salver.release import FORMAT, Manifest
from salver.route import Change, Route, next_route, rollback_target
from salver.signature import Column, Signature
from salver.storage.memory import MemoryStorage

CONTENTS = st.sampled_from("abcde")
ANN = Provenance(actor="ann", at="2025-01-01T00:00:00Z")
SIGNATURE = Signature(inputs=(Column("age", "float"),), outputs=(Column("churn", "float"),))


class History(RuleBasedStateMachine):
    """The model: contents in the order of their first publishing, and the moves."""

    def __init__(self) -> None:
        super().__init__()
        self.storage = MemoryStorage()
        self.contents: list[str] = []
        self.moves: list[tuple[str, int]] = []

    @property
    def registry(self) -> Registry:
        """A fresh one each time: it must not need to remember anything."""
        return Registry(self.storage)

    @rule(content=CONTENTS)
    def publish(self, content: str) -> None:
        manifest = Manifest(FORMAT, "churn", SIGNATURE, "function", content, (), "3.11", "0" * 64)
        published = self.registry.publish(Path("/nowhere"), manifest, ANN)
        assert published.created == (content not in self.contents)
        if published.created:
            self.contents.append(content)
        assert published.release.number == self.contents.index(content) + 1

    @rule(number=st.integers(1, 6))
    def promote(self, number: int) -> None:
        if number > len(self.contents):
            with pytest.raises(SalverError) as caught:
                self._append(Change(number, "promote", "ann", "t"))
            assert caught.value.code in ("no-registry", "no-such-release")
            return
        self._append(Change(number, "promote", "ann", "t"))

    @rule(action=st.sampled_from(["rollback", "fallback"]))
    def go_back(self, action: str) -> None:
        history = self.registry.history("churn") if self.contents else []
        targets = self._targets()
        if not targets:
            with pytest.raises(SalverError) as caught:
                rollback_target(history)
            assert caught.value.code == ("nothing-to-roll-back" if history else "no-live-release")
            return
        target = rollback_target(history)
        assert target == targets[-1]
        self._append(Change(target, action, "ann", "t"))

    @rule(behind=st.integers(1, 3))
    def lose_a_race(self, behind: int) -> None:
        if len(self.moves) < behind:
            return
        stale = Route("churn", len(self.moves) - behind + 1, self.moves[-1][1], "bob", "t", "promote")
        with pytest.raises(SalverError) as caught:
            self.registry.append_route(stale)
        assert caught.value.code == "lost-race"

    @invariant()
    def the_history_is_the_list(self) -> None:
        if not self.contents:
            return
        history = self.registry.history("churn")
        assert [(route.action, route.live) for route in history] == self.moves
        assert [route.seq for route in history] == list(range(1, len(self.moves) + 1))
        assert [release.number for release in self.registry.releases("churn")] == list(range(1, len(self.contents) + 1))
        if self.moves:
            assert self.registry.find("churn").number == self.moves[-1][1]

    @invariant()
    def everything_is_intact(self) -> None:
        if self.contents:
            report = self.registry.verify()
            assert (report.problems, report.orphans) == ((), ())

    def _append(self, change: Change) -> None:
        self.registry.append_route(next_route("churn", self.registry.current("churn"), change))
        self.moves.append((change.action, change.live))

    def _targets(self) -> list[int]:
        """Every release that was live before, is not live now, and from which nobody has gone back since."""
        return [
            live
            for at, (_, live) in enumerate(self.moves)
            if live != self.moves[-1][1]
            and not any(
                action != "promote" and left == live != to
                for (_, left), (action, to) in zip(self.moves[at:], self.moves[at + 1 :], strict=False)
            )
        ]


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=60, stateful_step_count=25)
