"""Which wire format reads a body and which writes its answer: content negotiation, pure and free of numpy.

An endpoint is what a path speaks: `native`, `v2`, `v1`, `invocations`, `torchserve`. Its own JSON is the default for
bodies and answers; rows in other forms are read by a format of their own, told as options which endpoint they came to
and which form the answer has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from salver.errors import SalverError, error
from salver.frames import Form

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
OWN = "json"
"""The form of a body that an endpoint defines itself."""

FORMS: Mapping[str, tuple[str, ...]] = {
    OWN: (JSON, "text/json"),
    "csv": ("text/csv", "application/csv"),
    "jsonlines": ("application/jsonlines", "application/x-ndjson", "application/x-jsonlines", "application/jsonl"),
    "npy": ("application/x-npy",),
    "npz": ("application/x-npz",),
    "recordio": ("application/x-recordio-protobuf",),
    "libsvm": ("text/libsvm", "text/x-libsvm"),
    "arrow": ("application/vnd.apache.arrow.stream",),
    "events": (EVENT_STREAM,),
}
"""The media types of each form; the first is the one answers name."""
ROWS = (OWN, "csv", "jsonlines", "npy", "npz", "arrow", "recordio")
READ_ONLY = ("libsvm",)
"""Forms that hold rows of numbers and no answers."""
ENDPOINTS: Mapping[str, tuple[str, ...]] = {
    "native": ROWS,
    "invocations": (*ROWS, *READ_ONLY),
    "torchserve": (OWN,),
    "v1": (OWN,),
    "v2": (OWN,),
}
"""The forms that each endpoint reads, and writes where they are not for reading only."""
EVENTS = "events"
STREAMING = ("native", "invocations")
"""The endpoints that may answer in events as well."""
BINARY = "application/octet-stream"
RAW = "raw"
"""The option `body` of TorchServe's requests whose body is the only input itself, of bytes."""
_FORM_OF = {media_type: form for form, types in FORMS.items() for media_type in types}


def negotiate(endpoint: Form, content_type: str, accept: str, header_length: str = "") -> Form | SalverError:
    """The form to ask a worker with, or the error (415, 406) that names what the endpoint supports.

    `endpoint` is the form of the path. `header_length` is the value of Inference-Header-Content-Length: the body then
    holds binary tensors.
    """
    name = endpoint.protocol
    options = dict(endpoint.options or {})
    if header_length and name == "v2":
        kind = _bare(content_type)
        if kind not in ("", BINARY, JSON):
            return _unsupported(content_type, (BINARY, JSON))
        return Form(name, {**options, "header_length": header_length})
    if name == "torchserve" and _is_plain_bytes(content_type):
        content_type, options["body"] = "", RAW
    supported = ENDPOINTS[name]
    read = _reads(content_type, name)
    if read not in supported:
        return _unsupported(content_type, [FORMS[form][0] for form in supported])
    writes = [form for form in supported if form not in READ_ONLY]
    if name in STREAMING:
        writes.append(EVENTS)
    written = preferred(accept, writes)
    if written is None and not (name == "v2" and BINARY in accept.lower()):
        return error(
            "not-acceptable",
            f"accept {accept[:100]!r} names nothing that can be answered here",
            hint=f"answers can be {', '.join(FORMS[form][0] for form in writes)}",
        )
    if written not in (OWN, None):
        options["answer"] = str(written)
    if read == OWN:
        return Form(name, options or None)
    if read == "csv" and (header := _parameters(content_type).get("header")):
        options["header"] = header  # whether the first record names the columns (RFC 7111)
    return Form(read, {**options, "endpoint": name})


def preferred(accept: str, supported: Sequence[str]) -> str | None:
    """The supported form that an Accept header likes best, the endpoint's own where it says nothing; None for none."""
    best, weight = None, 0.0
    for entry in accept.lower().split(",") if accept.strip() else ["*/*"]:
        kind, _, parameters = entry.partition(";")
        kind = kind.strip()
        quality = _quality(parameters)
        if kind in ("*/*", "application/*"):
            found: str | None = OWN
        elif kind == "text/*":
            found = "csv"
        else:
            found = OWN if kind.endswith("+json") else _FORM_OF.get(kind)
        if found in supported and quality > weight:
            best, weight = found, quality
    return best


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _is_plain_bytes(content_type: str) -> bool:
    kind = _bare(content_type)
    return kind == BINARY or kind.partition("/")[0] in ("image", "audio", "video")


_UNSAID = ("", "application/x-www-form-urlencoded")
"""What `curl -d` and its like name where nothing is said, and send JSON."""


def _reads(content_type: str, endpoint: str) -> str:
    """The form of a body, '' for one that no format reads; text must be UTF-8."""
    kind, parameters = _bare(content_type), _parameters(content_type)
    if parameters.pop("charset", "utf-8") not in ("utf-8", "utf8"):
        return ""
    if parameters.pop("header", "present") not in ("present", "absent") or (parameters and endpoint == "invocations"):
        return ""
    if kind in _UNSAID or kind.endswith("+json") or (kind == BINARY and endpoint == "v2"):
        return OWN  # the last: what Triton's asyncio client names for JSON
    return _FORM_OF.get(kind, "")


def _parameters(content_type: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in content_type.lower().split(";")[1:] if part.strip()]
    return {name.strip(): value.strip().strip('"') for name, _, value in pairs}


def _bare(content_type: str) -> str:
    return content_type.lower().partition(";")[0].strip()


def _unsupported(content_type: str, supported: Sequence[str]) -> SalverError:
    return error(
        "unsupported-media-type",
        f"content-type {content_type[:100]!r} is not accepted here",
        hint=f"send {', '.join(supported)}{'; text in UTF-8' if JSON in supported else ''}",
    )
