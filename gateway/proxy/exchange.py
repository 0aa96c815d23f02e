"""The life of one exchange, phase by phase: admit, credential, forward, relay, observe.

The order is the specification. Decisions are made at once, as bytes arrive; only what is not at
hand, a token or a connection, is waited for, in one short coroutine. `observe` runs exactly once.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import (
    CredentialError,
    DownstreamError,
    ErrorCode,
    GatewayError,
    UnavailableError,
    UpstreamError,
)
from gateway.http.framing import LAST_CHUNK, chunk, is_fragmented
from gateway.http.location import location_for_caller
from gateway.identity.credential import Credential
from gateway.proxy.admission import (
    Admission,
    RefusedByServiceError,
    Rules,
    admit,
    upstream_head,
)
from gateway.proxy.answers import error_answer
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.inbound import Downstream, Inbound
from gateway.proxy.observation import Observation, Observer, request_id_of, trace
from gateway.proxy.relay import Outcome, Relay
from gateway.proxy.service import Service
from gateway.upstream.connection import Connection

RETRY_REASONS = ("token_rejected", "stale_connection")
"""Values of label `reason`: why a request may be sent again, each at most once."""

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 section 9.2.2
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER = float("inf")
_RELAYED = Outcome.RELAYED  # looking a member up costs ten times the comparison (Python 3.11)
_CLOSING = frozenset({400, 408, 414, 431, 501, 505})
"""After these nobody can say for sure where the next request on the connection begins."""
MAX_KEPT_BYTES = 6 * 2**20
"""Bodies that may wait in memory, of all requests together, to be sent again; beyond it they are
sent once only, and a rejected token is 503. Callers that stop in their uploads cannot take more."""

_log = logging.getLogger("gateway.proxy")


@dataclass(slots=True)
class Proxy:
    """What all exchanges of one gateway have in common. `rules` is replaced on reload."""

    rules: Rules
    deadlines: Deadlines
    clock: Callable[[], float]
    """Seconds, monotonic, going on during suspend; the keepers count on the same clock."""
    observer: Observer
    max_kept_bytes: int = MAX_KEPT_BYTES
    kept_bytes: int = 0
    """Bytes of bodies kept just now, in order to send them again."""


class Exchange:
    """One request on its way, from the end of its head; an `Owner` of relays.

    Invariants:
        - nothing goes upstream before admission and without the service's credential;
        - it ends exactly once: answered, aborted or abandoned, and then accounted for;
        - after that it holds no connection and no task.
    """

    __slots__ = (
        "_admission",
        "_credential",
        "_downstream",
        "_inbound",
        "_kept",
        "_kept_bytes",
        "_proxy",
        "_relay",
        "_retried",
        "_seen",
        "_switched",
        "_task",
    )

    def __init__(self, proxy: Proxy, inbound: Inbound, downstream: Downstream) -> None:
        self._proxy = proxy
        self._inbound = inbound
        self._downstream = downstream
        self._admission: Admission | None = None
        self._credential: Credential | None = None
        self._relay: Relay | None = None
        self._kept: list[bytes] | None = None
        self._kept_bytes = 0
        self._retried: tuple[str, ...] = ()
        self._seen = Observation(inbound, proxy.observer.unrouted)
        self._switched = False  # to WebSocket: what follows is relayed both ways as it comes
        self._task: asyncio.Task[None] | None = None

    # What the caller's connection tells us.

    def begin(self, now: float) -> None:
        """Take the request as far as it goes without waiting. May end the exchange.

        Args:
            now: seconds on the proxy's clock; later than `received_at` for a request that had to
                wait for the one before it on its connection.
        """
        inbound, proxy = self._inbound, self._proxy
        self._seen.waited_s = now - inbound.received_at
        try:
            admission = self._admission = admit(proxy.rules, inbound)
            service = admission.service
            metrics = self._seen.metrics = service.metrics
            self._seen.traceparent = admission.fields.traceparent
            if proxy.observer.tracer is not None:
                admission = trace(proxy.observer.tracer, self._seen, admission)
                self._admission = admission
            metrics.started += 1
            if metrics.started - metrics.finished > service.max_in_flight:
                raise UnavailableError(ErrorCode.OVERLOADED)
            length = admission.fields.content_length
            if length is None or length <= service.replay_bytes:
                self._kept = []
        except GatewayError as error:
            if isinstance(error, RefusedByServiceError):
                self._seen.metrics = error.service.metrics
            if self._admission is None:
                self._seen.metrics.started += 1
            self._fail(error)
            return
        credential = service.credentials.usable(now)
        connection = service.pool.take(now) if credential is not None else None
        if credential is not None and connection is not None:
            self._launch(admission, credential, connection, now)
        else:
            self._wait_for(admission, credential)

    def refuse(self, code: ErrorCode) -> None:
        """End with an answer to what is not even a request, or comes when none is taken."""
        self._proxy.observer.unrouted.started += 1
        self._seen.waited_s = self._proxy.clock() - self._inbound.received_at
        is_ours = code.status == 503
        self._fail(UnavailableError(code) if is_ours else DownstreamError(code))

    def body_arrived(self) -> None:
        """Pass on what has arrived of the body, or of what takes its place after a switch."""
        admission, relay = self._admission, self._relay
        if admission is None or relay is None:
            return
        if self._switched:
            self._forward_raw(admission, relay)
        else:
            self._forward_body(admission, relay)

    def malformed(self) -> None:
        """Hear that the rest of the request makes no sense."""
        self._break_off(DownstreamError(ErrorCode.BAD_REQUEST, "malformed body"))

    def downstream_writable(self) -> None:
        """Hear that the caller has caught up with what we wrote."""
        if self._relay is not None:
            self._relay.resume()

    def expire(self, now: float) -> None:
        """Decide what being past the deadline means."""
        relay, admission = self._relay, self._admission
        if relay is None or admission is None:
            return
        error: GatewayError
        if relay.first_byte_at:
            # The deadline is not moved with every piece, but looked up when it seems to be over.
            self._downstream.deadline = relay.last_byte_at + admission.service.idle_s
            if self._downstream.deadline > now:
                return
            if self._downstream.writing_paused:
                error = DownstreamError(ErrorCode.CLIENT_DISCONNECTED, "reads too slowly")
            elif self._switched:
                self._hang_up(relay, admission)  # nobody's fault: neither had anything to say
                return
            else:
                error = UpstreamError(ErrorCode.HTTP_RESPONSE_TIMEOUT, "stalled in its answer")
        elif self._inbound.ended:
            error = UpstreamError(ErrorCode.HTTP_RESPONSE_TIMEOUT, "no answer")
        elif relay.connection.writing_paused:
            error = UpstreamError(ErrorCode.HTTP_RESPONSE_TIMEOUT, "does not read the request")
        else:
            error = DownstreamError(ErrorCode.SLOW_REQUEST)
        self._break_off(error)

    def caller_ended(self) -> None:
        """Hear that the caller sends no more: it has left, but may have said so after a switch."""
        relay, admission = self._relay, self._admission
        if self._switched and relay is not None and admission is not None:
            self._hang_up(relay, admission)
        else:
            self.abandon()

    def failed_by_a_bug(self) -> None:
        """End because the gateway itself has failed."""
        if self._admission is None:
            self._seen.metrics.started += 1
        self._break_off(GatewayError(ErrorCode.INTERNAL))

    def abandon(self) -> None:
        """Give up: the caller has left. The call upstream is aborted with it."""
        self._break_off(DownstreamError(ErrorCode.CLIENT_DISCONNECTED))

    # What the relay tells us (`Owner`).

    def hides_rejection(self) -> bool:
        """Report the rejected credential; the caller need not see the first such answer."""
        if self._admission is None or self._credential is None:
            return False
        service = self._admission.service
        coming = service.credentials.reject(self._credential)
        if coming:
            service.doubt.rejected = self._credential
        self._credential = None  # whatever comes of it, nobody may say that it was accepted
        return coming and "token_rejected" not in self._retried

    def switched(self) -> None:
        """Relay whatever either side says from here on; the caller may have begun to."""
        inbound, admission, relay = self._inbound, self._admission, self._relay
        if admission is None or relay is None:
            return
        if admission.service.doubt.rejected is not None:
            self._note_acceptance(admission.service)
        self._switched = True
        inbound.ended = False
        if inbound.body:
            self._forward_raw(admission, relay)
        self._downstream.resume_reading()

    def location_for_caller(self, value: bytes) -> bytes:
        """Map a redirect to within the service to the path that the caller knows it by."""
        admission = self._admission
        if admission is None:
            return value
        service = admission.service
        return location_for_caller(
            value,
            origin=service.origin,
            path=service.path,
            prefix=admission.prefix_of(self._inbound.target),
        )

    def attempt_ended(self, outcome: Outcome) -> None:
        """Finish, or send the request again with another credential."""
        admission, relay = self._admission, self._relay
        if admission is None or relay is None:
            return
        self._note_wait(relay.last_byte_at)
        admission.service.pool.give_back(relay.connection, relay.last_byte_at)
        if outcome is _RELAYED:
            if admission.service.doubt.rejected is not None:
                self._note_acceptance(admission.service)
            self._end(relay.status, relay.keep_alive)
        elif self._kept is None:
            self._relay = None
            self._fail(CredentialError(ErrorCode.TOKEN_RENEWED))
        else:
            self._send_again("token_rejected", admission, None)

    def attempt_failed(self, error: GatewayError) -> None:
        """Answer, break off, or send the request again on another connection."""
        admission, relay = self._admission, self._relay
        if admission is None or relay is None:
            return
        self._note_wait(self._proxy.clock())
        admission.service.pool.give_back(relay.connection, self._proxy.clock())
        if self._may_send_again(error, relay):
            self._send_again("stale_connection", admission, self._credential)
        else:
            self._fail(error)

    def upstream_writable(self) -> None:
        """Let the caller go on sending; the time it was held up for was not its own."""
        if self._admission is not None and not self._inbound.ended:
            self._downstream.deadline = self._proxy.clock() + self._admission.service.idle_s
        self._downstream.resume_reading()

    # Phases.

    def _wait_for(self, admission: Admission, credential: Credential | None) -> None:
        self._downstream.deadline = _NEVER  # each wait below has a deadline of its own
        self._seen.sent_at = 0.0
        self._seen.awaited_at = self._proxy.clock()
        if not self._inbound.ended:
            self._downstream.pause_reading()
        self._task = asyncio.create_task(self._obtain(admission, credential), name="exchange")

    async def _obtain(self, admission: Admission, credential: Credential | None) -> None:
        """Wait for what is not at hand, then go on."""
        service, clock, seen = admission.service, self._proxy.clock, self._seen
        try:
            if credential is None:
                began = clock()
                try:
                    credential = await service.credentials.obtain()
                finally:
                    ended = clock()
                    seen.credential_s += ended - began
                    seen.waits += (("credential", began, ended),)
            began = now = clock()
            connection = service.pool.take(began)
            if connection is None:
                try:
                    connection = await service.pool.connect()
                finally:
                    now = clock()
                    seen.connect_s += now - began
                    seen.waits += (("connect", began, now),)
            self._task = None
            self._launch(admission, credential, connection, now)
        except GatewayError as error:
            self._task = None
            self._fail(error)
        except Exception:  # noqa: BLE001  # logged, counted and answered: see below
            # The top of a task: nobody else would hear of it, and the caller would wait for ever.
            _log.exception("request failed by a bug of the gateway")
            self._task = None
            self.failed_by_a_bug()

    def _launch(
        self, admission: Admission, credential: Credential, connection: Connection, now: float
    ) -> None:
        """Write the head, and as much of the body as is at hand, in one piece."""
        inbound, downstream, service = self._inbound, self._downstream, admission.service
        self._credential = credential
        ended = inbound.ended
        switching = admission.fields.upgrade
        try:
            if switching is not None:
                body = []  # what has arrived belongs to the protocol that is not spoken yet
            else:
                body = self._kept_body(service) if self._retried else self._take_body(service)
        except GatewayError as error:
            service.pool.give_back(connection, now)  # untouched
            self._fail(error)
            return
        relay = self._relay = Relay(
            self,
            connection,
            inbound,
            downstream,
            self._proxy.clock,
            service.idle_s,
            bool(credential.field_lines),
        )
        pieces = [upstream_head(admission, credential.field_lines)]
        if body or admission.fields.chunked:
            _frame(admission, body, ended, pieces)
        if ended:
            self._seen.sent_at = now
            downstream.deadline = now + service.first_byte_s
        else:
            self._seen.sent_at = 0.0
            self._seen.awaited_at = now
            downstream.deadline = now + service.idle_s
            if admission.fields.expects_continue and not body and not self._retried:
                downstream.write([_CONTINUE])
            downstream.resume_reading()
        connection.start(
            relay,
            pieces,
            head_request=inbound.method == "HEAD",
            sent=ended,
            switch_to=switching or b"",
        )

    def _forward_body(self, admission: Admission, relay: Relay) -> None:
        inbound, service = self._inbound, admission.service
        try:
            body = self._take_body(service)
        except DownstreamError as error:
            self._break_off(error)
            return
        pieces: list[bytes] = []
        _frame(admission, body, inbound.ended, pieces)
        connection = relay.connection
        if pieces:
            connection.write(pieces)
        now = self._proxy.clock()
        if inbound.ended:
            connection.end()
            self._seen.sent_at = now
            self._seen.waited_s += now - self._seen.awaited_at
            self._downstream.deadline = now + service.first_byte_s
        else:
            self._downstream.deadline = now + service.idle_s
            if connection.writing_paused:
                self._downstream.pause_reading()

    def _forward_raw(self, admission: Admission, relay: Relay) -> None:
        pieces, self._inbound.body = self._inbound.body, []
        self._seen.request_bytes += sum(map(len, pieces))
        connection = relay.connection
        connection.write(pieces)
        self._downstream.deadline = self._proxy.clock() + admission.service.idle_s
        if connection.writing_paused:
            self._downstream.pause_reading()

    def _take_body(self, service: Service) -> list[bytes]:
        """Take what has arrived, count it, and keep it while it may have to be sent again."""
        body = self._inbound.body
        if not body:
            return body
        self._inbound.body = []
        size = len(body[0]) if len(body) == 1 else sum(map(len, body))
        seen, proxy = self._seen, self._proxy
        total = seen.request_bytes = seen.request_bytes + size
        if total > service.max_body_bytes:
            raise DownstreamError(ErrorCode.BODY_TOO_LARGE)
        if self._kept is not None:
            kept_bytes = proxy.kept_bytes + size
            if total <= service.replay_bytes and kept_bytes <= proxy.max_kept_bytes:
                self._kept.extend(body)
                self._kept_bytes += size
                proxy.kept_bytes = kept_bytes
                if is_fragmented(self._kept, self._kept_bytes):
                    self._kept = [b"".join(self._kept)]
            else:
                self._forget_body()
        return body

    def _forget_body(self) -> None:
        """Give up what was kept: from here on the request cannot be sent again."""
        self._kept = None
        self._proxy.kept_bytes -= self._kept_bytes
        self._kept_bytes = 0

    def _kept_body(self, service: Service) -> list[bytes]:
        self._take_body(service)
        if self._kept is None:  # grew beyond the buffer while we waited
            raise CredentialError(ErrorCode.TOKEN_RENEWED)
        return list(self._kept)

    def _send_again(self, reason: str, admission: Admission, credential: Credential | None) -> None:
        self._relay = None
        self._retried += (reason,)
        self._seen.retries += 1
        admission.service.metrics.count_retry(reason)
        self._wait_for(admission, credential)

    def _may_send_again(self, error: GatewayError, relay: Relay) -> bool:
        """Say whether the service cannot have seen the request, or may see it twice.

        Only a kept connection can die between two requests; a new one that fails has failed.
        """
        connection = relay.connection
        if (
            not isinstance(error, UpstreamError)
            or connection.requests == 1
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

    # Ends.

    def _hang_up(self, relay: Relay, admission: Admission) -> None:
        """End what was switched to, after what either side has said so far."""
        relay.hang_up()
        now = self._proxy.clock()
        self._note_wait(now)
        admission.service.pool.give_back(relay.connection, now)
        self._end(relay.status, keep_alive=False)

    def _break_off(self, error: GatewayError) -> None:
        """End from our side, whatever is under way."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._note_wait(self._proxy.clock())
        if self._relay is not None and self._admission is not None:
            self._relay.abandon()
            self._note_wait(self._proxy.clock())
            self._admission.service.pool.give_back(self._relay.connection, self._proxy.clock())
        self._fail(error)

    def _fail(self, error: GatewayError) -> None:
        """Answer with an error of ours, or break off what the caller takes for an answer."""
        code = error.code
        self._seen.blame(code)
        if (self._relay is not None and self._relay.started) or not code.status:
            # The status is on the wire: breaking off is the only way left to say "incomplete"
            # (golang/go#23643).
            self._downstream.abort()
            answered = self._relay is not None and self._relay.started
            self._end(self._relay.status if self._relay and answered else 0, False)
            return
        inbound = self._inbound
        self._seen.request_id = request_id_of(inbound)
        keep_alive = inbound.keep_alive and inbound.ended and code.status not in _CLOSING
        retry_after_s: float | None = None
        allow: frozenset[str] = frozenset()
        match error:
            case CredentialError():
                retry_after_s = error.retry_after_s
            case UnavailableError():
                retry_after_s = 1.0
            case RefusedByServiceError(code=ErrorCode.METHOD_NOT_ALLOWED):
                allow = error.service.methods
            case _:
                pass
        _log.debug("request %s: %s: %s", self._seen.request_id, code.label, error)
        self._downstream.write(
            [
                error_answer(
                    code,
                    self._seen.request_id,
                    retry_after_s=retry_after_s,
                    allow=allow,
                    with_body=inbound.method != "HEAD",
                    close=not keep_alive,
                )
            ]
        )
        self._end(code.status, keep_alive)

    def _note_acceptance(self, service: Service) -> None:
        """Tell that the login after a rejection was worth it, whoever's request shows it."""
        credential = self._credential
        if credential is not None and credential is not service.doubt.rejected:
            service.doubt.rejected = None
            service.credentials.accepted(credential)

    def _note_wait(self, until: float) -> None:
        """Count the time since we had done all that we could: none of it is ours."""
        seen = self._seen
        waited_s = until - (seen.sent_at or seen.awaited_at)
        if waited_s > 0.0:
            seen.waited_s += waited_s

    def _end(self, status: int, keep_alive: bool) -> None:
        seen, proxy = self._seen, self._proxy
        clock = proxy.clock
        seen.status = status
        seen.ended_at = now = clock()
        if self._relay is not None:
            seen.note_response(self._relay)
            self._relay = None
        proxy.kept_bytes -= self._kept_bytes
        self._kept_bytes = 0
        proxy.observer.observe(seen)
        self._downstream.exchange_ended(keep_alive=keep_alive, now=now)


def _frame(admission: Admission, body: list[bytes], ended: bool, out: list[bytes]) -> None:
    """Add what goes upstream of a body to `out`; `ended`: nothing will follow."""
    if admission.fields.chunked:
        out.extend(map(chunk, body))
        if ended:
            out.append(LAST_CHUNK)
    else:
        out.extend(body)
