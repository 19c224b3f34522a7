"""Runs a page of the documentation as its reader would: files are written, commands run, servers started.

The words behind the language of a fenced block say what happens to it:

    ```python file=train.py     is written to that file; so is any language
    ```bash                     runs, and must succeed
    ```bash server              is started and stays until the page ends; the next block waits until it is ready
    ```text output              is what the block before must have printed; `...` stands for anything

Other blocks (`sh`, `json`, …) are for reading. The default ports in a page become free ones.
"""

from __future__ import annotations

import contextlib
import doctest
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.ports import free_port

FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
READY_LIMIT = 120.0
BLOCK_LIMIT = 300.0


class Block(NamedTuple):
    """A fenced block: its line on the page, language, the words behind it, and its text."""

    line: int
    language: str
    words: tuple[str, ...]
    text: str


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = []
    for match in FENCE.finditer(page):
        indent, language, words, text = match.groups()
        plain = "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
        found.append(Block(page.count("\n", 0, match.start()) + 1, language, tuple(words.split()), plain))
    return found


def run_page(path: Path, folder: Path) -> int:
    """Do what the page at `path` says, in `folder`; returns how many blocks did something."""
    ports = {"8080": str(free_port()), "8081": str(free_port()), "8082": str(free_port())}
    environment = reader_environment(folder, ports)
    done, printed = 0, ""
    with contextlib.ExitStack() as servers:
        for block in blocks(path.read_text("utf-8")):
            where = f"{path.name}:{block.line}"
            text = re.sub(r"(?<=[: =])(808[012])\b", lambda match: ports[match[1]], block.text)
            names = [word.removeprefix("file=") for word in block.words if word.startswith("file=")]
            if names:
                target = folder / names[0]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, "utf-8")
            elif block.language == "bash" and "server" in block.words:
                servers.enter_context(server(text, folder, environment, where))
            elif block.language == "bash":
                printed = run(text, folder, environment, where)
            elif "output" in block.words:
                check_output(block.text, re.sub("|".join(ports.values()), _original(ports), printed), where)
            else:
                continue
            done += 1
    return done


def run(text: str, folder: Path, environment: dict[str, str], where: str) -> str:
    """Run one block; its output, or a failure that shows it."""
    command = ["bash", "-euo", "pipefail", "-c", text]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=BLOCK_LIMIT, check=False
    )
    shown = f"{where}: exit status {ended.returncode}\n{text}\n{ended.stdout}\n{ended.stderr}"
    assert ended.returncode == 0, shown
    return ended.stdout


@contextlib.contextmanager
def server(text: str, folder: Path, environment: dict[str, str], where: str) -> Iterator[None]:
    """Start one block, wait until what it starts is ready, and stop it as Control-C would; it must end well."""
    log = folder / f".server-{len(list(folder.glob('.server-*')))}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", "exec " + text.strip()], cwd=folder, env=environment, stdout=output, stderr=output
        )
        try:
            wait_until_ready(process, environment["SALVER_SERVE_PORT"], where, log)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            status = process.wait(60)
    assert status == 0, f"{where}: the server ended with {status}\n{log.read_text()}"


def wait_until_ready(process: subprocess.Popen[bytes], port: str, where: str, log: Path) -> None:
    """Poll the readiness page; fails with the server's output."""
    deadline = time.monotonic() + READY_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError(f"{where}: the server did not become ready\n{log.read_text()}")


def check_output(expected: str, printed: str, where: str) -> None:
    """Compare as doctest does: `...` stands for anything, runs of white space are one."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    same = doctest.OutputChecker().check_output(expected, printed, flags)
    assert same, f"{where}: the page promises\n{expected}\nbut the block before printed\n{printed}"


def reader_environment(folder: Path, ports: dict[str, str]) -> dict[str, str]:
    """What a reader's shell has: our commands first on the path, nothing of Salver set but ports and cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SALVER_")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SALVER_SERVE_PORT": ports["8080"],
        "SALVER_SERVE_GRPC_PORT": ports["8081"],
        "SALVER_SERVE_ADMIN_PORT": ports["8082"],
        "SALVER_CACHE": str(folder / ".cache"),
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }


def _original(ports: dict[str, str]) -> Callable[[re.Match[str]], str]:
    back = {free: known for known, free in ports.items()}
    return lambda match: back[match[0]]
