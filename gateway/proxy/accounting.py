"""How an exchange is accounted for when it is over: its metrics, its line in the access log.

Ended exchanges are put aside and accounted for in batches, at most a tenth of a second later and
always before a scrape: the same work costs a third of what it costs between two requests.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from gateway.errors import Layer
from gateway.http.request_id import is_plain_id
from gateway.http.trace_context import trace_id_of
from gateway.observe.access_log import AccessLog, Record
from gateway.observe.line_budget import LineBudget
from gateway.observe.service_metrics import ServiceMetrics
from gateway.proxy.admission import Admission
from gateway.proxy.body_watch import UnusualBody
from gateway.proxy.observation import Observation
from gateway.proxy.usage import usage_in

_BATCH: Final = 64
"""Ended exchanges in a batch, with those that end in the same turn: 0.2 to 0.4 ms of work."""
SETTLED_AT_ONCE: Final = 256
"""Where thousands end in a turn of the loop, as clients of a process that has died do."""
_AT_LATEST_S: Final = 0.1
REFUSALS_AT_ONCE: Final = 200
"""Lines for requests that were refused as the caller's fault; what is answered is always logged."""
_REFUSALS_PER_S: Final = 20.0
_TELL_S: Final = 10.0
"""After which it is told how many lines were left out."""
LATEST: Final = 50
"""How many requests are kept for people to look at."""

_CLIENT: Final = Layer.CLIENT  # looking members up is dear (Python 3.11)
_log: Final = logging.getLogger("gateway.proxy")


class Tracer(Protocol):
    """What the proxy asks of tracing, where it is on."""

    def begin(
        self, method: str, service: str, traceparent: bytes | None, received_at: float
    ) -> tuple[Any, bytes]:
        """Begin the span of an exchange; return it and the `traceparent` for the service."""
        ...

    def end(
        self,
        span: Any,
        record: Record,
        phases: Iterable[tuple[str, float, float]],
        first_chunk_at: float,
    ) -> None:
        """End the span of an exchange that is over, with its parts and its first chunk, if any."""
        ...


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
        self._failed: deque[Record] = deque(maxlen=LATEST)
        self._ended: list[Observation] = []
        self._timer: asyncio.TimerHandle | None = None
        self._refusals = LineBudget(burst=REFUSALS_AT_ONCE, per_s=_REFUSALS_PER_S)
        self._telling: asyncio.TimerHandle | None = None

    def observe(self, seen: Observation) -> None:
        """Account, soon, for an exchange that has just ended."""
        seen.metrics.finished += 1
        self._ended.append(seen)
        if len(self._ended) == _BATCH:
            # Not at once: the loop writes this response only when we have returned.
            asyncio.get_running_loop().call_soon(self._settle_some)
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
        self._account(ended)

    def _account(self, ended: list[Observation]) -> None:
        now, wall_now = self._clock(), self.wall_clock()
        offset_s = wall_now - now
        records = []
        for seen in ended:
            record = _record_of(seen)
            _count(seen, record, offset_s)
            if seen.span is not None and self.tracer is not None:
                self.tracer.end(
                    seen.span,
                    record,
                    _phases(seen),
                    _first_chunk_at(seen),
                )
            if not seen.error:
                records.append(record)
            elif not _is_refusal(seen) or self._may_log(seen):
                records.append(record)
                self._failed.append(record)
        self._latest.extend(records)
        self._access_log.write(records, now=now, wall_now=wall_now)

    def latest(self, *, failed: bool = False) -> list[tuple[float, Record]]:
        """Return the latest requests, newest first, each with its end in seconds since the epoch.

        What has ended is settled first. `failed`: the latest of those that failed.
        """
        self.settle()
        offset = self.wall_clock() - self._clock()
        kept = self._failed if failed else self._latest
        return [(record.ended_at + offset, record) for record in reversed(kept)]

    def _settle_later(self) -> None:
        self._timer = None
        self._settle_some()

    def _settle_some(self) -> None:
        """Settle a part; the rest in the next turns of the loop."""
        ended, self._ended = self._ended[:SETTLED_AT_ONCE], self._ended[SETTLED_AT_ONCE:]
        if self._ended:  # also if accounting for the first ones fails
            asyncio.get_running_loop().call_soon(self._settle_some)
        self._account(ended)

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


def trace(tracer: Tracer, seen: Observation, admission: Admission) -> Admission:
    """Begin a span; return the request with that as its parent, in place of the client's."""
    head = admission.head
    given = head.traceparent
    parent = given if given and trace_id_of(given) else None
    seen.span, ours = tracer.begin(
        head.line.method, admission.service.name, parent, seen.received_at
    )
    return admission.within_trace(ours, joined=parent is not None)


def _is_refusal(seen: Observation) -> bool:
    """Return whether we have answered with an error that is the client's fault."""
    return seen.layer is _CLIENT and seen.status != 0 and not seen.first_byte_at


def _phases(seen: Observation) -> Iterator[tuple[str, float, float]]:
    yield from seen.waits.named
    if seen.first_byte_at:
        if 0 < seen.sent_at < seen.first_byte_at:
            yield "first byte", seen.sent_at, seen.first_byte_at
        yield "relay", seen.first_byte_at, seen.ended_at
    elif seen.sent_at:
        yield "first byte", seen.sent_at, seen.ended_at


def _first_chunk_at(seen: Observation) -> float:
    body = seen.body
    return body.first_chunk_at if body is not None and body.is_late else seen.first_byte_at


def _record_of(seen: Observation) -> Record:
    """Return what is logged of an exchange that has ended."""
    waits, first_byte_at, sent_at = seen.waits, seen.first_byte_at, seen.sent_at
    record = Record()
    record.ended_at = seen.ended_at
    record.request_id = seen.request_id()
    record.service = seen.metrics.name
    record.method = seen.head.line.method or "other"
    record.status = seen.status
    duration_s = record.duration_s = seen.ended_at - seen.received_at
    record.queue_s = waits.queue_s
    record.credential_s = waits.credential_s
    record.connect_s = waits.connect_s
    if sent_at and first_byte_at > sent_at:  # else it came before the whole request had left
        record.first_byte_s = record.first_chunk_s = first_byte_at - sent_at
    if seen.body is not None:
        record.first_chunk_s = _first_chunk_s(seen, seen.body, record.first_byte_s)
    overhead_s = duration_s - waits.peers_s - waits.named_s
    if overhead_s > 0.0:
        record.overhead_s = overhead_s
    record.request_bytes = seen.request_bytes
    record.response_bytes = seen.response_bytes
    record.retries = seen.retries
    record.error = seen.error
    if seen.error:
        record.layer = seen.layer.value
    record.rejection = seen.rejection
    if is_plain_id(seen.upstream_request_id):
        record.upstream_request_id = seen.upstream_request_id.decode("ascii")
    return record


def _first_chunk_s(seen: Observation, body: UnusualBody, first_byte_s: float) -> float:
    if not body.is_late or not seen.first_byte_at or not seen.sent_at:
        return first_byte_s
    if not body.first_chunk_at or body.first_chunk_at < seen.sent_at:
        return 0.0
    return body.first_chunk_at - seen.sent_at


def _count(seen: Observation, record: Record, epoch_offset_s: float) -> None:
    """Count an exchange that has ended.

    A request that is part of a trace becomes an example of where its durations fell.
    """
    metrics, trace = seen.metrics, seen.head.traceparent or b""
    duration_s, has_answer = record.duration_s, bool(seen.first_byte_at and seen.sent_at)
    if seen.status == 101 and seen.first_byte_at:
        # What is said after a switch takes hours; its handshake is what can be slow.
        duration_s = seen.first_byte_at - seen.received_at
    at = seen.ended_at + epoch_offset_s
    metrics.duration.observe(duration_s, trace, at)
    metrics.overhead.observe(record.overhead_s, trace, at)
    if has_answer:
        metrics.first_byte.observe(record.first_byte_s, trace, at)
    if seen.body is not None:
        _count_body(seen, seen.body, record, epoch_offset_s)
    metrics.request_bytes += seen.request_bytes
    metrics.response_bytes += seen.response_bytes
    metrics.count_request(seen.head.line.method, seen.status)
    if seen.error:
        metrics.count_error(seen.layer, seen.error)


def _count_body(
    seen: Observation, body: UnusualBody, record: Record, epoch_offset_s: float
) -> None:
    bodies, watch = seen.metrics.bodies, body.watch
    if watch is not None:
        if watch.is_stream:
            bodies.pause.observe(watch.longest_pause_s)
        if watch.tail is not None and bodies.usage is not None:
            bodies.usage.count(usage_in(watch.tail.last_bytes()))
    if not body.is_late or not seen.first_byte_at or not seen.sent_at:
        return
    if not body.first_chunk_at:
        bodies.first_chunk.leave_out(record.first_byte_s)
        return
    bodies.first_chunk.move(record.first_byte_s, record.first_chunk_s)
    trace = seen.head.traceparent
    if trace and record.first_chunk_s:
        bodies.first_chunk.exemplify(record.first_chunk_s, trace, seen.ended_at + epoch_offset_s)
