"""The port every wire format fulfils: bytes ⇄ columns, one format per file, found by entry point (`salver.protocols`).

A codec works on a whole batch of requests at once, so that decoding and encoding cost a few calls a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from msgspec import Struct

from salver.errors import SalverError
from salver.signature import Signature

if TYPE_CHECKING:  # the gateway imports the numpy-free parts of this package
    from salver.frameworks import Columns

Options = Mapping[str, str]
"""What the gateway read from the request line and headers, such as `strict` or `version`."""


class Subject(NamedTuple):
    """The release a codec speaks for: what answers have to name."""

    model: str
    number: int
    framework: str
    signature: Signature


class Part(Struct):
    """One request of a batch: where its valid rows lie in the batch's columns, and what is wrong with the others.

    `start` and `count` give its valid rows within `Decoded.columns`; `rows` counts all its rows, and `errors` maps the
    index of each invalid row (within the request) to its error. `failure` is set where the whole request is refused.
    `context` is the codec's own: whatever it needs to encode the answer.
    """

    start: int = 0
    count: int = 0
    rows: int = 0
    context: Any = None
    errors: dict[int, SalverError] = {}
    failure: SalverError | None = None


class Decoded(Struct, frozen=True):
    """A batch, decoded: the columns of all valid rows of all requests, how many they are, and one part per request.

    Where every request is one valid row, `rows` may be set: it writes the outputs as the body of each row's answer,
    with status 200 in JSON. That saves an `Encoded` per request. `extra`, if set, counts the fields that the signature
    does not have in the requests that are not refused; it is slow, so callers call it, once, after the answers.
    """

    columns: Columns
    count: int
    parts: list[Part]
    rows: Callable[[Columns], list[bytes]] | None = None
    extra: Callable[[], int] | None = None


class Encoded(Struct, frozen=True, gc=False):
    """One answer: HTTP status, body, media type, how many of its rows failed, and the error's code or ''.

    `headers` are further header lines that the format asks for, each with its line end.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    row_errors: int = 0
    code: str = ""
    headers: str = ""


class Codec(Protocol):
    """Decodes and encodes one wire format for one release."""

    def decode(self, bodies: Sequence[bytes], options: Options | None = None) -> Decoded:
        """Read a batch of request bodies; never raises for a bad body, its part says what is wrong."""
        ...

    def encode(self, decoded: Decoded, outputs: Columns, failures: Mapping[int, SalverError]) -> list[Encoded]:
        """Write one answer per part. `outputs` has `decoded.count` rows; those in `failures` hold no answer."""
        ...


class WireFormat(Protocol):
    """One wire format: compiles a release's signature to a codec once, at load."""

    name: str

    def codec(self, subject: Subject) -> Codec:
        """The codec of this format for one release."""
        ...
