"""The way of one response from the service to the caller, piece by piece as it comes.

An answer that may mean "your token is not good" is held back until that is known: its body is
looked at up to a bound, and the rest of the exchange decides.
"""

import asyncio
import re
from collections.abc import Callable
from enum import Enum, auto

from gateway.errors import ErrorCode, GatewayError, UpstreamError
from gateway.http.fields import ResponseFields, read_response_fields
from gateway.http.framing import LAST_CHUNK, BodyFraming, chunk, response_framing
from gateway.proxy.inbound import Downstream, Inbound
from gateway.proxy.rejection import PEEK_BYTES, is_token_rejection, vendor_code
from gateway.upstream.connection import Connection, ResponseHead

# RFC 9112 section 4: HTAB, SP, VCHAR and obs-text; the parser lets control octets through.
_REASON = re.compile(rb"[\t -~\x80-\xff]*")

_HOLD_S = 1.0
"""How long an answer is held back for the rest of its body; a vendor's error is one packet."""


class Outcome(Enum):
    """How an attempt has ended, when it has not failed."""

    RELAYED = auto()
    REJECTED = auto()
    """The service did not accept our credential, and the caller has not heard of it."""
    UNSEEN = auto()
    """The connection was dead, and the request can be sent again on another."""


class Relay:
    """Hears one response (it is a `ResponseSink`) and writes it downstream.

    Invariants:
        - `done` is settled exactly once: an outcome, or an UpstreamError;
        - nothing is written downstream after `done`, nor while the answer is held back;
        - a response is ended downstream only when it has ended upstream.
    """

    __slots__ = (
        "_chunked",
        "_clock",
        "_downstream",
        "_head",
        "_held",
        "_inbound",
        "_peek_left",
        "_peeked",
        "complete",
        "connection",
        "done",
        "fields",
        "first_byte_at",
        "keep_alive",
        "last_byte_at",
        "may_reject",
        "request_received",
        "response_bytes",
        "started",
        "status",
    )

    def __init__(
        self,
        connection: Connection,
        inbound: Inbound,
        downstream: Downstream,
        *,
        clock: Callable[[], float],
        may_reject: Callable[[], bool] | None,
    ) -> None:
        """Prepare for one response.

        Args:
            connection: whence it comes; paused while the caller reads too slowly.
            inbound: the request it answers.
            downstream: where it goes.
            clock: seconds, monotonic.
            may_reject: asked when the answer turns out to reject our credential; True if the
                caller need not hear of it. None for a service that takes no credential.
        """
        self.connection = connection
        self.done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.may_reject = may_reject
        self.status = 0
        self.fields: ResponseFields | None = None
        self.first_byte_at = 0.0
        self.last_byte_at = 0.0
        self.response_bytes = 0
        self.complete = False
        """Whether the response has ended upstream, so that the connection is not ours any more."""
        self.started = False
        """Whether a status line is on its way to the caller."""
        self.request_received = inbound.rest is None
        self.keep_alive = inbound.keep_alive
        self._inbound = inbound
        self._downstream = downstream
        self._clock = clock
        self._chunked = False
        self._head: ResponseHead | None = None
        self._held: list[bytes] | None = None
        self._peeked: list[bytes] = []
        self._peek_left = 0

    @property
    def vendor_code(self) -> str:
        """Error code in the body of an error answer, or empty."""
        return vendor_code(b"".join(self._peeked)) if self._peeked else ""

    def on_response(self, head: ResponseHead | None, body: list[bytes], *, complete: bool) -> None:
        """Take what one read has brought (see `ResponseSink`)."""
        self.last_byte_at = self._clock()
        self.complete = complete
        if head is not None:
            self.first_byte_at = self.last_byte_at
            if not self._judge_head(head):
                return
        if self._peek_left > 0:
            self._peek(body)
        if self._held is not None:
            self._held.extend(body)
            if not complete and self._peek_left > 0:
                return
            if complete and self._is_rejected():
                self._settle(Outcome.REJECTED)
                return
            head, body, self._held = self._head, self._held, None
        self._pass_on(head, body, complete=complete)
        if complete:
            self._settle(Outcome.RELAYED)
        elif self._downstream.writing_paused:
            self.connection.pause_reading()

    def on_failure(self, error: UpstreamError) -> None:
        """Take the news that the response will not come to its end (see `ResponseSink`)."""
        if not self.done.done():
            self.done.set_exception(error)

    def fail(self, error: GatewayError) -> None:
        """End the exchange from our side; the connection goes with it."""
        self.connection.abort()
        if not self.done.done():
            self.done.set_exception(error)

    def upload_ended(self, pump: asyncio.Task[None]) -> None:
        """Take the end of the request's body; if it was not a good end, nor is the exchange's."""
        if not pump.cancelled() and (error := pump.exception()) is not None:
            if isinstance(error, GatewayError):
                self.fail(error)
            elif not self.done.done():
                self.done.set_exception(error)

    def resume(self) -> None:
        """Go on after the caller has caught up."""
        self.last_byte_at = self._clock()
        self.connection.resume_reading()

    def release(self) -> None:
        """Pass on an answer that has been held back long enough."""
        if self._held is not None:
            body, self._held = self._held, None
            self._pass_on(self._head, body, complete=False)

    def _judge_head(self, head: ResponseHead) -> bool:
        try:
            fields = read_response_fields(head.fields)
        except ValueError as cause:
            self._refuse(str(cause))
            return False
        if not _REASON.fullmatch(head.reason):
            self._refuse("control octets in the reason phrase")
            return False
        self.status = head.status
        self.fields = fields
        if head.status >= 400:
            self._peek_left = PEEK_BYTES
            if self.may_reject is not None and head.status in {401, 403}:
                self._head = head
                self._held = []
                asyncio.get_running_loop().call_later(_HOLD_S, self.release)
        return True

    def _refuse(self, detail: str) -> None:
        self.complete = False
        self.fail(UpstreamError(ErrorCode.HTTP_PROTOCOL_ERROR, detail))

    def _peek(self, body: list[bytes]) -> None:
        for piece in body:
            self._peeked.append(piece[: self._peek_left])
            self._peek_left -= len(piece)
            if self._peek_left <= 0:
                return

    def _is_rejected(self) -> bool:
        fields = self.fields
        if fields is None or self.may_reject is None:
            return False
        return (
            is_token_rejection(
                self.status,
                self.vendor_code,
                server=fields.server,
                keystone=fields.challenges_for_keystone,
            )
            and self.may_reject()
        )

    def _pass_on(self, head: ResponseHead | None, body: list[bytes], *, complete: bool) -> None:
        pieces: list[bytes] = []
        if head is not None and self.fields is not None:
            pieces.append(self._reply_head(head, self.fields))
            self.started = True
        for piece in body:
            self.response_bytes += len(piece)
        if self._chunked:
            pieces.extend(map(chunk, body))
            if complete:
                pieces.append(LAST_CHUNK)
        else:
            pieces.extend(body)
        if pieces:
            self._downstream.write(pieces)

    def _reply_head(self, head: ResponseHead, fields: ResponseFields) -> bytes:
        inbound = self._inbound
        framing = response_framing(
            head.status,
            head_request=inbound.method == "HEAD",
            content_length=fields.content_length,
            chunked=fields.chunked,
        )
        http_1_0 = inbound.version == (1, 0)
        lines = [b"HTTP/1.1 %d %b" % (head.status, head.reason), *fields.lines]
        self._chunked = framing is BodyFraming.CHUNKED and not http_1_0
        if self._chunked:
            lines.append(b"Transfer-Encoding: chunked")
        if framing is BodyFraming.CLOSE or (framing is BodyFraming.CHUNKED and http_1_0):
            self.keep_alive = False
        if not self.request_received:
            self.keep_alive = False  # what is left of the request would be taken for the next
        if not self.keep_alive:
            lines.append(b"Connection: close")
        elif http_1_0:
            lines.append(b"Connection: keep-alive")
        lines.append(b"\r\n")
        return b"\r\n".join(lines)

    def _settle(self, outcome: Outcome) -> None:
        if not self.done.done():
            self.done.set_result(outcome)
