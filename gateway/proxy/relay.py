"""The way of one response from the service to the caller, piece by piece as it comes.

An answer that may mean "your token is not good" is held back until that is known: its body is
looked at up to a bound, and the exchange decides.
"""

import asyncio
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

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


# Looking a member up costs ten times the comparison that it is for (Python 3.11).
_RELAYED, _REJECTED = Outcome.RELAYED, Outcome.REJECTED
_CHUNKED, _CLOSE = BodyFraming.CHUNKED, BodyFraming.CLOSE
_OK = b"HTTP/1.1 200 OK"


class Owner(Protocol):
    """The exchange that a response belongs to."""

    def hides_rejection(self) -> bool:
        """Hear that the answer rejects our credential; return whether to hide it."""
        ...

    def switched(self) -> None:
        """Hear that the service speaks another protocol from here on, as it was asked to."""
        ...

    def location_for_caller(self, value: bytes) -> bytes:
        """Return a `Location` of the service's as the caller must read it."""
        ...

    def attempt_ended(self, outcome: Outcome) -> None:
        """Hear that the response has ended; the connection is free."""
        ...

    def attempt_failed(self, error: GatewayError) -> None:
        """Hear that no response will come, or not to its end; the connection is closed."""
        ...

    def upstream_writable(self) -> None:
        """Hear that the service takes more of the request again."""
        ...


class _Judged:
    """What a head means that its connection brings again and again."""

    __slots__ = ("fields", "reply")

    def __init__(self, fields: ResponseFields) -> None:
        self.fields = fields
        self.reply = b""
        """The usual caller's: one of HTTP/1.1 whose connection is kept. Empty: not known."""


class Relay:
    """Hears one response (it is a `ResponseSink`) and writes it downstream.

    Invariants:
        - the owner hears of an end exactly once, and nothing is written downstream after it;
        - nothing is written downstream while the answer is held back;
        - a response is ended downstream only when it has ended upstream.
    """

    __slots__ = (
        "_chunked",
        "_clock",
        "_downstream",
        "_head",
        "_held",
        "_idle_s",
        "_inbound",
        "_over",
        "_owner",
        "_peek_left",
        "_peeked",
        "_takes_credential",
        "connection",
        "fields",
        "first_byte_at",
        "keep_alive",
        "last_byte_at",
        "response_bytes",
        "started",
        "status",
    )

    def __init__(  # noqa: PLR0917  # keywords cost a dict per call
        self,
        owner: Owner,
        connection: Connection,
        inbound: Inbound,
        downstream: Downstream,
        clock: Callable[[], float],
        idle_s: float,
        takes_credential: bool,
    ) -> None:
        """Prepare for one response.

        Args:
            owner: hears of its end.
            connection: whence it comes; paused while the caller reads too slowly.
            inbound: the request it answers.
            downstream: where it goes.
            clock: seconds, monotonic.
            idle_s: how long the answer may pause; the deadline is set by it when it begins.
            takes_credential: a 401 or 403 may be about our credential.
        """
        self.connection = connection
        self.status = 0
        self.fields: ResponseFields | None = None
        self.first_byte_at = 0.0
        self.last_byte_at = 0.0
        self.response_bytes = 0
        self.started = False
        """Whether a status line is on its way to the caller."""
        self.keep_alive = inbound.keep_alive
        self._owner = owner
        self._inbound = inbound
        self._downstream = downstream
        self._clock = clock
        self._idle_s = idle_s
        self._takes_credential = takes_credential
        self._over = False
        self._chunked = False
        self._head: ResponseHead | None = None
        self._held: list[bytes] | None = None
        self._peeked: list[bytes] | None = None
        self._peek_left = 0

    @property
    def vendor_code(self) -> str:
        """Error code in the body of an error answer, or empty."""
        return vendor_code(b"".join(self._peeked)) if self._peeked else ""

    # What the connection tells us.

    def on_response(self, head: ResponseHead | None, body: list[bytes], *, complete: bool) -> None:
        """Take what one read has brought (see `ResponseSink`)."""
        clock = self._clock
        now = self.last_byte_at = clock()
        if head is not None:
            self.first_byte_at = now
            self._downstream.deadline = now + self._idle_s
            if not self._judge_head(head):
                return
        if self._peek_left > 0:
            self._peek(body)
        if self._held is not None:
            self._held.extend(body)
            if not complete and self._peek_left > 0 and self._may_reject():
                return
            if complete and self._is_rejected():
                self._end(_REJECTED)
                return
            head, body, self._held = self._head, self._held, None
        elif complete and self._head is not None:
            self._is_rejected()  # too late to hide it, but not to replace the credential
        self._pass_on(head, body, complete)
        if complete:
            self._end(_RELAYED)
        elif self._downstream.writing_paused:
            self.connection.pause_reading()

    def on_failure(self, error: UpstreamError) -> None:
        """Take the news that the response will not come to its end (see `ResponseSink`)."""
        self.fail(error)

    def on_writable(self) -> None:
        """Let the request's body go on (see `ResponseSink`)."""
        self._owner.upstream_writable()

    # What the exchange tells us.

    def fail(self, error: GatewayError) -> None:
        """End the attempt; the connection goes with it."""
        if not self._over:
            self._over = True
            self.connection.abort()
            self._owner.attempt_failed(error)

    def abandon(self) -> None:
        """End the attempt without a word to its owner; the connection goes with it."""
        self._over = True
        self.connection.abort()

    def hang_up(self) -> None:
        """End the attempt without a word to its owner, after what has been written."""
        self._over = True
        self.connection.close()

    def resume(self) -> None:
        """Go on after the caller has caught up."""
        self.last_byte_at = self._clock()
        self.connection.resume_reading()

    def _release(self) -> None:
        """Pass on an answer that has been held back long enough."""
        if self._held is not None and not self._over:
            body, self._held = self._held, None
            self._pass_on(self._head, body, False)

    def _end(self, outcome: Outcome) -> None:
        if not self._over:
            self._over = True
            self._owner.attempt_ended(outcome)

    def _judge_head(self, head: ResponseHead) -> bool:
        if head.judged is not None:
            self.fields = head.judged.fields
            self.status = head.status
            return True
        try:
            fields = read_response_fields(head.fields)
        except ValueError as cause:
            self.fail(UpstreamError(ErrorCode.HTTP_PROTOCOL_ERROR, str(cause)))
            return False
        if head.reason != b"OK" and not _REASON.fullmatch(head.reason):
            self.fail(UpstreamError(ErrorCode.HTTP_PROTOCOL_ERROR, "control octets in the reason"))
            return False
        if head.status <= 204 and head.status in {101, 204}:
            if fields.chunked or fields.content_length:
                # A caller that believed the field would wait for it (RFC 9110 section 8.6).
                detail = "101 or 204 that announces a body"
                self.fail(UpstreamError(ErrorCode.HTTP_PROTOCOL_ERROR, detail))
                return False
            if head.status == 101:
                self._owner.switched()
        self.fields = fields
        self.status = head.status
        if head.body_bytes >= 0:
            head.judged = _Judged(fields)
        if head.status >= 400:
            self._peek_left = PEEK_BYTES
            self._peeked = []
            if self._takes_credential and head.status in {401, 403}:
                self._head = head
                self._held = []
                asyncio.get_running_loop().call_later(_HOLD_S, self._release)
        return True

    def _peek(self, body: list[bytes]) -> None:
        if self._peeked is None:
            return
        for piece in body:
            self._peeked.append(piece[: self._peek_left])
            self._peek_left -= len(piece)
            if self._peek_left <= 0:
                return

    def _may_reject(self) -> bool:
        """Say whether what there is of the body can become an error of the vendor's."""
        text = b"".join(self._peeked or ()).lstrip()
        challenged = self.fields is not None and self.fields.challenges_for_keystone
        return not text or text.startswith(b"{") or challenged

    def _is_rejected(self) -> bool:
        fields = self.fields
        return (
            fields is not None
            and is_token_rejection(
                self.status,
                self.vendor_code,
                server=fields.server,
                keystone=fields.challenges_for_keystone,
            )
            and self._owner.hides_rejection()
        )

    def _pass_on(self, head: ResponseHead | None, body: list[bytes], complete: bool) -> None:
        pieces: list[bytes] = []
        if head is not None and self.fields is not None:
            pieces.append(self._reply_head(head, self.fields))
            self.started = True
        self.response_bytes += len(body[0]) if len(body) == 1 else sum(map(len, body))
        if self._chunked:
            pieces.extend(map(chunk, body))
            if complete:
                pieces.append(LAST_CHUNK)
        else:
            pieces.extend(body)
        if pieces:
            self._downstream.write(pieces)

    def _mapped(self, line: bytes) -> bytes:
        name, mark, value = line.partition(b": ")
        if name.lower() != b"location":
            return line
        return name + mark + self._owner.location_for_caller(value)

    def _reply_head(self, head: ResponseHead, fields: ResponseFields) -> bytes:
        inbound = self._inbound
        judged: _Judged | None = head.judged
        if (
            judged is None
            or fields.redirects
            or not (self.keep_alive and inbound.ended)
            or inbound.version != "1.1"
        ):
            return self._new_reply_head(head, fields)
        if not judged.reply:
            judged.reply = self._new_reply_head(head, fields)
        return judged.reply

    def _new_reply_head(self, head: ResponseHead, fields: ResponseFields) -> bytes:
        inbound = self._inbound
        framing = response_framing(
            head.status,
            head_request=inbound.method == "HEAD",
            content_length=fields.content_length,
            chunked=fields.chunked,
        )
        lines = list(map(self._mapped, fields.lines)) if fields.redirects else fields.lines.copy()
        http_1_0 = inbound.version == "1.0"
        if framing is _CHUNKED and not http_1_0:
            self._chunked = True
            lines.append(b"Transfer-Encoding: chunked")
        elif head.status == 101:
            self.keep_alive = False
            lines.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
            return b"HTTP/1.1 101 %b\r\n%b\r\n" % (head.reason, b"\r\n".join(lines))
        elif framing is _CLOSE or framing is _CHUNKED:
            self.keep_alive = False
        if not inbound.ended:
            self.keep_alive = False  # what is left of the request would be taken for the next
        if not self.keep_alive:
            lines.append(b"Connection: close")
        elif http_1_0:
            lines.append(b"Connection: keep-alive")
        if head.status == 200 and head.reason == b"OK":
            status_line = _OK
        else:
            status_line = b"HTTP/1.1 %d %b" % (head.status, head.reason)
        return b"\r\n".join((status_line, *lines, b"", b""))
