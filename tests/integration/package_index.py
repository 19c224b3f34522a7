"""A package index on this machine that answers when it is told to."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

NAME = "slowly"
WHEEL = f"{NAME}-1.0-py3-none-any.whl"


class Index(NamedTuple):
    """Its address, whether somebody has asked for the file, and leave to answer."""

    url: str
    asked: threading.Event
    answer: threading.Event


def wheel() -> bytes:
    """A package `slowly` 1.0 of one module."""
    info = f"{NAME}-1.0.dist-info"
    files = {
        f"{NAME}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": f"{NAME}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return packed.getvalue()


@contextmanager
def slow_index() -> Iterator[Index]:
    """An index that has `slowly` 1.0, and gives it out once its `answer` is set."""
    asked, answer, packed = threading.Event(), threading.Event(), wheel()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith(".whl"):
                asked.set()
                answer.wait()
                self._send("application/octet-stream", packed)
            else:
                self._send("text/html", f'<html><body><a href="/{WHEEL}">{WHEEL}</a></body></html>'.encode())

        def _send(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Index(f"http://127.0.0.1:{server.server_port}/simple", asked, answer)
    finally:
        answer.set()
        server.shutdown()
        server.server_close()
        thread.join()
