"""The life of one exchange, phase by phase: admit, credential, forward, relay, account.

The order is the specification. Decisions are made at once, as bytes arrive; only what is not at
hand, a credential or a connection, is waited for, in one short coroutine.
"""

import asyncio
import logging
from typing import Final

from gateway.errors import CredentialError, DownstreamError, ErrorCode, GatewayError
from gateway.http.request import Request
from gateway.http.response_head import ResponseHead
from gateway.identity.credential import Credential
from gateway.proxy.accounting import trace
from gateway.proxy.admission import Admission
from gateway.proxy.answers import answer_to
from gateway.proxy.attempt import Attempt, AttemptOwner, throttled_s
from gateway.proxy.context import ExchangeContext
from gateway.proxy.downstream import Downstream
from gateway.proxy.expiry import deadline_of, expiry_error
from gateway.proxy.observation import Observation
from gateway.proxy.obtaining import obtain
from gateway.proxy.outcome import Outcome, outcome_of_error
from gateway.proxy.phase import ADMITTING, ENDED, QUEUED, RELAYING, SENDING, TUNNEL, WAITING, Phase
from gateway.proxy.replay import STALE_CONNECTION, TOKEN_REJECTED, Retry, may_resend
from gateway.proxy.request_body import RequestBody
from gateway.proxy.retry import PAUSED, reason_for_error
from gateway.proxy.turn import CONTINUE, Turn, turn_of
from gateway.proxy.waits import CONNECTION, CREDENTIAL, PEERS, QUEUE
from gateway.upstream.connection import Connection

_NEVER: Final = float("inf")

_log: Final = logging.getLogger("gateway.proxy")


class Exchange(AttemptOwner):
    """One request on its way, from the end of its head.

    Invariants:
        - nothing goes upstream before admission and without the service's credential;
        - it ends exactly once, and is then accounted for;
        - after that it holds no place, no connection and no task.
    """

    __slots__ = (
        "_body",
        "_context",
        "_downstream",
        "_progressed_at",
        "_request",
        "_retried",
        "_seen",
        "_turn",
        "_waiting",
        "attempt",
        "phase",
    )

    def __init__(
        self,
        context: ExchangeContext,
        request: Request,
        downstream: Downstream,
        received_at: float,
    ) -> None:
        """Prepare, for a request whose head is complete.

        It has arrived at `received_at`, in seconds on the context's clock.
        """
        self.phase: Phase = ADMITTING
        self._context = context
        self._request = request
        self._downstream = downstream
        self._seen = Observation(request.head, received_at, context.observer.unrouted)
        self.attempt: Attempt | None = None
        self._body: RequestBody | None = None  # once the request is admitted
        self._turn: Turn | None = None  # where its service is busy or has a limit
        self._retried: tuple[Retry, ...] = ()
        self._waiting: asyncio.Task[None] | None = None
        self._progressed_at = 0.0  # when the client's bytes last got further

    # What the client's connection does with it.

    def begin(self, now: float) -> None:
        """Take the request as far as it goes without waiting. May end the exchange.

        Args:
            now: seconds on the context's clock; later than `received_at` for a request that had to
                wait for the one before it on its connection.
        """
        self._seen.waits.end(now)
        context, request = self._context, self._request
        try:
            admission = context.admit(request, self._seen)
            service = admission.service
            self._body = RequestBody(request, service, context.replay_budget)
            turn = self._turn = turn_of(request, self._body, service, self._downstream, now)
        except GatewayError as error:
            self._fail(error)
            return
        tracer = context.observer.tracer
        if tracer is not None:
            admission = trace(tracer, self._seen, admission)
        if turn is not None and turn.waits_for is not None:
            self._wait_for(QUEUED, admission, self._body, None, now)
            return
        credential = service.credentials.usable(now)
        connection = service.pool.take(now) if credential is not None else None
        if credential is not None and connection is not None:
            self._launch(admission, self._body, credential, connection, now)
        else:
            self._wait_for(WAITING, admission, self._body, credential, self._context.clock())

    def body_arrived(self) -> None:
        """Pass on what has arrived of the body, or of the protocol that was switched to."""
        attempt, body, request = self.attempt, self._body, self._request
        if attempt is None or body is None:
            if self._turn is not None:
                self._turn.body_arrived(self._context.clock())
            return  # what has arrived goes with the head
        if self.phase is TUNNEL:
            attempt.connection.write(body.take_raw())
        else:
            try:
                pieces = body.take()
            except DownstreamError as error:
                self.break_off(error)
                return
            attempt.send_body(pieces, ended=request.ended)
        now = self._progressed_at = self._context.clock()
        if request.ended and self.phase is not TUNNEL:
            self._seen.sent_at = now
        elif attempt.connection.writing_paused:
            self._downstream.pause_reading()

    def client_writable(self) -> None:
        """Called when the client has caught up with what we wrote."""
        if self.attempt is not None:
            self._progressed_at = self._context.clock()
            self.attempt.resume()

    def deadline(self) -> float:
        """Return when the exchange must have got further; each wait has a deadline of its own."""
        now = self._context.clock()
        if self.attempt is None or self._body is None:
            return _NEVER if self._turn is None else self._turn.deadline(now)
        return deadline_of(
            self.phase, self.attempt, self._body, now,
            request_ended=self._request.ended, progressed_at=self._progressed_at,
        )  # fmt: skip

    def expire(self) -> None:
        """Decide what being past the deadline means."""
        attempt = self.attempt
        error = expiry_error(
            self.phase,
            request_ended=self._request.ended,
            service_paused=attempt is not None and attempt.connection.writing_paused,
            client_paused=self._downstream.writing_paused(),
        )
        if error is None:
            self.client_ended()
        else:
            self.break_off(error)

    def client_ended(self) -> None:
        """Called when the client sends no more: it has left, but may say so after a switch."""
        attempt = self.attempt
        if self.phase is TUNNEL and attempt is not None:
            now = self._context.clock()
            attempt.hang_up(now)  # after what either side has said so far
            self._seen.waits.end(now)
            self._end(keep_alive=False)
        else:
            self.break_off(DownstreamError(ErrorCode.CLIENT_DISCONNECTED))

    def break_off(self, error: GatewayError) -> None:
        """End from our side, whatever is under way, because of `error`.

        What stands for a request that cannot be read, or is not taken, ends so without `begin`.
        """
        now = self._context.clock()
        self._seen.waits.end(now)
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self.attempt is not None:
            self.attempt.abandon(now)
        self._fail(error)

    # What the attempt tells us (`AttemptOwner`).

    def response_began(self, head: ResponseHead) -> None:
        """Go on to relaying, or pass on whatever either side says from here on."""
        self.phase = TUNNEL if head.status == 101 else RELAYING
        if head.status == 101:
            if self._request.body:  # the client may have begun to say something
                self.body_arrived()
            self._downstream.resume_reading()

    def attempt_answered(self) -> None:
        """End: the response has been passed on."""
        attempt = self.attempt
        if attempt is not None:
            self._seen.waits.end(attempt.last_byte_at)
            self._end(attempt.relay.keep_alive)

    def attempt_refused(self, reason: Retry, outcome: Outcome, asked_s: float | None) -> bool:
        """Send the request again, if its body has been kept and its service's limits allow it."""
        attempt, is_rejected = self.attempt, reason is TOKEN_REJECTED
        because = None if is_rejected and asked_s is not None else reason
        if attempt is None or self._send_again(because, attempt.admission, outcome, asked_s):
            return True
        if is_rejected:
            self.attempt = None
            self._seen.waits.end(attempt.last_byte_at)
            self._fail(CredentialError(ErrorCode.TOKEN_RENEWED, retry_after_s=asked_s or 1.0))
        return is_rejected

    def attempt_failed(self, error: GatewayError) -> None:
        """Answer, break off, or send the request again on another connection."""
        attempt = self.attempt
        if attempt is None:
            return
        self._seen.waits.end(self._context.clock())
        connection = attempt.connection
        is_stale = STALE_CONNECTION not in self._retried and may_resend(
            error,
            self._request.head.line.method,
            reused=connection.requests > 1,
            heard=connection.heard,
        )
        reason = STALE_CONNECTION if is_stale else reason_for_error(error.code)
        if not self._send_again(reason, attempt.admission, outcome_of_error(error), None):
            self._fail(error)

    def upstream_writable(self) -> None:
        """Read from the client again. The pause does not count against its upload rate."""
        if not self._request.ended:
            self._progressed_at = self._context.clock()
        self._downstream.resume_reading()

    # Phases.

    def _wait_for(
        self,
        phase: Phase,
        admission: Admission,
        body: RequestBody,
        credential: Credential | None,
        now: float,
    ) -> None:
        self.phase = phase
        turn, wait = self._turn, CREDENTIAL if credential is None else CONNECTION
        if phase is QUEUED and turn is not None:
            wait = turn.waits_for or QUEUE
        self._seen.waits.begin(wait, now)
        if not self._request.ended and wait is not PEERS:
            self._downstream.pause_reading()
        self._waiting = asyncio.create_task(
            self._obtain(admission, body, credential), name="exchange"
        )

    async def _obtain(
        self, admission: Admission, body: RequestBody, credential: Credential | None
    ) -> None:
        """Wait for what is not at hand, then go on.

        Cancellation: safe; nothing is held.
        """
        clock, waits = self._context.clock, self._seen.waits
        try:
            if self._turn is not None and self.phase is QUEUED:
                await self._turn.obtained(waits, clock)
                self.phase = WAITING
                waits.end(now := clock())
                credential = admission.service.credentials.usable(now)
            credential, connection, now = await obtain(admission.service, credential, waits, clock)
            self._waiting = None
            self._launch(admission, body, credential, connection, now)
        except GatewayError as error:
            waits.end(clock())
            self._waiting = None
            reason = reason_for_error(error.code)
            if not self._send_again(reason, admission, outcome_of_error(error), None):
                self._fail(error)
        except Exception:  # noqa: BLE001  # logged, counted and answered: see below
            # The top of a task: nobody else would notice, and the client would wait for ever.
            _log.exception("a request failed because of a defect in the gateway; please report it")
            self._waiting = None
            self.break_off(GatewayError(ErrorCode.INTERNAL))

    def _launch(  # keywords cost a dict per call
        self,
        admission: Admission,
        body: RequestBody,
        credential: Credential,
        connection: Connection,
        now: float,
    ) -> None:
        """Begin an attempt, with as much of the body as is at hand."""
        request, downstream, context = self._request, self._downstream, self._context
        ended = request.ended
        try:
            if admission.head.upgrade is not None:
                pieces = []  # what has arrived belongs to the protocol that is not spoken yet
            else:
                pieces = body.take_again() if self._retried else body.take()
        except GatewayError as error:
            admission.service.pool.give_back(connection, now)  # untouched
            self._fail(error)
            return
        self.phase = SENDING
        self._progressed_at = now
        self._seen.waits.begin(PEERS, now)
        self._seen.sent_at = now if ended else 0.0
        attempt = self.attempt = Attempt(
            self, admission, credential, connection, request, downstream, context.clock,
            context.dates,
        )  # fmt: skip
        if self._retried:
            attempt.rejections = self._retried.count(TOKEN_REJECTED)
        if not ended:
            if admission.head.expects_continue and not pieces and not self._retried:
                downstream.write([CONTINUE])
            downstream.resume_reading()
        attempt.start(pieces, now, ended)

    def _send_again(
        self, reason: Retry | None, admission: Admission, outcome: Outcome, asked_s: float | None
    ) -> bool:
        """Send the request again because of `reason`, unless that is not possible or allowed."""
        attempt, body, turn = self.attempt, self._body, self._turn
        is_begun = attempt is not None and attempt.relay.started
        if reason is None or is_begun or body is None or not body.can_be_sent_again:
            return False
        now, seen = self._context.clock(), self._seen
        if reason in PAUSED:
            deadline = (seen.sent_at or now) + admission.service.first_byte_s
            if turn is None or not turn.again(reason, outcome, asked_s, deadline, now):
                return False
        self.attempt = None
        seen.waits.end(now)
        self._retried += (reason,)
        seen.retries += 1
        admission.service.metrics.count_retry(reason)
        is_stale = reason is STALE_CONNECTION
        credential = attempt.credential if is_stale and attempt is not None else None
        self._wait_for(QUEUED if reason in PAUSED else WAITING, admission, body, credential, now)
        return True

    # Ends.

    def _fail(self, error: GatewayError) -> None:
        """Answer with an error of ours, or break off what the client takes for a response."""
        code = error.code
        self._seen.blame(error)
        attempt, request = self.attempt, self._request
        if (attempt is not None and attempt.relay.started) or not code.status:
            # The status is on the wire: breaking off is the only way left to say "incomplete"
            # (golang/go#23643).
            self._downstream.abort()
            self._end(keep_alive=False)
            return
        request_id = self._seen.request_id()
        _log.debug("request %s: %s: %s", request_id, code.label, error)
        response, keep_alive = answer_to(request, error, request_id, self._context.dates.line())
        self._downstream.write([response])
        self._seen.status = code.status
        self._end(keep_alive)

    def _end(self, keep_alive: bool) -> None:
        if self.phase is ENDED:
            raise RuntimeError("an exchange has ended twice")
        self.phase = ENDED
        seen = self._seen
        seen.ended_at = now = self._context.clock()
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            seen.note_attempt(attempt, now)
        if self._body is not None:
            seen.request_bytes = self._body.received_bytes
            self._body.drop()
        if self._turn is not None:
            asked_s = None if attempt is None else throttled_s(attempt)
            self._turn.leave(seen.outcome, now, asked_s)
        self._context.observer.observe(seen)
        self._downstream.exchange_ended(keep_alive, now)
