"""What wrk prints is read as what it means."""

from __future__ import annotations

import pytest

from bench.load import Cell, parse

OUTPUT = """Running 2s test @ http://127.0.0.1:8000/iris
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    79.09ms   40.25ms 400.05ms   90.63%
    Req/Sec   838.35    187.50     1.01k    85.00%
  Latency Distribution
     50%  69.88ms
     75%  80.11ms
     90%  99.73ms
     99%    1.16s 
  1690 requests in 2.03s, 253.51KB read
  Socket errors: connect 0, read 3, write 1, timeout 2
  Non-2xx or 3xx responses: 10
Requests/sec:    832.51
Transfer/sec:    124.88KB
"""  # noqa: W291 - wrk pads its units


def test_a_run_is_read_with_its_units_and_every_kind_of_error_counts() -> None:
    cell = parse(OUTPUT, cpu_seconds=1.69, steal_seconds=0.1)
    assert cell == Cell(1690, 2.03, 1.69, 69.88, 1160.0, 16, 0.1)
    assert cell.cpu_us == pytest.approx(1000.0)
    assert cell.per_second == pytest.approx(1690 / 2.03)


def test_a_run_without_errors_has_none() -> None:
    assert parse("  5 requests in 900.00ms, 1KB read", cpu_seconds=0.0, steal_seconds=0.0).errors == 0


def test_output_without_a_total_is_refused() -> None:
    with pytest.raises(ValueError, match="printed no total"):
        parse("unable to connect to 127.0.0.1:8000 Connection refused\n", cpu_seconds=0.0, steal_seconds=0.0)
