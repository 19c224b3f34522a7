"""nginx: as a strict proxy in front of servers, set up as the guide says, and as a server with settings of its own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.ports import free_port

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "production.md"
NOBODY = "  server 127.0.0.1:9 down;\n"
AROUND = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 10000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 64m;
  proxy_max_temp_file_size 0;
{said}
}}
"""


def recommended(ports: dict[str, int], upstream: dict[str, Sequence[int]]) -> str:
    """What the guide says, with these ports in place of its own; a group without servers answers nothing."""
    found = re.search(r"```nginx\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    text = found[1]
    for name, servers in upstream.items():
        lines = (
            "".join(f"  server 127.0.0.1:{port} max_fails=0;\n" for port in servers) or "  server 127.0.0.1:9 down;\n"
        )
        text, count = re.subn(rf"(upstream {name} {{\n)(?:  server [^\n]*\n)+", rf"\g<1>{lines}", text)
        assert count == 1, name
    for listen, port in ports.items():
        text, count = re.subn(rf"listen {listen}\b", f"listen 127.0.0.1:{port}", text)
        assert count == 1, listen
    return text


class Nginx:
    """nginx with these settings for HTTP, which listen on `port`."""

    def __init__(self, folder: Path, port: int, said: str) -> None:
        folder.mkdir()
        self.port = port
        self.log = folder / "error.log"
        self._file = folder / "nginx.conf"
        self._file.write_text(AROUND.format(folder=folder, said=said))

    def __enter__(self) -> Self:
        found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        assert found is not None, "nginx is not installed"
        self._process = subprocess.Popen([found, "-c", str(self._file), "-e", str(self.log)])
        while True:
            assert self._process.poll() is None, self.log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except OSError:
                time.sleep(0.02)

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(20)


class Proxy(Nginx):
    """A proxy in front of servers on these ports; `port` is its own, `grpc_port` that for gRPC."""

    def __init__(self, folder: Path, *upstream: int, grpc: Sequence[int] = ()) -> None:
        port, self.grpc_port = free_port(), free_port()
        ports, servers = {"80": port, "81": self.grpc_port}, {"salver": upstream, "salver_grpc": grpc}
        super().__init__(folder, port, recommended(ports, servers))
