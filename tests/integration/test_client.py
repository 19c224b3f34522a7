"""The clients against a real server, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from salver.client.blocking import Client
from salver.client.concurrent import AsyncClient
from salver.errors import Busy, UserError
from tests.ports import free_port

PROJECT = Path(__file__).parents[2] / "examples" / "project"
ROW = {"bill_length_mm": 39.1, "bill_depth_mm": 18.7, "flipper_length_mm": 181, "body_mass_g": 3750}
ROWS = [ROW, dict.fromkeys(ROW), {**ROW, "flipper_length_mm": 217, "body_mass_g": 5400, "bill_depth_mm": 14.2}]
SPECIES = ["Adelie", "Chinstrap", "Gentoo"]


def wait_ready(url: str) -> None:
    ends = time.monotonic() + 90
    while time.monotonic() < ends:
        try:
            urllib.request.urlopen(f"{url}/healthz/ready", timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{url} did not become ready")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The example project, released and served."""
    folder = tmp_path_factory.mktemp("client")
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    environ = os.environ | {"SALVER_REGISTRY": str(folder / "registry"), "SALVER_CACHE": str(folder / "cache")}
    salver = [sys.executable, "-P", "-m", "salver"]
    for command in ([sys.executable, "train.py"], [*salver, "release"]):
        subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
    port = free_port()
    flags = ["--port", str(port), "--admin-port", "0", "--workers", "1", "--drain-delay", "0"]
    process = subprocess.Popen([*salver, "serve", *flags], cwd=folder, env=environ)
    try:
        wait_ready(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server, timeout=30.0) as client:
        yield client


def test_a_row_gets_a_value_with_the_release_that_gave_it(client: Client) -> None:
    answer = client.model("penguins").predict(ROW)
    assert answer.prediction == "Adelie"
    assert 0.9 < answer["confidence"] <= 1.0
    assert answer.release == "penguins@1"
    assert len(answer.prediction_id) == 36


def test_a_list_and_a_frame_get_the_same_answers_in_their_order(client: Client) -> None:
    penguins = client.model("penguins")
    listed, framed = penguins.predict(ROWS), penguins.predict(pd.DataFrame(ROWS))
    assert listed.prediction == framed.prediction == SPECIES
    assert listed.rows == framed.rows
    assert penguins.predict([]).rows == []


def test_the_client_knows_what_the_server_serves(client: Client) -> None:
    (model,) = client.models()
    assert (model.name, model.ready) == ("penguins", True)
    description = client.model("penguins").describe()
    assert [field.name for field in description.signature.inputs] == list(ROW)
    assert description.live is not None
    assert description.live["release"] == "penguins@1"


def test_rows_that_do_not_fit_raise_every_problem_at_once(client: Client) -> None:
    with pytest.raises(UserError) as caught:
        client.model("penguins").predict([ROW, {**ROW, "body_mass_g": "heavy"}, {}])
    assert caught.value.code == "invalid-row"
    assert "nothing was sent" in caught.value.message
    text = "\n".join(caught.value.details)
    assert "[1].body_mass_g" in text
    assert "[2]" in text


def test_a_pinned_release_answers_and_one_that_is_not_loaded_is_named(client: Client) -> None:
    assert client.model("penguins@1").predict(ROW).prediction == "Adelie"
    with pytest.raises(UserError) as caught:
        client.model("penguins@2").predict(ROW)
    assert caught.value.code == "release-not-loaded"


def test_an_unknown_model_is_the_servers_own_error(client: Client) -> None:
    with pytest.raises(UserError) as caught:
        client.model("pinguins").predict(ROW)
    assert caught.value.code == "no-such-model"


def test_many_tasks_share_one_async_client_and_none_gets_the_answer_of_another(server: str) -> None:
    async def ask_all() -> list[Any]:
        async with AsyncClient(server, timeout=60.0) as client:
            penguins = client.model("penguins")
            await penguins.describe()
            return await asyncio.gather(*(penguins.predict(ROWS[i % 3]) for i in range(90)))

    answers = asyncio.run(ask_all())
    assert [answer.prediction for answer in answers] == SPECIES * 30
    assert len({answer.prediction_id for answer in answers}) == 90


@contextmanager
def answering(*responses: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these responses in turn, the last one for ever; and what it was asked."""
    asked: list[str] = []

    class Scripted(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = responses[min(len(asked), len(responses) - 1)]
            asked.append(self.path)
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Stay quiet."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}", asked
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


FULL = (503, {"retry-after": "0"}, b'{"code": "overloaded", "detail": "the queue is full"}')
FINE = (200, {}, b'{"models": []}')


def test_a_refused_request_is_sent_again_and_no_more_often_than_agreed() -> None:
    with answering(FULL, FULL, FINE) as (url, asked), Client(url) as client:
        assert client.models() == []
        assert len(asked) == 3
    with answering(FULL) as (url, asked), Client(url) as client:
        with pytest.raises(Busy, match="the queue is full"):
            client.models()
        assert len(asked) == 4


def test_the_async_client_retries_the_same_way() -> None:
    async def ask(url: str) -> list[Any]:
        async with AsyncClient(url) as client:
            return await client.models()

    with answering(FULL, FINE) as (url, asked):
        assert asyncio.run(ask(url)) == []
        assert len(asked) == 2


def test_a_broken_connection_and_an_absent_server_are_told_apart_from_refusals() -> None:
    with answering((0, {}, b"")) as (url, asked), Client(url) as client:
        with pytest.raises(Busy, match="the connection broke") as caught:
            client.models()
        assert caught.value.code == "no-server"
        assert len(asked) == 1
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(Busy, match="nothing listens there"):
        client.models()


def test_a_silent_server_is_given_up_on_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url, timeout=0.2) as client, pytest.raises(Busy) as caught:
            client.models()
    assert caught.value.code == "deadline-exceeded"


def test_a_wait_that_the_deadline_does_not_allow_is_not_begun() -> None:
    later = (503, {"retry-after": "3"}, FULL[2])
    with answering(later) as (url, asked), Client(url, timeout=1.0) as client:
        with pytest.raises(Busy):
            client.models()
        assert len(asked) == 1
