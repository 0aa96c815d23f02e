"""The life of one exchange, phase by phase: admit, credential, forward, relay, observe.

The order is the specification. Each phase may end the exchange by raising; `observe` runs exactly
once, always. Waiting is for one future: the response is relayed by callbacks, as it comes.
"""

import asyncio
import itertools
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gateway.errors import (
    CredentialError,
    DownstreamError,
    ErrorCode,
    GatewayError,
    UnavailableError,
    UpstreamError,
)
from gateway.http.fields import RawFields
from gateway.http.framing import LAST_CHUNK, chunk
from gateway.identity.credential import Credential
from gateway.observe.access_log import AccessLog
from gateway.observe.metrics import ServiceMetrics, upstream_error_of
from gateway.proxy.admission import KNOWN_METHODS, Admission, Rules, admit, upstream_head
from gateway.proxy.answers import error_answer
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.inbound import Downstream, Inbound, RequestBody
from gateway.proxy.rejection import layer_of
from gateway.proxy.relay import Outcome, Relay
from gateway.proxy.service import Service
from gateway.upstream.connection import Connection

RETRY_REASONS = ("token_rejected", "stale_connection")
"""Values of label `reason`: why a request may be sent again, each at most once."""

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 section 9.2.2
_PLAIN_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_log = logging.getLogger("gateway.proxy")
_ids = itertools.count(1)
_ID_PREFIX = os.urandom(6).hex()


@dataclass(slots=True)
class Proxy:
    """What all exchanges of one gateway have in common. `rules` is replaced on reload."""

    rules: Rules
    deadlines: Deadlines
    clock: Callable[[], float]
    """Seconds, monotonic, going on during suspend; the keepers count on the same clock."""
    access_log: AccessLog
    unrouted: ServiceMetrics
    """Counts requests that belong to no service."""


class Exchange:
    """One request on its way. Created when its head has arrived; `run` once."""

    __slots__ = (
        "_admission",
        "_body_ended",
        "_connect_s",
        "_credential_s",
        "_downstream",
        "_error",
        "_inbound",
        "_keep_alive",
        "_kept",
        "_proxy",
        "_relay",
        "_request_bytes",
        "_retried",
        "_sent_at",
        "_status",
        "_waited_s",
        "deadline",
        "request_id",
    )

    def __init__(self, proxy: Proxy, inbound: Inbound, downstream: Downstream) -> None:
        self.deadline = float("inf")
        self.request_id = ""
        self._proxy = proxy
        self._inbound = inbound
        self._downstream = downstream
        self._admission: Admission | None = None
        self._relay: Relay | None = None
        self._error: ErrorCode | None = None
        self._status = 0
        self._keep_alive = False
        self._body_ended = inbound.rest is None
        self._kept: list[bytes] | None = None
        self._request_bytes = 0
        self._retried: list[str] = []
        self._credential_s = 0.0
        self._connect_s = 0.0
        self._waited_s = 0.0
        self._sent_at = 0.0

    async def run(self) -> bool:
        """Carry the request through, answer it, and account for it.

        Returns:
            Whether the caller's connection may be used for another request.

        Cancellation: the caller is gone; the call upstream is aborted with it.
        """
        try:
            await self._carry()
        except GatewayError as error:
            self._answer(error)
        except asyncio.CancelledError:
            self._error = ErrorCode.CLIENT_DISCONNECTED
            raise
        except Exception:
            self._error = ErrorCode.INTERNAL
            raise
        finally:
            self._observe()
        return self._keep_alive

    def refuse(self, code: ErrorCode) -> None:
        """Answer a request that is not even well-formed, and account for it."""
        self._body_ended = False
        self._answer(DownstreamError(code))
        self._observe()

    def downstream_writable(self) -> None:
        """Hear that the caller has caught up with what we wrote."""
        if self._relay is not None:
            self._relay.resume()

    def expire(self) -> None:
        """Decide what being past `deadline` means (see `Deadlines`)."""
        relay, admission = self._relay, self._admission
        if relay is None or admission is None or relay.done.done():
            return
        error: GatewayError
        if relay.first_byte_at:
            # The deadline is not moved with every piece, but looked up when it seems to be over.
            self.deadline = relay.last_byte_at + admission.service.idle_s
            if self.deadline > self._proxy.clock():
                self._proxy.deadlines.watch(self)
                return
            if self._downstream.writing_paused:
                error = DownstreamError(ErrorCode.CLIENT_DISCONNECTED, "reads too slowly")
            else:
                error = UpstreamError(ErrorCode.HTTP_RESPONSE_TIMEOUT, "stalled in its answer")
        elif self._sent_at:
            error = UpstreamError(ErrorCode.HTTP_RESPONSE_TIMEOUT, "no answer")
        elif relay.connection.writing_paused:
            error = UpstreamError(ErrorCode.HTTP_RESPONSE_TIMEOUT, "does not read the request")
        else:
            error = DownstreamError(ErrorCode.SLOW_REQUEST)
        relay.fail(error)

    async def _carry(self) -> None:
        inbound = self._inbound
        admission = self._admission = admit(
            self._proxy.rules,
            method=inbound.method,
            target=inbound.target,
            version=inbound.version,
            raw_fields=inbound.fields,
        )
        service = admission.service
        metrics = service.metrics
        metrics.started += 1
        if metrics.started - metrics.finished > service.max_in_flight:
            raise UnavailableError(ErrorCode.OVERLOADED)
        length = admission.fields.content_length
        if length is None or length <= service.replay_bytes:
            self._kept = []
        if inbound.body:
            self._take(inbound.body, service)
        credential = service.credentials.usable(self._proxy.clock())
        if credential is None:
            credential = await self._obtain(service)
        while True:
            match await self._attempt(admission, credential):
                case Outcome.RELAYED:
                    self._keep_alive = self._relay is not None and self._relay.keep_alive
                    return
                case Outcome.REJECTED:
                    self._count_retry("token_rejected", metrics)
                    credential = await self._obtain(service)
                case Outcome.UNSEEN:
                    self._count_retry("stale_connection", metrics)

    async def _obtain(self, service: Service) -> Credential:
        began = self._proxy.clock()
        try:
            return await service.credentials.obtain()
        finally:
            took = self._proxy.clock() - began
            self._credential_s += took
            self._waited_s += took

    async def _attempt(self, admission: Admission, credential: Credential) -> Outcome:
        """Send the request once and relay what comes back.

        Raises:
            CredentialError: the credential was rejected and the request cannot be sent again.
            UpstreamError: no answer, or not to its end.
        """
        service = admission.service
        connection = service.pool.take()
        if connection is None:
            connection = await self._connect(service)
        relay = self._relay = Relay(
            connection,
            self._inbound,
            self._downstream,
            clock=self._proxy.clock,
            may_reject=partial(self._hide_rejection, service, credential)
            if credential.field_lines
            else None,
        )
        relay.request_received = self._body_ended
        head = upstream_head(admission, self._inbound.method, credential.field_lines)
        try:
            outcome = await self._send(head, relay, admission)
        except UpstreamError as error:
            if not self._may_send_again(error, relay):
                raise
            outcome = Outcome.UNSEEN
        finally:
            self._proxy.deadlines.forget(self)
            if not relay.complete:
                connection.abort()
            service.pool.give_back(connection)
            if self._sent_at:
                self._waited_s += (relay.last_byte_at or self._proxy.clock()) - self._sent_at
        if outcome is Outcome.REJECTED and self._kept is None:
            raise CredentialError(ErrorCode.TOKEN_RENEWED)
        return outcome

    async def _connect(self, service: Service) -> Connection:
        began = self._proxy.clock()
        try:
            return await service.pool.connect()
        finally:
            took = self._proxy.clock() - began
            self._connect_s += took
            self._waited_s += took

    async def _send(self, head: bytes, relay: Relay, admission: Admission) -> Outcome:
        inbound, connection, service = self._inbound, relay.connection, admission.service
        body = b"".join(self._kept) if self._kept is not None else inbound.body
        pieces = [head]
        if admission.fields.chunked:
            if body:
                pieces.append(chunk(body))
            if self._body_ended:
                pieces.append(LAST_CHUNK)
        elif body:
            pieces.append(body)
        head_request = inbound.method == "HEAD"
        now = self._proxy.clock()
        if self._body_ended or inbound.rest is None:
            self._sent_at = now
            self.deadline = now + service.first_byte_s
            self._proxy.deadlines.watch(self)
            connection.start(relay, pieces, head_request=head_request, sent=True)
            return await relay.done
        self._sent_at = 0.0
        self.deadline = now + service.idle_s
        self._proxy.deadlines.watch(self)
        connection.start(relay, pieces, head_request=head_request, sent=False)
        if admission.fields.expects_continue and not body:
            self._downstream.write([_CONTINUE])
        return await self._upload(inbound.rest, relay, admission)

    async def _upload(self, body: RequestBody, relay: Relay, admission: Admission) -> Outcome:
        """Pass the rest of the body on until it, or the response, has ended."""
        pump = asyncio.create_task(self._pump(body, relay, admission), name="upload")
        pump.add_done_callback(relay.upload_ended)
        try:
            return await relay.done
        finally:
            # The service has answered early, or somebody has gone: the rest is of no use.
            pump.cancel()
            await asyncio.wait([pump])

    async def _pump(self, body: RequestBody, relay: Relay, admission: Admission) -> None:
        service, connection, clock = admission.service, relay.connection, self._proxy.clock
        chunked = admission.fields.chunked
        began = clock()
        try:
            while data := await body.read():
                now = clock()
                self._waited_s += now - began
                began = now
                self._take(data, service)
                connection.write([chunk(data)] if chunked else [data])
                self.deadline = now + service.idle_s
                if connection.writing_paused:
                    await connection.drain()
                    now = clock()
                    self._waited_s += now - began
                    self.deadline = now + service.idle_s
                    began = now
        finally:
            self._waited_s += clock() - began
        self._body_ended = relay.request_received = True
        if chunked:
            connection.write([LAST_CHUNK])
        connection.end()
        self._sent_at = clock()
        self.deadline = self._sent_at + service.first_byte_s

    def _take(self, data: bytes, service: Service) -> None:
        """Count a piece of the body, and keep it while it may have to be sent again."""
        self._request_bytes += len(data)
        if self._request_bytes > service.max_body_bytes:
            raise DownstreamError(ErrorCode.BODY_TOO_LARGE)
        if self._kept is not None:
            if self._request_bytes <= service.replay_bytes:
                self._kept.append(data)
            else:
                self._kept = None

    def _hide_rejection(self, service: Service, credential: Credential) -> bool:
        """Report a rejected credential; return whether the caller need not see the answer."""
        coming = service.credentials.reject(credential)
        return coming and "token_rejected" not in self._retried

    def _may_send_again(self, error: UpstreamError, relay: Relay) -> bool:
        """Say whether the service cannot have seen the request, or may see it twice.

        Only a kept connection can die between two requests; a new one that fails has failed.
        """
        connection = relay.connection
        if (
            connection.requests == 1
            or self._kept is None
            or relay.started
            or "stale_connection" in self._retried
        ):
            return False
        return error.replayable or (
            error.code is ErrorCode.CONNECTION_TERMINATED
            and not connection.heard
            and self._inbound.method in _IDEMPOTENT
        )

    def _count_retry(self, reason: str, metrics: ServiceMetrics) -> None:
        self._retried.append(reason)
        metrics.count_retry(reason)

    def _answer(self, error: GatewayError) -> None:
        code = self._error = error.code
        if self._relay is not None and self._relay.started:
            # The status is on the wire: breaking off is the only way left to say "incomplete"
            # (golang/go#23643).
            self._downstream.abort()
            self._status = self._relay.status
            return
        if not code.status:
            self._downstream.abort()
            return
        if not self.request_id:
            self.request_id = _request_id(self._inbound.fields)
        self._status = code.status
        self._keep_alive = self._inbound.keep_alive and self._body_ended
        retry_after_s: float | None = None
        if isinstance(error, CredentialError):
            retry_after_s = error.retry_after_s
        elif isinstance(error, UnavailableError):
            retry_after_s = 1.0
        _log.debug("request %s: %s: %s", self.request_id, code.label, error)
        self._downstream.write(
            [
                error_answer(
                    code,
                    self.request_id,
                    retry_after_s=retry_after_s,
                    with_body=self._inbound.method != "HEAD",
                    close=not self._keep_alive,
                )
            ]
        )

    def _observe(self) -> None:
        proxy, inbound, relay = self._proxy, self._inbound, self._relay
        finished_at = proxy.clock()
        duration_s = finished_at - inbound.received_at
        overhead_s = max(0.0, duration_s - self._waited_s)
        first_byte_s = 0.0
        response_bytes = 0
        upstream_id = b""
        error = ""
        if self._admission is None:
            metrics = proxy.unrouted
            metrics.started += 1
        else:
            metrics = self._admission.service.metrics
        if relay is not None:
            response_bytes = relay.response_bytes
            if relay.started and not self._status:
                self._status = relay.status
            if relay.fields is not None:
                upstream_id = relay.fields.request_id
            if relay.first_byte_at and self._sent_at:
                first_byte_s = max(0.0, relay.first_byte_at - self._sent_at)
                metrics.first_byte.observe(first_byte_s)
        if self._error is not None:
            error = self._error.label
            metrics.count_error(self._error.layer, error)
        elif self._status >= 400 and relay is not None:
            error = upstream_error_of(self._status)
            metrics.count_error(layer_of(relay.vendor_code), error)
        metrics.finished += 1
        metrics.request_bytes += self._request_bytes
        metrics.response_bytes += response_bytes
        metrics.duration.observe(duration_s)
        metrics.overhead.observe(overhead_s)
        metrics.count_request(inbound.method, self._status)
        proxy.access_log.record(
            self.request_id or _request_id(inbound.fields),
            metrics.name,
            inbound.method if inbound.method in KNOWN_METHODS else "other",
            self._status,
            duration_s,
            self._credential_s,
            self._connect_s,
            first_byte_s,
            overhead_s,
            self._request_bytes,
            response_bytes,
            len(self._retried),
            error,
            upstream_id.decode("ascii") if _PLAIN_ID.fullmatch(upstream_id) else "",
        )


def _request_id(fields: RawFields) -> str:
    """Return the caller's own id if it is plain, else a new one."""
    for name, value in fields:
        if len(name) == 12 and name.lower() == b"x-request-id" and _PLAIN_ID.fullmatch(value):
            return value.decode("ascii")
    return f"{_ID_PREFIX}-{next(_ids):x}"
