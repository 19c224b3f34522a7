"""Server reflection, v1 and v1alpha: which services there are, and the descriptors of their messages."""

from __future__ import annotations

from salver.gateway.grpc import descriptors
from salver.gateway.grpc.heads import Head
from salver.gateway.grpc.health import HEALTH
from salver.gateway.grpc.methods import SERVICE
from salver.gateway.grpc.service import Method, Service
from salver.gateway.grpc.streaming import Streaming
from salver.gateway.http2 import Connection
from salver.protocols import protobuf
from salver.protocols.protobuf import block, integer, string

VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_NOT_FOUND = 5
_BY_NAME, _BY_SYMBOL, _LIST = 26, 34, 58


def methods() -> dict[bytes, Method]:
    """The method by its path, in both versions."""
    reflection = Reflection()

    def begin(service: Service, line: Connection, number: int, head: Head) -> Asking:
        return Asking(service, line, number, head, reflection)

    return {f"/{version}/ServerReflectionInfo".encode(): Method("docs", begin) for version in VERSIONS}


class Asking(Streaming):
    """A call of a reflection client."""

    __slots__ = ("_reflection", "_seen")

    def __init__(self, service: Service, line: Connection, number: int, head: Head, reflection: Reflection) -> None:
        super().__init__(service, line, number, head)
        self._reflection = reflection
        self._seen = service.see(line, head, 0, line.now)

    def took(self, message: bytes, now: int) -> None:
        """Answer one question."""
        del now
        try:
            answer = self._reflection.answer(message)
        except protobuf.Malformed as problem:
            self.refuse("bad-protocol-body", f"the message can't be read: {problem}")
            return
        if self._seen is not None:
            self._seen.status = 200
            self._seen.bytes_in += len(message)
            self._seen.bytes_out += len(answer)
        self.line.message(self, answer)

    def over(self, code: str) -> None:
        """The call ends with this code, '' for none: tell of it."""
        seen, self._seen = self._seen, None
        self.service.tell(seen, code)


class Reflection:
    """Answers the questions of reflection clients."""

    def __init__(self) -> None:
        self._files = {"inference": descriptors.inference_file(), "grpc.health.v1": descriptors.health_file()}

    def answer(self, request: bytes) -> bytes:
        """One ServerReflectionResponse to one ServerReflectionRequest."""
        echo = block(2, request)
        for key, value in protobuf.fields(request):
            if key == _LIST:
                names = (SERVICE, HEALTH, *VERSIONS)
                return echo + block(6, b"".join(block(1, string(1, name)) for name in names))
            if key in (_BY_NAME, _BY_SYMBOL):
                file = self._file(protobuf.text(value), by_name=key == _BY_NAME)
                if file is not None:
                    return echo + block(4, block(1, file))
        return echo + block(7, integer(1, _NOT_FOUND) + string(2, "nothing is known by this name"))

    def _file(self, wanted: str, *, by_name: bool) -> bytes | None:
        for package, file in self._files.items():
            if wanted == descriptors.file_name(package) if by_name else wanted.startswith(package + "."):
                return file
        return None
