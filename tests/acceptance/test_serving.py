"""Serving, promoting and rolling back as a person does it: what is said, what is served, what is remembered."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.acceptance.conftest import Terminal
from tests.ports import free_port

BODY = b'{"bill_length_mm": 39.1, "bill_depth_mm": 18.7, "flipper_length_mm": 181, "body_mass_g": 3750}'


def answering_release(port: int) -> str:
    """Which release answers a prediction."""
    url = f"http://127.0.0.1:{port}/models/penguins/predict"
    request = urllib.request.Request(url, BODY, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.headers["x-salver-release"])


@contextmanager
def serving(terminal: Terminal, *models: str) -> Iterator[int]:
    """`salver serve` in the background, stopped with Control-C; it must exit with 0."""
    port = free_port()
    flags = ["--port", str(port), "--admin-port", str(free_port()), "--drain-delay", "0"]
    command = [sys.executable, "-P", "-m", "salver", "serve", *models, *flags]
    process = subprocess.Popen(command, cwd=terminal.folder, env=terminal.environ)
    try:
        ends = time.monotonic() + 90
        while time.monotonic() < ends:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/ready", timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_promote_and_rollback_say_when_the_server_follows(own_penguins: Terminal) -> None:
    with serving(own_penguins, "penguins") as port:
        assert answering_release(port) == "penguins@1"
        said = own_penguins.ok("promote", "penguins@2", "--why", "it is smaller")
        assert re.fullmatch(
            rf"penguins@2 is live \(was penguins@1\) · effective on 127\.0\.0\.1:{port} after \d+\.\d\d s\n", said
        )
        assert answering_release(port) == "penguins@2"
        said = own_penguins.ok("rollback", "penguins")
        assert said.startswith(f"penguins@1 is live (was penguins@2) · effective on 127.0.0.1:{port} after ")
        assert answering_release(port) == "penguins@1"
    history = own_penguins.json("history", "penguins")
    assert [(each["seq"], each["action"], each["live"], each["why"]) for each in history] == [
        (3, "rollback", 1, ""),
        (2, "promote", 2, "it is smaller"),
        (1, "first", 1, "the first release of a model goes live by itself"),
    ]


def test_a_release_the_server_refuses_exits_with_4_and_the_old_one_serves_on(own_penguins: Terminal) -> None:
    manifest = own_penguins.json("show", "penguins@2")["manifest"]
    (digest,) = (file["sha256"] for file in manifest["files"] if file["path"] == "model/weights.npz")
    blob = own_penguins.folder / "registry" / "blobs" / "sha256" / digest[:2] / digest[2:]
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with serving(own_penguins) as port:
        said = own_penguins.salver("promote", "penguins@2")
        assert said.code == 4
        assert "error[corrupt]: the server on 127.0.0.1:" in said.err
        assert "refused penguins@2; penguins@1 serves on" in said.err
        assert answering_release(port) == "penguins@1"
    history = own_penguins.json("history", "penguins")
    assert [(each["action"], each["live"]) for each in history] == [("fallback", 1), ("promote", 2), ("first", 1)]
    assert history[0]["actor"] == "automatic"


def test_without_a_server_the_route_is_written_and_that_is_said(own_penguins: Terminal) -> None:
    assert own_penguins.ok("promote", "penguins@latest") == (
        "penguins@2 is live (was penguins@1) · no server on this machine follows this registry\n"
    )
    assert own_penguins.ok("promote", "penguins@2").startswith("penguins@2 is live already")
    assert own_penguins.json("rollback", "penguins", "--to", "1")["live"] == "penguins@1"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["promote", "penguins"], 2, "error[bad-name]: 'penguins' names a model, not a release"),
        (["promote", "penguins@9"], 3, "hint: penguins has 1, 2"),
        (["rollback", "penguins"], 4, "penguins@1 is the only release of penguins that was ever live"),
        (["rollback", "penguins", "--to", "2"], 4, "hint: releases that were: 1"),
        (["serve", "pinguins"], 3, "hint: did you mean penguins?"),
    ],
)
def test_a_move_that_makes_no_sense_is_refused_with_what_would(
    penguins: Terminal, arguments: list[str], code: int, message: str
) -> None:
    said = penguins.salver(*arguments)
    assert message in said.err
    assert (said.code, said.out) == (code, "")


def test_a_taken_port_is_named(penguins: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        said = penguins.salver("serve", "--port", str(port), "--admin-port", "0")
        assert said.code == 2
        assert f"port {port} on 127.0.0.1 is in use" in said.err


def test_doctor_proves_a_release_and_names_what_is_wrong(own_penguins: Terminal) -> None:
    (own_penguins.folder / "salver.toml").write_text(f"[serve]\nport = {free_port()}\nadmin_port = {free_port()}\n")
    checks = {each["name"]: each for each in own_penguins.json("doctor", "penguins@2")}
    assert [name for name, each in checks.items() if not each["ok"]] == []
    assert checks["golden rows"]["found"].endswith("reproduced in a clean worker")
    assert checks["registry"]["found"].endswith("1 model")
    with serving(own_penguins) as port:
        servers = {each["name"]: each for each in own_penguins.json("doctor")}["servers"]
        assert f"{port}: penguins@1 ready" in servers["found"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (own_penguins.folder / "salver.toml").write_text(f"[serve]\nport = {port}\nadmin_port = {free_port()}\n")
        said = own_penguins.salver("doctor")
        assert said.code == 4
        assert f"fail  port          {port} on 127.0.0.1 is taken by another program" in said.out
