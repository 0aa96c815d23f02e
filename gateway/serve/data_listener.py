"""The data listener: where aiohttp's server meets the proxy, and the only place that knows both.

Three of aiohttp's private names are used here, for want of public ones; each is named in
`PRIVATE_NAMES`, and a test fails when aiohttp changes them.
"""

import asyncio
import logging
import socket
import struct
from typing import Any, cast

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.target import MAX_TARGET_BYTES
from gateway.proxy.exchange import Exchange, Proxy
from gateway.proxy.inbound import Inbound

MAX_FIELD_BYTES = 32 * 1024
"""One header field; differs from `MAX_TARGET_BYTES`, which tells the two apart in an error."""
MAX_FIELDS = 100
HEAD_TIMEOUT_S = 10.0
"""From the first to the last byte of a request's head. nginx: 60 s, Go: none, Envoy: none; a caller
on the same machine needs milliseconds."""
IDLE_TIMEOUT_S = 75.0
"""As nginx: longer than the 60 s after which most clients drop an idle connection themselves."""
_READ_BYTES = 64 * 1024
"""Body bytes that may wait in memory, per request, before the caller is made to pause."""
_LINGER_S = 2.0
"""How long the rest of a refused request is read and thrown away, so that the answer arrives."""

PRIVATE_NAMES = {
    "RequestHandler": ("_messages",),
    "BaseRequest": ("_finish", "_cancel", "_task"),
}

_log = logging.getLogger("gateway.serve")
_RESET = struct.pack("ii", 1, 0)


class _Request:
    """What aiohttp's server passes to a handler: nothing but what was parsed.

    A `BaseRequest` costs 3 µs in dictionaries and properties that a gateway never asks for.
    """

    __slots__ = ("_task", "connection", "message", "payload")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: web.RequestHandler,
        _writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> None:
        self.message = message
        self.payload = payload
        self.connection = cast(DownstreamConnection, connection)
        self._task = task

    def _finish(self) -> None:
        """Nothing to clean up (aiohttp closes form files here)."""

    def _cancel(self, exc: BaseException) -> None:
        """The connection is gone (aiohttp tells readers of the body)."""
        self.payload.set_exception(exc)


class _Written(web.StreamResponse):
    """Stands for a response that has been written already; one object serves for all."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002  # aiohttp's signature
        """Do nothing: the head is on the wire."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: so is the body."""


_KEEP = _Written(keep_alive=True)
_CLOSE = _Written(keep_alive=False)


class _Body:
    """The rest of a request's body (a `RequestBody`); renames aiohttp's errors."""

    __slots__ = ("_payload",)

    def __init__(self, payload: StreamReader) -> None:
        self._payload = payload

    async def read(self) -> bytes:
        """Return the next piece, nothing at the end (see `RequestBody`)."""
        try:
            return await self._payload.readany()
        except (web.RequestPayloadError, web.PayloadAccessError) as cause:
            raise DownstreamError(ErrorCode.BAD_REQUEST, "malformed body") from cause
        except (ConnectionError, RuntimeError) as cause:
            raise DownstreamError(ErrorCode.CLIENT_DISCONNECTED) from cause


class DownstreamConnection(web.RequestHandler):
    """A caller's connection (a `Downstream`), with deadlines and errors of our own.

    A caller that closes its side, or half of it, has left: its exchange is cancelled and the call
    upstream aborted, as nginx and Go do; the two cannot be told apart before we have answered.
    """

    __slots__ = ("_exchange", "_head_began", "_listener", "_proxy", "deadline", "received_at")

    def __init__(self, listener: "DataListener", **settings: Any) -> None:
        super().__init__(listener, **settings)
        self.deadline = float("inf")
        self.received_at = 0.0
        self._listener = listener
        self._proxy = listener.proxy
        self._exchange: Exchange | None = None
        self._head_began = False

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._exchange is not None

    # What the exchange does with it (`Downstream`); `writing_paused` is aiohttp's own.

    def write(self, pieces: list[bytes]) -> None:
        """Send pieces in order; they leave in one segment when they fit."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)

    def abort(self) -> None:
        """Reset the connection; a mere close would end a body that has no length."""
        transport = self.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    # What the event loop tells us.

    def data_received(self, data: bytes) -> None:
        """Parse, and begin to count the time of a head that is not complete yet."""
        if data:
            self.received_at = self._proxy.clock()
        super().data_received(data)
        if self._exchange is not None:
            return
        if self._messages:
            if self._head_began:
                self._head_began = False
                self._proxy.deadlines.forget(self)
        elif data and not self._head_began:
            self._head_began = True
            self.deadline = self.received_at + HEAD_TIMEOUT_S
            self._proxy.deadlines.watch(self)

    def resume_writing(self) -> None:
        """Let the service go on as well."""
        super().resume_writing()
        if self._exchange is not None:
            self._exchange.downstream_writable()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop counting; aiohttp cancels the handler."""
        self._proxy.deadlines.forget(self)
        super().connection_lost(exc)

    def expire(self) -> None:
        """Give up on a head that does not come to its end (see `Deadlines`)."""
        self._refuse(ErrorCode.SLOW_REQUEST)
        self.force_close()

    # What aiohttp's server asks of a connection.

    async def handle(self, message: RawRequestMessage, payload: StreamReader) -> web.StreamResponse:
        """Answer one request."""
        body = payload.read_nowait()
        exchange = Exchange(
            self._proxy,
            Inbound(
                message.method,
                message.path.encode("utf-8", "surrogateescape"),
                message.version,
                message.raw_headers,
                body,
                None if payload.is_eof() else _Body(payload),
                # aiohttp's parser keeps the last trailer of a chunked body and gives it to the
                # next request on the connection: there must be none (aiohttp 3.14.5).
                keep_alive=not (message.should_close or message.chunked or self._listener.draining),
                received_at=self.received_at,
            ),
            self,
        )
        self._exchange = exchange
        try:
            keep_alive = await exchange.run()
        finally:
            self._exchange = None
            self._listener.note_end()
        return _KEEP if keep_alive and not self._listener.draining else _CLOSE

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002  # aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # as above
    ) -> web.StreamResponse:
        """Answer what could not be parsed, or a bug of ours; aiohttp would log a traceback."""
        if status == 500:
            _log.error("request failed by a bug of the gateway", exc_info=exc)
            self._refuse(ErrorCode.INTERNAL)
        else:
            self._refuse(_code_of(exc))
        return _CLOSE

    def _refuse(self, code: ErrorCode) -> None:
        inbound = Inbound("", b"", (1, 1), (), b"", None, False, self.received_at)
        Exchange(self._proxy, inbound, self).refuse(code)


class DataListener(web.Server):
    """aiohttp's low-level server, without router, application, access log or error pages."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(
            self._handle,  # type: ignore[arg-type]  # a slimmer request, see `_Request`
            request_factory=_Request,  # type: ignore[arg-type]  # as above
            handler_cancellation=True,
        )
        self.proxy = proxy
        self.draining = False
        """Set when the gateway is on its way out: answers are the last on their connections."""
        self._all_ended: asyncio.Event | None = None

    async def drain(self, timeout_s: float) -> bool:
        """Close idle connections, and wait until requests in flight have been answered.

        Returns:
            Whether that was so before `timeout_s` were over.
        """
        self._all_ended = asyncio.Event()
        for connection in self.connections:
            if isinstance(connection, DownstreamConnection) and not connection.busy:
                connection.force_close()
        self.note_end()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_ended.wait()
        except TimeoutError:
            return False
        return True

    def note_end(self) -> None:
        """Hear that a request has been answered; during a drain it may have been the last."""
        if self._all_ended is not None and not any(
            isinstance(connection, DownstreamConnection) and connection.busy
            for connection in self.connections
        ):
            self._all_ended.set()

    def __call__(self) -> DownstreamConnection:
        """Make the protocol of a new connection."""
        return DownstreamConnection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            logger=_log,
            keepalive_timeout=IDLE_TIMEOUT_S,
            max_line_size=MAX_TARGET_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            lingering_time=_LINGER_S,
            read_bufsize=_READ_BYTES,
            auto_decompress=False,
        )

    @staticmethod
    async def _handle(request: _Request) -> web.StreamResponse:
        return await request.connection.handle(request.message, request.payload)


def _code_of(error: BaseException | None) -> ErrorCode:
    """Name what aiohttp's parser has complained about."""
    match error:
        case BadHttpMethod():
            return ErrorCode.METHOD_UNKNOWN
        case LineTooLong():
            over_target = len(error.args) > 1 and error.args[1] == MAX_TARGET_BYTES
            return ErrorCode.TARGET_TOO_LONG if over_target else ErrorCode.HEADERS_TOO_LARGE
        case _ if error is not None and "Too many headers" in str(error):
            return ErrorCode.HEADERS_TOO_LARGE
        case _:
            return ErrorCode.BAD_REQUEST
