"""An identity provider: signs tokens, and serves its JWK set over https as it is told to."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER, AUDIENCE = "https://issuer.example", "salver"

Answer = tuple[int, dict[str, str], bytes]


class Signer:
    """Keys by name, and the tokens that they sign."""

    def __init__(self) -> None:
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}

    def token(self, kid: str, **claims: Any) -> str:
        """A token that this key signs; `claims` replace the usual ones."""
        usual = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600, "sub": "alice", "scope": "predict metadata"}
        return jwt.encode({**usual, **claims}, self._key(kid), "ES256", {"kid": kid})

    def jwks(self, *kids: str) -> bytes:
        """The set of these keys."""
        kind = jwt.get_algorithm_by_name("ES256")
        keys = [{**json.loads(kind.to_jwk(self._key(kid).public_key())), "kid": kid} for kid in kids]
        return json.dumps({"keys": keys}).encode()

    def _key(self, kid: str) -> ec.EllipticCurvePrivateKey:
        if kid not in self._keys:
            self._keys[kid] = ec.generate_private_key(ec.SECP256R1())
        return self._keys[kid]


class Provider:
    """Serves at https://NAME:PORT/jwks what `answer` gives; `asked` counts the requests that came."""

    def __init__(self, issued: trustme.LeafCert, answer: Callable[[], Answer], *, port: int = 0) -> None:
        self.answer = answer
        self.asked = 0
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One request."""

            def do_GET(self) -> None:
                provider.asked += 1
                status, headers, body = provider.answer()
                if not status:
                    self.wfile.write(body)  # no HTTP
                    return
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(secure)
        self._server.socket = secure.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Provider:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
