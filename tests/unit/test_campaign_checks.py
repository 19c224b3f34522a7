"""What decides a campaign's exit code notices each fault, and tells what reproduces it."""

from __future__ import annotations

from collections import deque

import pytest

from tests.campaigns import r1, r6, r12, r13
from tests.campaigns.checks import Checker, Quantiles, Verdict
from tests.integration.history import Event
from tests.integration.oracle import answer

CAMPAIGNS = {"R1": r1, "R6": r6, "R12": r12, "R13": r13}


def event(status: int = 200, seconds: float = 0.01, release: str = "oracle@1", salt: int = 1) -> Event:
    return Event(100.0, 100.0 + seconds, (7, 8), status, release, (answer(salt, 7), answer(salt, 8)))


def faults(*events: Event) -> dict[str, int]:
    checker = Checker({"oracle@1": 1, "oracle@2": 2})
    for one in events:
        checker.take(one)
    return dict(checker.faults)


@pytest.mark.parametrize("module", CAMPAIGNS.values(), ids=CAMPAIGNS)
def test_every_campaign_has_help_and_a_seed(module: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])  # type: ignore[attr-defined]
    assert ended.value.code == 0
    assert "--seed" in capsys.readouterr().out


def test_a_right_answer_is_no_fault_and_each_fault_is_told_apart() -> None:
    assert faults(event(), event(release="oracle@2", salt=2)) == {}
    assert faults(event(salt=2)) == {"wrong": 1}
    assert faults(event(release="oracle@9")) == {"wrong": 1}
    assert faults(event(status=503)) == {"failed": 1}
    assert faults(event(status=0)) == {"lost": 1}
    assert faults(event(seconds=10.2)) == {"hung": 1}


def test_a_fault_is_shown_with_the_rows_that_reproduce_it(capsys: pytest.CaptureFixture[str]) -> None:
    faults(event(salt=2))
    assert "WRONG: status 200 from oracle@1" in (shown := capsys.readouterr().out)
    assert "keys [7, 8]" in shown


def test_only_what_must_hold_decides_the_exit_code() -> None:
    verdict = Verdict("a campaign")
    verdict.aims("p99", "9 ms", "<= 3 ms", False)
    assert verdict.show() == 0
    checker = Checker({"oracle@1": 1})
    checker.take(event(salt=2))
    verdict.faults(checker, "lost")
    assert verdict.show() == 1


def test_an_answer_of_a_release_that_had_left_before_the_request_is_noticed() -> None:
    switches = deque([r6.Switch(0, 1, "oracle@1"), r6.Switch(10, 11, "oracle@2"), r6.Switch(20, 21, "oracle@3")])
    assert r6.routed(switches, 5, 6) == {"oracle@1"}
    assert r6.routed(switches, 9, 10.5) == {"oracle@1", "oracle@2"}
    assert r6.routed(switches, 11.5, 12) == {"oracle@2"}
    assert r6.routed(switches, 22, 23) == {"oracle@3"}


def test_without_retry_only_requests_at_the_killed_worker_are_excused() -> None:
    kills = r1.Kills(retry=False)
    kills.last = 100.0
    assert kills.excuses(event(status=503)._replace(answers=("worker-died",)))
    assert not kills.excuses(event(status=503)._replace(answers=("overloaded",)))
    assert not kills.excuses(event(status=503)._replace(sent=101.0, answers=("worker-died",)))


def test_the_simulation_of_r13_names_the_seed_that_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, seed: int) -> None:
            self.seed = seed

        def run(self) -> None:
            if self.seed == 5:
                raise AssertionError("lost")

    monkeypatch.setattr(r13, "World", Broken)
    assert r13.simulate(4, 3) == ["seed 5: AssertionError: lost"]


def test_quantiles_are_right_within_two_percent() -> None:
    times = Quantiles()
    for step in range(1, 1001):
        times.add(step / 1000)
    assert times.at(0.99) == pytest.approx(0.99, rel=0.02)
    assert times.most == 1.0


@pytest.mark.parametrize(
    ("grown", "code"),
    [
        (r6.Held({"gateway 1": 1020}, 10, 7), 0),
        (r6.Held({"gateway 1": 1021}, 10, 7), 1),
        (r6.Held({"gateway 2": 1000}, 10, 7), 1),
        (r6.Held({"gateway 1": 1000}, 11, 7), 1),
        (r6.Held({"gateway 1": 1000}, 10, 8), 1),
    ],
)
def test_a_leak_of_memory_descriptors_or_processes_is_noticed(grown: r6.Held, code: int) -> None:
    verdict = Verdict("a campaign")
    r6.judge_leaks({10: r6.Held({"gateway 1": 1000}, 10, 7), 500: grown}, verdict)
    assert verdict.show() == code
