"""One connection to the token endpoint."""

import asyncio
import secrets
from typing import Final, Protocol, cast

from gateway.clock import wall_clock
from gateway.errors import CredentialError, DownstreamError, ErrorCode, GatewayError
from gateway.http.date import DateField
from gateway.http.reader_state import DONE, TUNNEL
from gateway.http.request import Request
from gateway.http.request_reader import RequestReader
from gateway.identity.credential import Credential
from gateway.proxy.answers import error_response
from gateway.tokens.answer import Question, fingerprint_in, granted, noted, question_in

IDLE_S: Final = 75.0
REQUEST_S: Final = 5.0
"""From the first byte of a request to its last."""
MAX_BODY: Final = 64 * 1024
"""Some data planes send their caller's body; it is not read."""
_LONGEST_REPORT: Final = 1024


class CredentialsOfIdentity(Protocol):
    """What the endpoint needs from an identity's credential cache."""

    def usable(self, now: float) -> Credential | None:
        """Return a credential that may be used at `now`, from memory, or None."""
        ...

    async def obtain(self) -> Credential:
        """Return a usable credential, if need be after a login; raises CredentialError."""
        ...

    def reject(self, credential: Credential) -> bool:
        """Called when a service did not accept `credential`; return whether another is coming."""
        ...

    def fingerprint(self) -> str:
        """Return the fingerprint of the token in use; empty if there is none."""
        ...


class TokenOwner(Protocol):
    """What a connection needs from the listener that accepted it."""

    def now(self) -> float:
        """Return the time by the clock of credentials."""
        ...

    def admit(self, host: bytes | None) -> None:
        """Return if this Host value is allowed; otherwise raise DownstreamError."""
        ...

    def find(self, service: str) -> CredentialsOfIdentity:
        """Return the credentials of a service; raise DownstreamError for an unknown one."""
        ...

    def opened(self, connection: "TokenConnection") -> None:
        """Called when the connection has been accepted."""
        ...

    def heard(self, connection: "TokenConnection") -> None:
        """Called when bytes have arrived on it."""
        ...

    def lost(self, connection: "TokenConnection") -> None:
        """Called when the connection is gone."""
        ...


class TokenConnection(asyncio.Protocol):
    """Reads requests one after the other and answers each.

    Invariants: at most one request is under way, and meanwhile nothing more is read, nor while the
    client does not read; what has arrived is bounded by the reader's limits and one read; something
    always has a deadline, the last response, too.
    """

    def __init__(self, owner: TokenOwner) -> None:
        self._owner = owner
        self._reader = RequestReader()
        self._body = bytearray()
        self._transport: asyncio.Transport | None = None
        self._answering: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writing_paused = False
        self._is_last = False  # what has been answered: nothing follows

    @property
    def unsent_bytes(self) -> int:
        """Bytes of responses that wait for the client to read them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count the time."""
        self._transport = cast(asyncio.Transport, transport)
        self._limit(IDLE_S)
        self._owner.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002  # asyncio's
        """Cancel the request under way."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._answering is not None:
            self._answering.cancel()
        self._owner.lost(self)

    def data_received(self, data: bytes) -> None:
        """Add bytes, and respond to each request that is complete."""
        self._owner.heard(self)
        was_idle = self._reader.request is None and not self._reader.in_head()
        self._reader.feed(data)
        self._go_on(was_idle=was_idle)

    def pause_writing(self) -> None:
        """Let a client that only asks and never reads wait for itself."""
        self._writing_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with what it has asked meanwhile."""
        self._writing_paused = False
        self._resume()

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def _is_held_up(self) -> bool:
        """Whether no further request may be answered now."""
        return self._answering is not None or self._writing_paused or self._is_last

    def _resume(self) -> None:
        """Read on, unless there is a reason not to."""
        transport = self._transport
        if transport is not None and not self._is_held_up:
            transport.resume_reading()
            self._go_on(was_idle=True)

    def _go_on(self, *, was_idle: bool) -> None:
        reader = self._reader
        while self._transport is not None and not self._is_held_up:
            if reader.refusal is not None:
                self._refuse(reader.refusal, reader.refused_method, close=True)
                return
            request = reader.request
            if request is None or not self._is_whole(request):
                if was_idle and (request is not None or reader.in_head()):
                    self._limit(REQUEST_S)
                return
            self._answer(request)

    def _is_whole(self, request: Request) -> bool:
        """Collect a request's body as far as it has arrived; return whether it is complete."""
        for piece in request.take_body():
            self._body += piece
        if len(self._body) > MAX_BODY:
            self._refuse(
                DownstreamError(ErrorCode.BODY_TOO_LARGE), request.head.line.method, close=True
            )
            return False
        return self._reader.state in {DONE, TUNNEL}

    def _answer(self, request: Request) -> None:
        head, body = request.head, bytes(self._body[: _LONGEST_REPORT + 1])
        self._body.clear()
        close = not head.keep_alive
        try:
            self._owner.admit(head.host)
            question = question_in(head)
            source = self._owner.find(question.service)
            if question.is_report:
                self._note(source, fingerprint_in(question.query, body), close=close)
                return
        except GatewayError as error:
            self._refuse(error, head.line.method, close=close)
            return
        credential = source.usable(self._owner.now())
        if credential is not None:
            self._grant(source, credential, question, close=close)
            return
        if self._transport is not None:
            self._transport.pause_reading()
        self._answering = asyncio.create_task(
            self._wait(source, question, head.line.method, close=close), name="token-endpoint"
        )

    async def _wait(
        self, source: CredentialsOfIdentity, question: Question, method: str, *, close: bool
    ) -> None:
        self._limit(IDLE_S)
        try:
            credential = await source.obtain()
        except CredentialError as error:
            self._refuse(error, method, close=close)
        else:
            self._grant(source, credential, question, close=close)
        self._answering = None
        self._resume()

    def _grant(
        self,
        source: CredentialsOfIdentity,
        credential: Credential,
        question: Question,
        *,
        close: bool,
    ) -> None:
        answer = granted(
            credential,
            source.fingerprint(),
            now=self._owner.now(),
            as_json=question.as_json,
            close=close,
        )
        self._write(answer, close=close)

    def _note(self, source: CredentialsOfIdentity, fingerprint: str, *, close: bool) -> None:
        """Drop the token that a service has rejected, if it is the one in use."""
        credential = source.usable(self._owner.now())
        is_current = credential is not None and source.fingerprint() == fingerprint
        renewing = source.reject(credential) if is_current and credential is not None else True
        self._write(noted(renewing=renewing, close=close), close=close)

    def _refuse(self, error: GatewayError, method: str, *, close: bool) -> None:
        request_id, date_line = secrets.token_hex(16), DateField(wall_clock).line()
        answer = error_response(
            error, request_id, date_line, with_body=method != "HEAD", close=close
        )
        self._write(answer, close=close)

    def _write(self, answer: bytes, *, close: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        self._limit(IDLE_S)
        transport.write(answer)
        if close:
            self._is_last = True
            transport.close()
        else:
            self._reader.begin_next()

    def _limit(self, seconds: float) -> None:
        """Set the deadline of the present step, in seconds from now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.close)
