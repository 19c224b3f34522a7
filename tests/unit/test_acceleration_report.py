"""What a person is told of an acceleration."""

from __future__ import annotations

import pytest

from salver.accelerate.evidence import FORMAT, Compared, Evidence, Speed
from salver.cli.acceleration import Acceleration, print_acceleration, report
from salver.release import Tolerance

GOLDEN = Compared("golden", 32, 30, 2, 0, 0, 0)
EDGES = Compared("edges", 500, 480, 17, 3, 0, 0, invalid=7)


def evidence(*compared: Compared) -> Evidence:
    return Evidence(
        format=FORMAT,
        original="sha256:" + "0" * 64,
        converter={"skl2onnx": "1.20.0"},
        distance=1e-6,
        tolerances={"price": Tolerance(1e-5, 1e-4)},
        largest={"price": 2e-9},
        compared=list(compared),
        differences=[],
        kept=["curves (SplineTransformer)"],
    )


def test_the_report_has_the_agreement_the_steps_that_stay_and_the_times(capsys: pytest.CaptureFixture[str]) -> None:
    rows = Compared("rows", 4454, 4454, 0, 0, 0, 0)
    report("m@2", Acceleration("m@1", evidence(GOLDEN, rows, EDGES), [Speed(1000, 4_000_000, 1_600_000)]))
    out, err = capsys.readouterr()
    assert [" ".join(line.split()) for line in out.splitlines() if line.startswith("  ")] == [
        "ROWS COUNT SAME BITS SAME WITHIN AT A BOUNDARY REFUSED BEFORE",
        "golden 32 30 2 0 0",
        "rows 4454 4454 0 0 0",
        "edges 500 480 17 3 0",
        "price within 1e-05 of the value + 0.0001; the largest difference is 2e-09",
        "stay in scikit-learn curves (SplineTransformer)",
        "converted with skl2onnx 1.20.0",
        "ROWS BEFORE AFTER FASTER",
        "1,000 4.00 ms 1.60 ms 2.5 ×",
    ]
    assert out.startswith("m@2 is m@1 as an ONNX graph, and answers the same\n")
    assert err == ""


def test_that_no_rows_were_given_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    report("m@2", Acceleration("m@1", evidence(GOLDEN, EDGES), []))
    assert "compared on golden rows and made ones alone; --rows FILE" in capsys.readouterr().err


def test_rows_that_were_left_out_are_counted_unless_they_were_made(capsys: pytest.CaptureFixture[str]) -> None:
    report("m@2", Acceleration("", evidence(GOLDEN, Compared("rows", 8, 8, 0, 0, 0, 0, invalid=2), EDGES), []))
    out, err = capsys.readouterr()
    assert out.startswith("m@2 is the model as an ONNX graph")
    assert err == "2 rows are no valid requests of the model, and were not compared\n"


def test_times_that_nobody_kept_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_acceleration("Accelerated from m@1", Acceleration("m@1", evidence(GOLDEN), []))
    out = capsys.readouterr().out
    assert out.startswith("\nAccelerated from m@1\n")
    assert "CPU time" not in out
