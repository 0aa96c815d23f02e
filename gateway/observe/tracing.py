"""Spans of exchanges, told to OpenTelemetry's SDK, which exports them by OTLP in its own thread.

Imported only where tracing is on: the SDK comes with the extra `otel` and takes its settings from
the environment's `OTEL_*`. Its queue is bounded; what does not fit is dropped, nobody waits.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable

import requests
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import __version__
from gateway.observe.access_log import Record

_CLOSE_S = 2.0
"""How long the end of the process may wait for spans to be taken."""
_NS = 1_000_000_000

Phase = tuple[str, float, float]
"""Name, begin and end of a part of an exchange, on the clock of `Record.ended_at`."""


class Tracer:
    """Begins a span per exchange, and ends it with its parts once they are known.

    Invariants: names and attributes come from the configuration and closed sets, never from what a
    caller or a service has written; nothing here waits for the receiver.
    """

    def __init__(self, *, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        """Begin to export to where the environment says."""
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "modelarts-gateway"}))
        # What other clients follow in the environment, proxies and .netrc, is not followed.
        session = requests.Session()
        session.trust_env = False
        self._processor = BatchSpanProcessor(OTLPSpanExporter(session=session))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("modelarts-gateway", __version__)
        self._parents = TraceContextTextMapPropagator()
        self._clock = clock
        self._wall_clock = wall_clock

    def begin(
        self, method: str, service: str, traceparent: bytes | None, received_at: float
    ) -> tuple[Span, bytes]:
        """Begin the span of an exchange; return it and the `traceparent` for the service.

        Args:
            method: of a closed set.
            service: its name.
            traceparent: the caller's; None or void: a new trace.
            received_at: instant of the exchange's begin.
        """
        carrier = {"traceparent": traceparent.decode("latin-1")} if traceparent else {}
        span = self._tracer.start_span(
            f"{method} {service}",
            self._parents.extract(carrier),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "http.route": f"/{service}",
                "gateway.service": service,
            },
            start_time=self._ns(received_at),
        )
        context = span.get_span_context()
        value = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return span, value.encode("ascii")

    def end(
        self, span: Span, record: Record, phases: Iterable[Phase], first_chunk_at: float = 0.0
    ) -> None:
        """End the span of an exchange that is over.

        Args:
            span: from `begin`.
            record: what is known of the exchange.
            phases: its parts.
            first_chunk_at: when the response's body began, an event in the span; 0: it did not.
        """
        if not span.is_recording():
            return
        context = trace.set_span_in_context(span)
        for name, began, ended in phases:
            part = self._tracer.start_span(name, context, start_time=self._ns(began))
            part.end(self._ns(ended))
        if first_chunk_at:
            span.add_event("first chunk", timestamp=self._ns(first_chunk_at))
        span.set_attribute("http.request.body.size", record.request_bytes)
        span.set_attribute("http.response.body.size", record.response_bytes)
        if record.status:
            span.set_attribute("http.response.status_code", record.status)
        if record.retries:
            span.set_attribute("http.request.resend_count", record.retries)
        if record.error:
            span.set_attribute("error.type", record.error)
            span.set_attribute("gateway.error.layer", record.layer)
            # "Span status MUST be left unset" for what the caller did wrong (HTTP conventions).
            if record.status >= 500 or (record.status < 400 and record.layer != "client"):
                span.set_status(StatusCode.ERROR, record.error)
        span.end(self._ns(record.ended_at))

    async def close(self) -> None:
        """Export what is left, for 2 s at most.

        Cancellation: safe; what is left is lost with the process.
        """
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        # A daemon: the end of the process does not wait for a receiver that hangs.
        threading.Thread(target=shut_down, name="tracing-end", daemon=True).start()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await done.wait()
        except TimeoutError:
            return

    def _ns(self, at: float) -> int:
        return int((at - self._clock() + self._wall_clock()) * _NS)
