"""Traces: OpenTelemetry spans of predictions, sent as OTLP over HTTP from a thread of the SDK.

A span that the caller decided on is kept as the caller said; of all others a share is, by chance. The phases of a
request are those of its batch, placed so that they end when its answer arrived.
"""

from __future__ import annotations

import logging
import time
from random import random
from typing import Any
from urllib.parse import urlsplit

from salver import __version__
from salver.dispatch.call import Call
from salver.errors import error
from salver.frames import Answers
from salver.gateway.seen import Seen, Span
from salver.metrics import PHASES

SEND_TIMEOUT = 5
"""Seconds that a collector gets to take spans."""
EVERY_MS = 1000
OTLP_PATH = "/v1/traces"


class Tracer:
    """Begins and ends spans. Spans that the collector does not take in time are dropped."""

    def __init__(self, endpoint: str, share: float) -> None:
        require()
        from opentelemetry import context, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk import resources
        from opentelemetry.sdk import trace as sdk
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import DEFAULT_ON
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = resources.Resource.create({"service.name": "salver", "service.version": __version__})
        self._share = share  # of what begins here: the SDK keeps all of that, and what callers keep
        self._provider = sdk.TracerProvider(sampler=DEFAULT_ON, resource=named)
        exporter = OTLPSpanExporter(endpoint=address(endpoint), timeout=SEND_TIMEOUT)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EVERY_MS))
        self._tracer = self._provider.get_tracer("salver.gateway", __version__)
        self._extract = TraceContextTextMapPropagator().extract
        self._trace = trace
        self._nothing = context.Context()

    def follows(self, traceparent: bytes) -> bool:
        """Whether a request may be followed: where its caller says so, maybe, and where chance does."""
        return bool(traceparent) or random() < self._share

    def begin(self, seen: Seen, call: Call, traceparent: bytes, tracestate: bytes) -> None:
        """Begin the span of a request that may be followed and goes to a worker; none where nobody follows it."""
        trace, context = self._trace, self._nothing
        if traceparent:
            carrier = {"traceparent": traceparent.decode("latin-1"), "tracestate": tracestate.decode("latin-1")}
            context = self._extract(carrier, self._nothing)
            if not trace.get_current_span(context).get_span_context().is_valid and not self.follows(b""):
                return
        offset = time.time_ns() - time.monotonic_ns()
        inner = self._tracer.start_span(
            f"predict {seen.release.partition('@')[0]}",
            context,
            kind=trace.SpanKind.SERVER,
            start_time=seen.began + offset,
        )
        own = inner.get_span_context()
        trace_id = f"{own.trace_id:032x}"
        call.trace = f"00-{trace_id}-{own.span_id:016x}-{own.trace_flags:02x}"
        seen.span = Span(trace_id, offset, inner)

    def end(self, seen: Seen, batch: Answers | None, now: int) -> None:
        """The request ended at `now`; `batch` is the model call that answered it, where one did."""
        if seen.span is None or not seen.span.inner.is_recording():
            return
        inner, offset = seen.span.inner, seen.span.offset
        inner.set_attributes(
            {
                "http.request.method": seen.method,
                "url.path": seen.path,
                "client.address": seen.client,
                "http.response.status_code": seen.status,
                "salver.model": seen.release.partition("@")[0],
                "salver.release": seen.release,
                "salver.prediction_id": seen.prediction_id,
                "salver.rows": seen.rows,
            }
        )
        if seen.code:
            inner.set_attribute("error.type", seen.code)
        if seen.status >= 500:
            inner.set_status(self._trace.StatusCode.ERROR, seen.code)
        within = self._trace.set_span_in_context(inner, self._nothing)
        if seen.call is not None and seen.call.sent:
            queue = self._tracer.start_span("queue", within, start_time=seen.began + offset)
            queue.end(seen.call.sent + offset)
        if batch is not None and batch.decode_ns:
            self._phases(batch, within, now + offset)
        inner.end(now + offset)

    def _phases(self, batch: Answers, within: Any, ended: int) -> None:
        """The spans of a batch's phases, one after the other up to its end."""
        took = (batch.decode_ns, batch.predict_ns, batch.encode_ns)
        at = ended - sum(took)
        attributes = {"salver.batch": batch.batch, "salver.batch.requests": len(batch.ids) + len(batch.replies)}
        for name, length in zip(PHASES, took, strict=True):
            self._tracer.start_span(name, within, attributes=attributes, start_time=at).end(at + length)
            at += length

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def address(endpoint: str) -> str:
    """Where spans go: OTLP's usual path, where the endpoint names none."""
    return endpoint.rstrip("/") + OTLP_PATH if urlsplit(endpoint).path in ("", "/") else endpoint


def require() -> None:
    """Raise `missing-extra` where the SDK or its exporter is not installed."""
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace
    except ImportError:
        raise error("missing-extra", "traces need OpenTelemetry's SDK", hint="pip install 'salver[otel]'") from None
    del opentelemetry
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)  # its warnings repeat what callers send
