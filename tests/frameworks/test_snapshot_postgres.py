"""A table of a real PostgreSQL taken into a table of a release."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

import salver
from salver.publish.snapshot import from_postgres
from tests.frameworks.looked_up import Third
from tests.integration.server import Server

USER = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name

ROWS = """
create table words as select
    'word' || n as word, array[n, n + 0.5, -n]::float4[] as vector, n as rank, (n % 2 = 0) as even,
    n / 3.0::float8 as third, date '2020-01-01' + (n % 1000) as seen,
    timestamp '2020-01-01' + n * interval '1 second' as at,
    'Zürich ' || n as city, decode(to_hex(n + 4096), 'hex') as raw
from generate_series(0, 49999) as n order by random()
"""


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    """A database in a folder of its own, that speaks over a socket in that folder only."""
    programs = Path(
        subprocess.run(["pg_config", "--bindir"], check=True, capture_output=True, text=True).stdout.strip()
    )
    home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    shutil.chown(home, USER)
    as_user: dict[str, Any] = {"user": USER, "cwd": home} if os.getuid() == 0 else {"cwd": home}
    made = ["-D", str(home / "data"), "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
    subprocess.run([programs / "initdb", *made], check=True, stdout=subprocess.DEVNULL, **as_user)
    control = [programs / "pg_ctl", "-D", home / "data", "-w", "-l", home / "log"]
    options = f"-k {home} -c listen_addresses= -c fsync=off"
    subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, **as_user)
    try:
        with psycopg.connect(host=str(home), user="postgres", dbname="postgres") as live:
            live.execute(ROWS)
            live.commit()
            yield live
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, **as_user)
        shutil.rmtree(home)


def test_every_type_comes_over_and_rows_are_sorted_by_the_key(connection: Any, tmp_path: Path) -> None:
    assert from_postgres(tmp_path / "words.table", connection, "select * from words;", key="word") == 50_000
    table = salver.Table(tmp_path / "words.table")
    assert list(table) == sorted(f"word{n}" for n in range(50_000))
    row = table["word4711"]
    assert row["vector"].tolist() == [4711.0, 4711.5, -4711.0]
    assert (row["rank"], row["even"], row["third"]) == (4711, False, 4711 / 3)
    assert (row["seen"], row["city"], row["raw"]) == (np.datetime64("2021-12-12"), "Zürich 4711", bytes.fromhex("2267"))
    assert row["seen"].item() == date(2021, 12, 12)
    assert row["at"].item() == datetime(2020, 1, 1, 1, 18, 31)


def test_the_same_rows_are_the_same_file_whatever_their_order_in_the_database(connection: Any, tmp_path: Path) -> None:
    for name, query in (("a", "select * from words"), ("b", "select * from words order by random()")):
        from_postgres(tmp_path / name, connection, query, key="rank", columns="vector")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert salver.Table(tmp_path / "a")[7].tolist() == [7.0, 7.5, -7.0]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select 'a' as word, 1.5::numeric as x", "'x' is of type number 1700"),
        ("select 'a'::text as word, null::int as x", "'x' has missing values"),
        ("select 'a'::text as word, array[1, null] as x", "'x' has missing values"),
        ("select 'a'::text as word, array[1] as x union all select 'b', array[1, 2]", "1 to 2 entries"),
        ("select 'a'::text as word, 1 as x union all select 'a', 2", "'a' is the key of row 1"),
        ("select 'a'::text as words", "no column 'word'"),
    ],
)
def test_what_a_table_cannot_hold_is_refused_by_name(connection: Any, query: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(salver.UserError, match=said):
        from_postgres(tmp_path / "bad.table", connection, query, key="word")
    assert list(tmp_path.iterdir()) == []
    assert connection.execute("select 1").fetchone() == (1,)
    connection.commit()


def test_a_release_carries_the_snapshot(connection: Any, tmp_path: Path) -> None:
    files = tmp_path / "files"
    from_postgres(files / "words.table", connection, "select word, third from words", key="word")
    registry = tmp_path / "registry"
    salver.release("third", Third, examples=[{"word": "word1"}, {"word": "?"}], files=files, registry=str(registry))
    asked = [{"word": f"word{number}"} for number in (3, 10, 49_999, 50_000)]
    with Server(registry, "--workers", "1", log=tmp_path / "log") as server:
        answers = server.post("/models/third/predict", asked).json
    assert [answer["prediction"] for answer in answers] == [1.0, 10 / 3, 49_999 / 3, -1.0]
