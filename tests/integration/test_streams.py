"""A model that yields answers in pieces: as events, as JSON lines, and whole to whoever asks so."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import salver
from tests.integration.server import Answer, Server
from tests.integration.telling import Teller
from tests.integration.watched import comes

PREDICT = "/models/teller/predict"
EVENTS = {"accept": "text/event-stream"}
LINES = {"accept": "application/jsonlines"}


class Telling:
    """A server with one worker that tells, and the model's diary."""

    def __init__(self, server: Server, diary: Path) -> None:
        self.server = server
        self._diary = diary

    def notes(self) -> list[str]:
        """What was loaded and begun so far."""
        return self._diary.with_suffix(".begun").read_text().splitlines()

    def begun(self, steps: str) -> None:
        """Return when the generator for this request has begun."""
        comes(lambda: f"begun {steps}" in self.notes())

    def ask(self, steps: str, headers: dict[str, str] | None = None) -> Answer:
        return self.server.post(PREDICT, {"steps": steps}, headers)

    def diary(self, steps: str) -> int:
        """How many pieces the generator for this request has made, once it is over."""
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            for line in self._diary.read_text().splitlines():
                asked, _, made = line.rpartition(": ")
                if asked == steps:
                    return int(made)
            time.sleep(0.02)
        raise AssertionError(f"the generator of {steps!r} is not over")


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Telling]:
    folder = tmp_path_factory.mktemp("telling")
    (folder / "files").mkdir()
    diary = folder / "seen"
    diary.touch()
    (folder / "files" / "diary").write_text(str(diary))
    registry = str(folder / "registry")
    salver.release("teller", Teller, examples=[{"steps": "3"}], files=folder / "files", registry=registry)
    with Server(Path(registry), "--workers", "1", log=folder / "log") as server:
        yield Telling(server, diary)


def _events(body: bytes) -> list[Any]:
    assert body.endswith(b"\n\n")
    return [json.loads(event.rpartition(b"data: ")[2]) for event in body.split(b"\n\n")[:-1]]


def test_pieces_come_as_events(telling: Telling) -> None:
    got = telling.ask("3", EVENTS)
    assert (got.status, got.headers["content-type"]) == (200, "text/event-stream")
    assert got.headers["x-salver-release"] == "teller@1"
    assert got.headers["cache-control"] == "no-cache"
    assert _events(got.body) == [{"text": f"{step} ", "step": step} for step in range(3)]


def test_pieces_come_as_json_lines_one_for_each_row(telling: Telling) -> None:
    got = telling.server.post(PREDICT, [{"steps": "2"}, {"steps": "1"}], LINES)
    assert got.headers["content-type"] == "application/jsonlines"
    lines = [json.loads(line) for line in got.body.splitlines()]
    assert [line["step"] for line in lines] == [0, 0, 1, 1]


def test_who_asks_for_a_whole_answer_gets_texts_put_together_and_the_last_of_the_rest(telling: Telling) -> None:
    assert telling.ask("3").json == {"text": "0 1 2 ", "step": 2}


def test_each_piece_is_sent_when_it_is_made(telling: Telling) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", telling.server.port, timeout=30)
    body = json.dumps({"steps": "200 slow"})
    connection.request("POST", PREDICT, body, {"content-type": "application/json", **EVENTS})
    response = connection.getresponse()
    assert response.readline() == b'data: {"text":"0 ","step":0}\n'
    assert "200 slow" not in Path(telling._diary).read_text()  # the generator goes on
    connection.close()
    assert telling.diary("200 slow") < 200  # it ended with its reader


def test_other_requests_are_answered_while_a_stream_goes_on(telling: Telling) -> None:
    with socket.create_connection(("127.0.0.1", telling.server.port), timeout=30) as sock:
        body = b'{"steps": "300 slow"}'
        sock.sendall(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (PREDICT.encode(), len(body), body)
        )
        assert sock.recv(16).startswith(b"HTTP/1.1 200")
        assert telling.ask("1").json == {"text": "0 ", "step": 0}
        assert "300 slow" not in telling._diary.read_text()
    assert telling.diary("300 slow") < 300


def test_a_reader_that_does_not_read_holds_up_its_own_stream(telling: Telling) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", telling.server.port))
        body = b'{"steps": "1000000"}'
        sock.sendall(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (PREDICT.encode(), len(body), body)
        )
        assert sock.recv(16).startswith(b"HTTP/1.1 200")
        for _ in range(5):
            assert telling.ask("2").status == 200
    assert telling.diary("1000000") < 500_000


def test_a_raise_after_the_first_piece_is_told_as_an_event(telling: Telling) -> None:
    first, problem = _events(telling.ask("3 raise", EVENTS).body)
    assert first == {"text": "0 ", "step": 0}
    assert problem["code"] == "model-error"
    body = telling.ask("3 raise", LINES).body
    assert json.loads(body.splitlines()[1])["error"]["code"] == "model-error"


def test_what_is_wrong_before_the_first_piece_is_an_answer_like_any_other(telling: Telling) -> None:
    got = telling.ask("none", EVENTS)
    assert (got.status, got.json["code"]) == (500, "model-error")
    got = telling.server.post(PREDICT, {"stops": "3"}, EVENTS)
    assert (got.status, got.json["code"]) == (422, "invalid-row")


def test_rows_that_are_none_fail_in_their_place_in_each_piece_and_the_others_are_answered(telling: Telling) -> None:
    bad = {"code": "invalid-row", "detail": "$[1].steps: expected str, got int"}
    got = telling.server.post(PREDICT, [{"steps": "2"}, {"steps": 3}], EVENTS)
    assert (got.status, got.headers["content-type"]) == (200, "text/event-stream")
    assert _events(got.body) == [[{"text": f"{step} ", "step": step}, {"error": bad}] for step in range(2)]
    got = telling.server.post(PREDICT, [{"steps": "2"}, {"steps": 3}], LINES)
    assert [json.loads(line) for line in got.body.splitlines()] == [
        line for step in range(2) for line in ({"text": f"{step} ", "step": step}, {"error": bad})
    ]
    got = telling.server.post(PREDICT, [{"steps": 3}], EVENTS)
    assert (got.status, len(_events(got.body))) == (200, 1)
    got = telling.server.post(f"{PREDICT}?strict=true", [{"steps": "2"}, {"steps": 3}], EVENTS)
    assert (got.status, got.json["code"]) == (422, "invalid-row")


@pytest.mark.parametrize("headers", [{}, EVENTS, LINES])
def test_a_model_that_yields_nothing_gives_an_error_however_it_is_asked(
    telling: Telling, headers: dict[str, str]
) -> None:
    got = telling.ask("0", headers)
    assert (got.status, got.json["code"]) == (500, "bad-output")


def test_a_model_that_does_not_yield_and_raises_gives_an_error_as_events_too_and_its_worker_stays(
    server: Server,
) -> None:
    workers = server.workers()
    got = server.post("/models/oracle/predict", {"key": 1, "act": "raise"}, EVENTS)
    assert (got.status, got.json["code"]) == (500, "model-error")
    got = server.post("/models/oracle/predict", {"key": 1, "act": ""}, EVENTS)
    assert (got.status, len(_events(got.body))) == (200, 1)
    assert server.workers() == workers


def test_lines_of_a_batch_job_are_one_a_row_and_events_of_a_dialect_fail_in_its_words(telling: Telling) -> None:
    got = telling.server.post("/invocations", {"instances": [{"steps": "2"}, {"steps": "1"}]}, LINES)
    assert [json.loads(line) for line in got.body.splitlines()] == [{"text": "0 1 ", "step": 1}] * 2
    got = telling.server.post("/invocations", {"instances": [{"steps": "none"}]}, EVENTS)
    assert (got.status, got.json["error_code"]) == (500, "MODEL_ERROR")


def test_a_worker_that_dies_breaks_the_answer_off_and_says_so(telling: Telling) -> None:
    first, problem = _events(telling.ask("3 die", EVENTS).body)
    assert first == {"text": "0 ", "step": 0}
    assert problem["code"] == "answer-broken-off"
    assert telling.ask("1").status == 200


def test_an_old_client_gets_its_pieces_up_to_the_end_of_the_connection(telling: Telling) -> None:
    body = b'{"steps": "2"}'
    got = telling.server.raw(
        b"POST %b HTTP/1.0\r\nhost: localhost\r\naccept: text/event-stream\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (PREDICT.encode(), len(body), body)
    )
    head, _, pieces = got.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert [piece["step"] for piece in _events(pieces)] == [0, 1]


def test_a_client_that_leaves_stops_the_generator_of_its_whole_answer(telling: Telling) -> None:
    loads = telling.notes().count("loaded")
    body = b'{"steps": "2000 slow"}'
    with socket.create_connection(("127.0.0.1", telling.server.port), timeout=30) as sock:
        sock.sendall(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (PREDICT.encode(), len(body), body)
        )
        telling.begun("2000 slow")
    assert telling.diary("2000 slow") < 2000
    assert telling.ask("1").json == {"text": "0 ", "step": 0}, "its worker is free"
    assert telling.notes().count("loaded") == loads, "and the same one"


def test_a_whole_answer_ends_at_its_deadline_and_with_it_the_generator(telling: Telling) -> None:
    loads = telling.notes().count("loaded")
    got = telling.ask("1999 slow", {"x-request-timeout-ms": "300"})
    assert (got.status, got.json["code"]) == (504, "deadline-exceeded")
    assert 0 < telling.diary("1999 slow") < 1999
    assert telling.ask("1").status == 200
    assert telling.notes().count("loaded") == loads


def test_a_stream_whose_next_piece_comes_too_late_ends_and_so_does_its_generator(telling: Telling) -> None:
    first, problem = _events(telling.ask("50 stall", {**EVENTS, "x-request-timeout-ms": "300"}).body)
    assert first == {"text": "0 ", "step": 0}
    assert problem["code"] == "deadline-exceeded"
    assert telling.diary("50 stall") < 50
