"""What is told of an exchange when it is over: its metrics, and its line in the access log.

Ended exchanges are put aside and accounted for in batches, at most a tenth of a second later and
always before a scrape: the same work costs a third of what it costs between two requests.
"""

import asyncio
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from gateway.errors import ErrorCode, Layer
from gateway.http.fields import RawFields
from gateway.http.trace_context import trace_id_of
from gateway.observe.access_log import AccessLog, Record
from gateway.observe.line_budget import LineBudget
from gateway.observe.metrics import ServiceMetrics, upstream_error_of
from gateway.proxy.admission import Admission
from gateway.proxy.inbound import Inbound
from gateway.proxy.rejection import layer_of
from gateway.proxy.relay import Relay

_BATCH = 64
"""Ended exchanges per batch: 0.2 to 0.4 ms of work, which no latency figure shows."""
_AT_LATEST_S = 0.1
REFUSALS_AT_ONCE = 200
"""Lines for requests that were refused as the caller's fault; what is answered is always logged."""
_REFUSALS_PER_S = 20.0
_TELL_S = 10.0
"""After which it is told how many lines were left out."""
LATEST = 50
"""How many requests are kept for people to look at."""

_PLAIN_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_ID_PREFIX = os.urandom(6).hex()
_ids = itertools.count(1)
_make_tuple = tuple.__new__
_NO_WAITS: tuple[tuple[str, float, float], ...] = ()
_GATEWAY, _CLIENT = Layer.GATEWAY, Layer.CLIENT  # looking members up is dear (Python 3.11)
_log = logging.getLogger("gateway.proxy")


class Tracer(Protocol):
    """What is asked of tracing, where it is on."""

    def begin(
        self, method: str, service: str, traceparent: bytes | None, received_at: float
    ) -> tuple[Any, bytes]:
        """Begin the span of an exchange; return it and the `traceparent` for the service."""
        ...

    def end(self, span: Any, record: Record, phases: Iterable[tuple[str, float, float]]) -> None:
        """End the span of an exchange that is over, with its parts."""
        ...


class Observation:
    """What is learned of one exchange on the way. Durations are seconds, instants as inbound's."""

    __slots__ = (
        "awaited_at",
        "connect_s",
        "credential_s",
        "ended_at",
        "error",
        "first_byte_at",
        "inbound",
        "layer",
        "metrics",
        "request_bytes",
        "request_id",
        "response_bytes",
        "retries",
        "sent_at",
        "span",
        "status",
        "traceparent",
        "upstream_request_id",
        "waited_s",
        "waits",
    )

    def __init__(self, inbound: Inbound, metrics: ServiceMetrics) -> None:
        self.inbound = inbound
        self.metrics = metrics
        """Of the service, once it is known."""
        self.request_id = ""
        self.status = 0
        """What the caller got; 0 when it left before it had one."""
        self.error = ""
        """Label of what went wrong, and whose fault it is."""
        self.layer = _GATEWAY
        self.request_bytes = 0
        self.response_bytes = 0
        self.retries = 0
        self.credential_s = 0.0
        self.connect_s = 0.0
        self.waited_s = 0.0
        """Time in which we had nothing to do but wait for the caller's body or the answer."""
        self.awaited_at = 0.0
        """Since when the rest of the body, or a token and a connection, have been awaited."""
        self.sent_at = 0.0
        """When the last byte of the request was written; 0 while it was not."""
        self.first_byte_at = 0.0
        self.ended_at = 0.0
        self.upstream_request_id = b""
        self.traceparent: bytes | None = None
        """As `RequestFields` has it."""
        self.span: Any = None
        """The tracer's own, where there is one."""
        self.waits = _NO_WAITS
        """Name, begin and end of each wait for a token or a connection."""

    @property
    def refused(self) -> bool:
        """Whether it was answered by us with an error that is the caller's fault."""
        return self.layer is _CLIENT and self.status != 0 and not self.first_byte_at

    def blame(self, code: ErrorCode) -> None:
        """Note an error of ours."""
        self.error = code.label
        self.layer = code.layer

    def note_response(self, relay: Relay) -> None:
        """Note what there is of a response."""
        self.response_bytes = relay.response_bytes
        self.first_byte_at = relay.first_byte_at
        if relay.fields is not None:
            self.upstream_request_id = relay.fields.request_id
        if not self.error and relay.status >= 400:
            self.error = upstream_error_of(relay.status)
            self.layer = layer_of(relay.vendor_code)


class Observer:
    """Accounts for exchanges, each exactly once.

    Invariants: each is counted; each has a line, but for a flood of requests that were refused,
    of which 200 at once and 20 a second have one, and the rest are told as a number.
    """

    def __init__(
        self,
        access_log: AccessLog,
        unrouted: ServiceMetrics,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        tracer: Tracer | None = None,
    ) -> None:
        """Prepare; `unrouted` counts requests that belong to no service."""
        self.tracer = tracer
        self.unrouted = unrouted
        self.wall_clock = wall_clock
        """Seconds since the epoch, for people."""
        self._access_log = access_log
        self._clock = clock
        self._latest: deque[Record] = deque(maxlen=LATEST)
        self._ended: list[Observation] = []
        self._timer: asyncio.TimerHandle | None = None
        self._refusals = LineBudget(burst=REFUSALS_AT_ONCE, per_s=_REFUSALS_PER_S)
        self._telling: asyncio.TimerHandle | None = None

    def observe(self, seen: Observation) -> None:
        """Take an exchange that has just ended."""
        seen.metrics.finished += 1
        self._ended.append(seen)
        if len(self._ended) >= _BATCH:
            self.settle()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_AT_LATEST_S, self._settle_later)

    def close(self) -> None:
        """Settle, and tell what was left out."""
        self.settle()
        if self._telling is not None:
            self._telling.cancel()
            self._tell()

    def settle(self) -> None:
        """Count and log what has ended; before a scrape, and before the end."""
        ended, self._ended = self._ended, []
        now, wall_now = self._clock(), self.wall_clock()
        records = []
        for seen in ended:
            record = _account_for(seen)
            if seen.traceparent:
                _exemplify(seen, record, seen.traceparent, wall_now - now)
            if seen.span is not None and self.tracer is not None:
                self.tracer.end(seen.span, record, _phases(seen))
            if not seen.error or not seen.refused or self._may_log(seen):
                records.append(record)
        self._latest.extend(records)
        self._access_log.write(records, now=now, wall_now=wall_now)

    def latest(self) -> list[tuple[float, Record]]:
        """Return the latest requests, newest first, each with its end in seconds since the epoch.

        What has ended is settled first.
        """
        self.settle()
        offset = self.wall_clock() - self._clock()
        return [(record.ended_at + offset, record) for record in reversed(self._latest)]

    def _settle_later(self) -> None:
        self._timer = None
        self.settle()

    def _may_log(self, seen: Observation) -> bool:
        if self._refusals.take(seen.ended_at):
            return True
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_TELL_S, self._tell)
        return False

    def _tell(self) -> None:
        self._telling = None
        _log.warning(
            "%d refused requests have no line in the access log; gateway_errors_total counts them",
            self._refusals.told(),
        )


def request_id_of(inbound: Inbound) -> str:
    """Return the caller's own `X-Request-Id` if it is plain, else a new one."""
    known = inbound.known
    if known is None:
        own = _own_id_in(inbound.fields)
    else:
        if known.request_id is None:
            known.request_id = _own_id_in(inbound.fields)
        own = known.request_id
    return own or f"{_ID_PREFIX}-{next(_ids)}"


def _own_id_in(fields: RawFields) -> str:
    for name, value in fields:
        if len(name) == 12 and name.lower() == b"x-request-id" and _PLAIN_ID.fullmatch(value):
            return value.decode("ascii")
    return ""


def trace(tracer: Tracer, seen: Observation, admission: Admission) -> Admission:
    """Begin a span; return the request with that as its parent, in place of the caller's."""
    inbound, told = seen.inbound, admission.fields.traceparent
    parent = told if told and trace_id_of(told) else None
    method = inbound.method or "HTTP"
    seen.span, told = tracer.begin(method, seen.metrics.name, parent, inbound.received_at)
    return admission.within_trace(told, joined=parent is not None)


def _phases(seen: Observation) -> Iterator[tuple[str, float, float]]:
    yield from seen.waits
    if seen.first_byte_at:
        if 0 < seen.sent_at < seen.first_byte_at:
            yield "first byte", seen.sent_at, seen.first_byte_at
        yield "relay", seen.first_byte_at, seen.ended_at
    elif seen.sent_at:
        yield "first byte", seen.sent_at, seen.ended_at


def _account_for(seen: Observation) -> Record:
    inbound, metrics = seen.inbound, seen.metrics
    duration_s = seen.ended_at - inbound.received_at
    overhead_s = duration_s - seen.waited_s - seen.credential_s - seen.connect_s
    overhead_s = max(overhead_s, 0.0)
    first_byte_s = 0.0
    if seen.status == 101 and seen.first_byte_at:
        # What is said after a switch takes hours; its handshake is what can be slow.
        metrics.duration.observe(seen.first_byte_at - inbound.received_at)
    else:
        metrics.duration.observe(duration_s)
    metrics.overhead.observe(overhead_s)
    if seen.first_byte_at and seen.sent_at:
        if seen.first_byte_at > seen.sent_at:
            first_byte_s = seen.first_byte_at - seen.sent_at
        metrics.first_byte.observe(first_byte_s)
    metrics.request_bytes += seen.request_bytes
    metrics.response_bytes += seen.response_bytes
    metrics.count_request(inbound.method, seen.status)
    if seen.error:
        metrics.count_error(seen.layer, seen.error)
    upstream_id = seen.upstream_request_id
    # `Record(…)` goes through a function of Python first: three times as dear.
    return _make_tuple(
        Record,
        (
            seen.ended_at,
            seen.request_id or request_id_of(inbound),
            metrics.name,
            inbound.method or "other",
            seen.status,
            duration_s,
            seen.credential_s,
            seen.connect_s,
            first_byte_s,
            overhead_s,
            seen.request_bytes,
            seen.response_bytes,
            seen.retries,
            seen.error,
            upstream_id.decode("ascii") if upstream_id and _PLAIN_ID.fullmatch(upstream_id) else "",
            seen.layer.value if seen.error else "",
        ),
    )


def _exemplify(
    seen: Observation, record: Record, traceparent: bytes, epoch_offset_s: float
) -> None:
    """Keep the request's trace as an example of where its durations fell."""
    trace_id = trace_id_of(traceparent)
    if trace_id is None:
        return
    metrics, at = seen.metrics, record.ended_at + epoch_offset_s
    if record.status != 101:  # else it is its handshake that was counted
        metrics.duration.exemplify(record.duration_s, trace_id, at)
    metrics.overhead.exemplify(record.overhead_s, trace_id, at)
    if record.first_byte_s:
        metrics.first_byte.exemplify(record.first_byte_s, trace_id, at)
