"""nginx as a strict proxy in front of servers, with connections that it keeps."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.integration.server import free_port

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 64m;
  client_body_buffer_size 64m;
  proxy_max_temp_file_size 0;
  upstream salver {{ {servers} keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_next_upstream error timeout http_503 non_idempotent;
    location / {{ proxy_pass http://salver; }}
  }}
}}
"""


class Nginx:
    """A proxy in front of servers on these ports; `port` is its own."""

    def __init__(self, folder: Path, *upstream: int) -> None:
        folder.mkdir()
        self.port = free_port()
        self._log = folder / "error.log"
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in upstream)
        self._file = folder / "nginx.conf"
        self._file.write_text(CONFIGURATION.format(folder=folder, servers=servers, port=self.port))

    def __enter__(self) -> Nginx:
        found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        assert found is not None, "nginx is not installed"
        self._process = subprocess.Popen([found, "-c", str(self._file), "-e", str(self._log)])
        while True:
            assert self._process.poll() is None, self._log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except OSError:
                time.sleep(0.02)

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(20)
