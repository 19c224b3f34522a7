"""Scoring a file keeps every row in its place, types CSV by the signature and blames bad rows by their line."""

from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
import pytest
from pyarrow import parquet

from salver.batch.cells import parse_cell, write_cell
from salver.batch.records import FileFormat, format_of, read_records
from salver.batch.results import open_results
from salver.batch.score import Job, Summary, score
from salver.errors import SalverError, UserError, error
from salver.frames import Reply
from salver.signature import Column, Signature, Tensor

SIGNATURE = Signature(
    inputs=(Column("age", "int"), Column("income", "float", nullable=True), Column("name", "str", private=True)),
    outputs=(Column("prediction", "float"),),
)


class Doubling:
    """A release in memory: answers twice the age, refuses ages over 100, finishes later chunks first."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, Any]]] = []
        self.open = 0
        self.most = 0

    async def ask(self, protocol: str, body: bytes, options: dict[str, str] | None = None) -> Reply:
        """Answer one list of rows."""
        del protocol, options
        rows = msgspec.json.decode(body)
        self.asked.append(rows)
        self.open += 1
        self.most = max(self.most, self.open)
        for _ in range(20 if len(self.asked) % 2 else 1):
            await asyncio.sleep(0)
        self.open -= 1
        answers = [
            {"prediction": 2.0 * row["age"]}
            if row["age"] <= 100
            else {"error": {"code": "model-error", "detail": "old"}}
            for row in rows
        ]
        return Reply(0, 200, msgspec.json.encode(answers), len(rows))


def run(
    text: str | bytes, source: FileFormat, target: FileFormat | None = None, release: Any = None
) -> tuple[Summary, bytes, list[tuple[int, str]]]:
    data = text.encode() if isinstance(text, str) else text
    records = read_records(io.BytesIO(data), source, SIGNATURE, where="rows")
    sink = io.BytesIO()
    results = open_results(sink, target or source, records, ("prediction",))
    failures: list[tuple[int, str]] = []
    job = Job(records, results, lambda line, p: failures.append((line, str(p))), lambda *_: None, in_flight=3)
    summary = asyncio.run(score(job, release or Doubling()))
    return summary, sink.getvalue(), failures


def test_predictions_become_columns_and_the_cells_stay_as_they_were() -> None:
    summary, out, failures = run('age,income,name\n7,1.50,Ann\n8,,"O\'Neil, ""Jr"""\n', "csv")
    assert out.decode() == 'age,income,name,prediction\n7,1.50,Ann,14.0\n8,,"O\'Neil, ""Jr""",16.0\n'
    assert summary[:2] == (2, 0)
    assert failures == []


def test_cells_are_typed_by_the_signature_and_empty_ones_are_null() -> None:
    release = Doubling()
    run("extra,name,income,age\nx,42,,7\n", "csv", release=release)
    assert release.asked == [[{"age": 7, "income": None, "name": "42"}]]


def test_a_bad_row_keeps_its_place_and_is_named_by_its_line() -> None:
    text = 'age,income,name\n1,2,"two\nlines"\nold,2,Ann\n3,2\n101,2,Ann\n5,,Ann\n'
    summary, out, failures = run(text, "csv")
    assert [row[-1] for row in csv.reader(io.StringIO(out.decode()))] == ["prediction", "2.0", "", "", "", "10.0"]
    assert failures == [
        (4, "age: expected int, got 'old'"),
        (5, "2 cells, the header has 3"),
        (6, "old"),
    ]
    assert summary[:2] == (5, 3)


def test_the_value_of_a_private_column_is_never_shown() -> None:
    private = Column("salary", "int", private=True)
    with pytest.raises(ValueError, match="salary: expected int, got another value"):
        parse_cell("12x", private)


def test_rows_stay_in_order_over_many_chunks_and_few_are_in_flight() -> None:
    rows = 10_000
    text = "age,income,name\n" + "".join(f"{i % 100},1,n{i}\n" for i in range(rows))
    release = Doubling()
    summary, out, _ = run(text, "csv", release=release)
    written = list(csv.DictReader(io.StringIO(out.decode())))
    assert [row["name"] for row in written] == [f"n{i}" for i in range(rows)]
    assert all(float(row["prediction"]) == 2 * int(row["age"]) for row in written)
    assert summary.rows == rows
    assert 1 < release.most <= 3
    assert max(map(len, release.asked)) <= 1024


def test_a_huge_row_does_not_share_a_request_with_others() -> None:
    release = Doubling()
    text = "age,income,name\n" + f"1,1,{'x' * (5 << 20)}\n" * 3
    run(text, "csv", release=release)
    assert [len(rows) for rows in release.asked] == [1, 1, 1]


def test_csv_becomes_json_with_typed_values() -> None:
    _, out, _ = run("age,income,name,note\n7,1.50,Ann,hi\n", "csv", "jsonl")
    assert msgspec.json.decode(out) == {"age": 7, "income": 1.5, "name": "Ann", "note": "hi", "prediction": 14.0}


def test_json_lines_name_the_line_that_is_no_object() -> None:
    summary, out, failures = run('{"age": 1, "income": null, "name": "é"}\n\n[1]\n{"age":\n', "jsonl")
    assert [line for line, _ in failures] == [3, 4]
    assert summary[:2] == (3, 2)
    assert msgspec.json.decode(out.splitlines()[0]) == {"age": 1, "income": None, "name": "é", "prediction": 2.0}


def test_a_json_list_stays_a_list_even_when_empty() -> None:
    assert msgspec.json.decode(run("[]", "json")[1]) == []
    _, out, _ = run('[{"age": 1, "income": 2, "name": ""}, {"age": 2, "income": 2, "name": ""}]', "json")
    assert [row["prediction"] for row in msgspec.json.decode(out)] == [2.0, 4.0]


def test_a_row_object_alone_in_a_json_file_is_scored_as_a_server_would() -> None:
    _, out, _ = run(' {"age": 1, "income": 2, "name": ""}\n', "json")
    assert [row["prediction"] for row in msgspec.json.decode(out)] == [2.0]
    with pytest.raises(UserError, match="one object a line is jsonl"):
        run('{"age": 1, "income": 2, "name": ""}\n{"age": 2, "income": 2, "name": ""}', "json")


def test_columns_that_do_not_fit_are_all_named_before_anything_is_scored() -> None:
    release = Doubling()
    with pytest.raises(UserError) as caught:
        run("age,age,prediction\n1,1,1\n", "csv", release=release)
    assert caught.value.details == (
        "column 'age' appears twice",
        "column 'income' is missing",
        "column 'name' is missing",
        "column 'prediction' would be overwritten by the output of that name",
    )
    assert release.asked == []


def test_an_empty_csv_is_an_error_and_one_with_a_header_only_is_not() -> None:
    with pytest.raises(UserError, match="the file is empty"):
        run("", "csv")
    summary, out, _ = run("age,income,name\n", "csv")
    assert (summary.rows, out) == (0, b"age,income,name,prediction\n")


def test_a_file_that_is_not_utf8_is_blamed_at_its_line() -> None:
    with pytest.raises(UserError, match="line 3 is not UTF-8"):
        run(b"age,income,name\n1,2,a\n1,2,\xff\n", "csv")


def test_a_byte_order_mark_belongs_to_no_column() -> None:
    assert run(b"\xef\xbb\xbfage,income,name\n1,2,a\n", "csv")[0].failed == 0


def test_csv_output_refuses_a_key_the_first_row_had_not() -> None:
    text = '{"age": 1, "income": 2, "name": "a"}\n{"age": 1, "income": 2, "name": "a", "new": 1}\n'
    with pytest.raises(UserError, match="line 2 has new"):
        run(text, "jsonl", "csv")


def test_an_answer_for_too_few_rows_is_never_written() -> None:
    class Losing(Doubling):
        async def ask(self, *_: Any) -> Reply:
            return Reply(0, 200, b"[]", 0)

    with pytest.raises(SalverError) as caught:
        run("age,income,name\n1,2,a\n", "csv", release=Losing())
    assert caught.value.code == "row-count"


def test_a_refused_chunk_names_its_lines() -> None:
    class Refusing(Doubling):
        async def ask(self, *_: Any) -> Reply:
            return Reply(0, 422, b'{"detail": "kills its worker"}', 0, 0, "poison-request")

    with pytest.raises(SalverError, match="lines 2 to 3: kills its worker"):
        run("age,income,name\n1,2,a\n1,2,a\n", "csv", release=Refusing())


def test_parquet_keeps_types_and_gains_the_outputs() -> None:
    sink = io.BytesIO()
    table = pyarrow.table({"age": [1, 2], "income": pyarrow.array([None, 2.5]), "name": ["a", "b"], "n": [True, None]})
    parquet.write_table(table, sink)
    _, out, failures = run(sink.getvalue(), "parquet")
    result = parquet.read_table(io.BytesIO(out))
    assert failures == []
    assert result.drop_columns(["prediction"]).equals(table)
    assert result["prediction"].to_pylist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("", Column("a", "int"), None),
        ("3.0", Column("a", "int"), 3),
        ("-7", Column("a", "int"), -7),
        ("1e3", Column("a", "float"), 1000.0),
        ("True", Column("a", "bool"), True),
        ("0", Column("a", "bool"), False),
        ("00123", Column("a", "category"), "00123"),
        ("2024-01-01", Column("a", "datetime"), "2024-01-01"),
        ("[1, 2]", Tensor("a", "int64", (-1, 2)), [1, 2]),
    ],
)
def test_a_cell_is_read_as_its_declared_type(text: str, field: Column | Tensor, value: Any) -> None:
    read = parse_cell(text, field)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("3.5", Column("a", "int")),
        ("1_000", Column("a", "int")),
        ("1_000", Column("a", "float")),
        ("nan", Column("a", "float")),
        ("inf", Column("a", "float")),
        ("NA", Column("a", "float")),
        ("yes", Column("a", "bool")),
        ("[1", Tensor("a", "int64", (-1, 2))),
    ],
)
def test_a_cell_of_another_type_is_refused(text: str, field: Column | Tensor) -> None:
    with pytest.raises(ValueError, match="a: expected"):
        parse_cell(text, field)


def test_values_are_written_so_that_they_can_be_read_again() -> None:
    assert [write_cell(value) for value in (None, True, 0.1, 3, "a,b", [0.5, 0.5], b"\xff\0")] == [
        "", "true", "0.1", "3", "a,b", "[0.5,0.5]", "/wA=",
    ]  # fmt: skip


def test_the_format_comes_from_the_suffix_or_is_asked_for() -> None:
    assert format_of(Path("a.CSV")) == "csv"
    assert format_of(Path("a.txt"), "jsonl") == "jsonl"
    with pytest.raises(UserError, match="doesn't say what format"):
        format_of(Path("a.txt"))


class Deadly(Doubling):
    """A release whose worker dies of the age 66: what holds one is poison."""

    async def ask(self, protocol: str, body: bytes, options: dict[str, str] | None = None) -> Reply:
        """Answer one list of rows, or not."""
        if any(row["age"] == 66 for row in msgspec.json.decode(body)):
            raise error("poison-request", "churn@7 could not answer the request")
        return await super().ask(protocol, body, options)


def test_a_row_that_kills_workers_fails_alone_and_the_others_are_predicted() -> None:
    lines = "".join(f"{age},1,Ann\n" for age in range(100))
    summary, out, failures = run("age,income,name\n" + lines, "csv", release=Deadly())
    assert summary[:2] == (100, 1)
    assert failures == [(68, "churn@7 could not answer the request")]
    wanted = ["prediction", *("" if age == 66 else str(2.0 * age) for age in range(100))]
    assert [row[-1] for row in csv.reader(io.StringIO(out.decode()))] == wanted
