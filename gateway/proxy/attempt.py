"""One try to have a request answered: on one connection, with one credential."""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from mypy_extensions import mypyc_attr

from gateway.errors import ErrorCode, GatewayError, UpstreamError
from gateway.http.chunked import LAST_CHUNK, chunk
from gateway.http.date import DateField
from gateway.http.request import Request
from gateway.http.response_head import ResponseHead
from gateway.identity.answer import instant_of_date
from gateway.identity.credential import Credential
from gateway.proxy.admission import Admission
from gateway.proxy.body_watch import BodyWatch, UnusualBody, watch_for
from gateway.proxy.downstream import Downstream
from gateway.proxy.outcome import ANSWERED, Outcome, is_throttled, outcome_of_response
from gateway.proxy.relay import Relay
from gateway.proxy.replay import TOKEN_REJECTED, Retry
from gateway.proxy.retry import RETRIED_STATUSES, reason_for_response, retry_after_in
from gateway.proxy.service import Service
from gateway.proxy.token_check import PENDING, REJECTED, TokenCheck
from gateway.upstream.connection import Connection, ResponseListener

_HOLD_S: Final = 1.0
"""How long a response is held back for the rest of its body; a vendor's error is one packet."""


_MOST_REJECTIONS: Final = 2
"""More of one request pass: its replacement's may only mean that it came a moment too early."""

_log: Final = logging.getLogger("gateway.proxy")


@mypyc_attr(allow_interpreted_subclasses=True)
class AttemptOwner:
    """The exchange that an attempt is made for."""

    __slots__ = ()

    def response_began(self, head: ResponseHead) -> None:
        """Called when the head of the response has arrived; 101 switches protocols."""
        raise NotImplementedError

    def attempt_answered(self) -> None:
        """Called when the response has been passed on whole; the connection is free."""
        raise NotImplementedError

    def attempt_refused(self, reason: Retry, outcome: Outcome, asked_s: float | None) -> bool:
        """Called when the response is one that another attempt may be spared, and is not passed on.

        Args:
            reason: why.
            outcome: what it says about the service.
            asked_s: in how many seconds the service wants another attempt, if it has said so; of a
                rejected credential, in how many another one can be had, if not at once.

        Returns:
            Whether the attempt is over, and nothing of its response may be passed on.
        """
        raise NotImplementedError

    def attempt_failed(self, error: GatewayError) -> None:
        """Called when no response will come, or not to its end; the connection is closed."""
        raise NotImplementedError

    def upstream_writable(self) -> None:
        """Called when the service takes more of the request again."""
        raise NotImplementedError


class _State(Enum):
    """What becomes of the response."""

    RELAYING = auto()
    HOLDING = auto()
    """It may reject our credential, and waits until that is known."""
    HOLDING_ALL = auto()
    """It waits until it is complete, since the request may be sent again instead."""
    OVER = auto()


_RELAYING: Final = _State.RELAYING
_HOLDING: Final = _State.HOLDING
_HOLDING_ALL: Final = _State.HOLDING_ALL
_OVER: Final = _State.OVER


class Attempt(ResponseListener):
    """Sends the request, and passes the response on unless it rejects our credential.

    Invariants:
        - the connection goes back to its pool exactly once;
        - the owner is told of an end exactly once, unless it has ended the attempt itself;
        - nothing is written to the client while the response is held back.
    """

    rejections: int = 0
    """How many credentials the service has not accepted with this request before."""

    def __init__(  # noqa: PLR0917  # keywords cost a dict per call
        self,
        owner: AttemptOwner,
        admission: Admission,
        credential: Credential,
        connection: Connection,
        request: Request,
        downstream: Downstream,
        clock: Callable[[], float],
        dates: DateField,
    ) -> None:
        self.admission = admission
        self.credential = credential
        self.connection = connection
        self.relay = Relay(admission, request, downstream, dates)
        self.head: ResponseHead | None = None
        """Of the response, once it has arrived."""
        self.check: TokenCheck | None = None
        """Of a response with status 400 and above."""
        self.first_byte_at = 0.0
        """When the head arrived, in seconds on the gateway's clock; 0 before."""
        self.first_chunk_at = 0.0
        """When the first byte of the body arrived, if that was after the head; else 0."""
        self.watch: BodyWatch | None = None
        """Of a response in whose body there is something to notice."""
        self.last_byte_at = 0.0
        """When the response, or the client that reads it, last made progress."""
        self._state = _RELAYING
        self._owner = owner
        self._clock = clock
        self.held: list[bytes] = []
        """What is held back of the response's body."""

    # The request.

    def start(self, body: list[bytes], now: float, ended: bool) -> None:
        """Write the head, and as much of the body as is at hand, in one piece.

        Args:
            body: its first pieces.
            now: seconds on the gateway's clock.
            ended: they are all of it.
        """
        admission = self.admission
        head = admission.head
        line = head.line
        lines = self.credential.lines_for(
            line.method, admission.service.host_line, admission.path, line.query, now
        )
        pieces = [admission.upstream_head + lines + _END]
        if body or head.chunked:
            _frame(body, pieces, head.chunked, ended)
        self.connection.start(self, pieces, line.method == "HEAD", ended, head.upgrade or b"")

    def send_body(self, body: list[bytes], *, ended: bool) -> None:
        """Write more of the body; `ended`: nothing will follow."""
        pieces: list[bytes] = []
        _frame(body, pieces, self.admission.head.chunked, ended)
        if pieces:
            self.connection.write(pieces)
        if ended:
            self.connection.end()

    # What the connection tells us (`ResponseListener`).

    def on_response(self, head: ResponseHead, body: list[bytes], complete: bool) -> None:
        """Pass on what has arrived, or hold it back until it is known not to be a rejection."""
        now = self._clock()
        try:
            if self.head is None:
                self.first_byte_at = now
                self._begin(head)
            elif body and not self.relay.response_bytes and not self.held:
                self.first_chunk_at = self.last_byte_at = now  # the wait for it is no pause
            if self.watch is not None:
                pause_s = now - self.last_byte_at if self.relay.response_bytes else 0.0
                self.watch.arrived(body, self.connection.chunks, pause_s)
            self.last_byte_at = now
            if self.check is not None:
                looked_at = self._look(self.check, body, complete=complete)
                if looked_at is None:
                    return
                body = looked_at
            self.relay.pass_on(head, body, complete)
        except Exception:  # noqa: BLE001  # logged, counted and answered
            # Nobody above knows which request it is about, and its client would wait for ever.
            _log.exception("a request failed because of a defect in the gateway; please report it")
            self.connection.abort()
            self.on_failure(UpstreamError(ErrorCode.INTERNAL))
            return
        if complete:
            self._note_acceptance()
            self._give_back(now)
            self._owner.attempt_answered()
        elif self.relay.downstream.writing_paused():
            self.connection.pause_reading()

    def _look(self, check: TokenCheck, body: list[bytes], *, complete: bool) -> list[bytes] | None:
        """Look whether an error response rejects our credential; return what may be passed on.

        Returns:
            Pieces of its body; None: nothing may be passed on now.
        """
        check.feed(body)
        if complete:
            check.end()
        may_retry = self._state is _HOLDING_ALL
        is_held = may_retry or self._state is _HOLDING
        if is_held:
            self.held.extend(body)
            is_open = check.verdict is PENDING or (may_retry and not complete)
            if is_open and not check.is_full:
                return None
        # Later it is too late to hide a rejection, but not to replace the credential.
        if complete and check.verdict is REJECTED:
            is_replaced = self._drop_credential()
            pause_s = None
            if not is_replaced and not self.rejections and not check.is_lock_out:
                pause_s = _renewal_pause_s(self.credential, self.admission.service)
            is_hidden = is_replaced or pause_s is not None
            if is_hidden and is_held and self.rejections < _MOST_REJECTIONS:
                self._give_back(self.last_byte_at)
                self._owner.attempt_refused(TOKEN_REJECTED, ANSWERED, pause_s)
                return None
        if complete and may_retry and self.head is not None:
            status, code = self.head.status, check.vendor_code
            reason, asked_s = reason_for_response(status, code), retry_after_in(self.head.lines)
            outcome = outcome_of_response(status, code)
            if reason is not None and self._owner.attempt_refused(reason, outcome, asked_s):
                self._give_back(self.last_byte_at)
                return None
        return self._take_held() if is_held else body

    def on_failure(self, error: UpstreamError) -> None:
        """End without the rest of the response."""
        self._give_back(self._clock())
        self._owner.attempt_failed(error)

    def on_writable(self) -> None:
        """Let the request's body go on."""
        self._owner.upstream_writable()

    @property
    def is_key_refused(self) -> bool:
        """Whether the service has refused a credential that cannot be replaced."""
        check = self.check
        return check is not None and check.verdict is REJECTED and not self.credential.renewable

    def _begin(self, head: ResponseHead) -> None:
        self.head = head
        if self.credential.signs and self.credential.wants_date(head.status, self.last_byte_at):
            self._note_date(head)
        self._owner.response_began(head)
        if head.is_event_stream or self.admission.service.metrics.bodies.usage is not None:
            self.last_byte_at = self.first_byte_at
            counts = self.admission.service.metrics.bodies
            self.watch = watch_for(head, counts, self.admission.head.line.method)
        if head.status == 101:
            self._note_acceptance()
        elif head.status >= 400:
            credential = self.credential
            check = self.check = TokenCheck(
                head,
                sends_credential=credential.sends,
                renewable=credential.renewable,
            )
            if check.verdict is PENDING:
                self._state = _HOLDING
            limits = self.admission.service.limits
            if limits is not None and limits.retry_on and head.status in RETRIED_STATUSES:
                self._state = _HOLDING_ALL
            if self._state is not _RELAYING:
                asyncio.get_running_loop().call_later(_HOLD_S, self._hold_no_longer)

    def _note_date(self, head: ResponseHead) -> None:
        """Let the credential know the service's time, by which its signatures are judged."""
        date = instant_of_date(head.value_of(b"date").decode("latin-1"))
        if date is not None:
            host_line = self.admission.service.host_line
            self.credential.note_date(host_line, date, self.first_byte_at)

    def _drop_credential(self) -> bool:
        """Drop the credential, which the service did not accept; return whether one follows."""
        service = self.admission.service
        if self.check is not None and self.check.is_lock_out:
            service.credentials.locked_out(self.credential)
            return False
        again = self.rejections > 0
        is_replaced = service.credentials.reject(self.credential, again=again)
        if is_replaced:
            service.rejected.credential = self.credential
        return is_replaced

    def _note_acceptance(self) -> None:
        """Tell the credentials that a login after a rejection was worth it."""
        rejected = self.admission.service.rejected
        if rejected.credential is None or rejected.credential is self.credential:
            return
        if self.check is None or self.check.verdict is not REJECTED:
            rejected.credential = None
            self.admission.service.credentials.accepted(self.credential)

    def _hold_no_longer(self) -> None:
        if self._state in {_HOLDING, _HOLDING_ALL} and self.head is not None:
            self.relay.pass_on(self.head, self._take_held(), complete=False)

    def _take_held(self) -> list[bytes]:
        held, self.held = self.held, []
        self._state = _RELAYING
        return held

    # What the exchange does with it.

    def resume(self) -> None:
        """Go on after the client has caught up."""
        self.last_byte_at = self._clock()
        self.connection.resume_reading()

    def abandon(self, now: float) -> None:
        """End the attempt without telling its owner; the connection goes with it."""
        self.connection.abort()
        self._give_back(now)

    def hang_up(self, now: float) -> None:
        """End the attempt without telling its owner, after what has been written."""
        self.connection.close()
        self._give_back(now)

    @property
    def awaits_body(self) -> bool:
        """Whether nobody but the service holds up the first byte of the response's body."""
        return not self.relay.response_bytes and not self.relay.downstream.writing_paused()

    def unusual_body(self, now: float) -> UnusualBody:
        """Return what was noticed about the response's body, which has ended."""
        watch, relay = self.watch, self.relay
        if watch is not None and relay.response_bytes and not relay.downstream.writing_paused():
            watch.cut(now - self.last_byte_at)
        is_late = self.first_chunk_at > 0.0 or not relay.response_bytes
        return UnusualBody(self.first_chunk_at, watch, is_late=is_late)

    def _give_back(self, now: float) -> None:
        if self._state is not _OVER:
            self._state = _OVER
            self.admission.service.pool.give_back(self.connection, now)


def throttled_s(attempt: Attempt) -> float | None:
    """Return in how many seconds a throttling service wants to be asked again, if it says so."""
    check, head = attempt.check, attempt.head
    if check is None or head is None or not is_throttled(head.status, check.vendor_code):
        return None
    return retry_after_in(head.lines)


_END: Final = b"\r\n"


def _renewal_pause_s(rejected: Credential, service: Service) -> float | None:
    """Return for how many seconds the token that was rejected will not be replaced.

    None: that is not why it is not, so that what the service says is for the client.
    """
    if rejected.signs or not rejected.renewable:
        return None
    return service.credentials.renewal_pause_s() or None


def _frame(body: list[bytes], out: list[bytes], chunked: bool, ended: bool) -> None:
    """Add what goes upstream of a body to `out`; `ended`: nothing will follow."""
    if chunked:
        out.extend(map(chunk, body))
        if ended:
            out.append(LAST_CHUNK)
    else:
        out.extend(body)
