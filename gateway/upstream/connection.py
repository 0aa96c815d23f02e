"""One HTTP/1.1 connection to a service: its socket, and whether it may be used again.

Writes a request, has the response read, and decides nothing.
"""

import asyncio
from typing import cast

from mypy_extensions import mypyc_attr

from gateway.errors import ErrorCode, UpstreamError
from gateway.http.pieces import joined_if_small
from gateway.http.reader_state import DONE
from gateway.http.response_head import ResponseHead
from gateway.http.response_reader import ResponseReader


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponseListener:
    """What is told about the response to one request. Called synchronously, never after the end."""

    __slots__ = ()

    def on_response(self, head: ResponseHead, body: list[bytes], complete: bool) -> None:
        """Called with what one read has brought.

        Args:
            head: of the final response; the same object each time.
            body: further pieces of the body in order, without framing; may be empty.
            complete: this was all, and the connection is no longer the listener's.
        """
        raise NotImplementedError

    def on_failure(self, error: UpstreamError) -> None:
        """Called when the response will not come, or not to its end. The connection is closed."""
        raise NotImplementedError

    def on_writable(self) -> None:
        """Called when the service reads again, after `writing_paused`."""
        raise NotImplementedError


class Connection:
    """A connection to one origin: the event loop's protocol.

    Invariants:
        - at most one request is under way; the listener of `start` is told of completeness or a
          failure exactly once, unless it calls `abort` or `close` first;
        - once a byte has arrived unasked, a request has not left whole, or either side wants to
          close, it is never `reusable` again (pingora, httpcore: late bytes reach a stranger).
    """

    __slots__ = (
        "_listener",
        "_reader",
        "_request_written",
        "_transport",
        "good_until",
        "heard",
        "requests",
        "retire_at",
        "reusable",
        "writing_paused",
    )

    def __init__(self, retire_at: float) -> None:
        self.retire_at = retire_at
        """From when on it is not to be used again, however busy it is; the pool's own."""
        self.good_until = retire_at
        """While idle: when the pool must have closed it; the pool's own."""
        self.requests = 0
        """Requests started on this connection."""
        self.reusable = True
        self.heard = False
        """Whether a byte of the response under way, or of an interim one, has arrived."""
        self.writing_paused = False
        """Whether the service reads more slowly than we write, until `on_writable`."""
        self._transport: asyncio.Transport | None = None
        self._listener: ResponseListener | None = None
        self._reader = ResponseReader(head_request=False)
        self._request_written = True

    def __repr__(self) -> str:
        if self._transport is None:
            state = "closed"
        else:
            state = "idle" if self._listener is None else self._reader.state.name.lower()
        return f"<Connection {state} requests={self.requests} reusable={self.reusable}>"

    # What an exchange does with it.

    def start(
        self,
        listener: ResponseListener,
        pieces: list[bytes],
        head_request: bool,
        sent: bool,
        switch_to: bytes = b"",
    ) -> None:
        """Write the head of a request, and as much of its body as is at hand, in one piece.

        Args:
            listener: is told about everything that comes back.
            pieces: head and first body bytes, framed.
            head_request: the method is HEAD, so the response has no body.
            sent: `pieces` are the whole request; otherwise `write` and `end` follow.
            switch_to: protocol, in lower case, that a 101 may switch to; after that `write` takes
                its bytes and `on_response` brings them, until either side closes.
        """
        self.requests += 1
        self.heard = False
        self._listener = listener
        self._reader.begin(head_request, switch_to)
        self._request_written = sent
        if switch_to:
            self.reusable = False
        transport = self._transport
        if transport is None or transport.is_closing():
            code = ErrorCode.CONNECTION_TERMINATED
            self._fail(UpstreamError(code, "closed before the request", replayable=True))
        else:
            _send(transport, pieces)

    def write(self, pieces: list[bytes]) -> None:
        """Write more of the request's body, framed. Nothing happens when we are closed."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            _send(transport, pieces)

    def end(self) -> None:
        """Note that the request has been written whole."""
        self._request_written = True

    @property
    def chunks(self) -> int:
        """How many chunks of the response's body have begun; 0 if it is not chunked."""
        return self._reader.chunks

    @property
    def unsent_bytes(self) -> int:
        """Bytes of the request that wait for the service to read them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def unread_bytes(self) -> int:
        """Bytes of the response that wait for the rest of a line or a head."""
        return self._reader.waiting_bytes

    def pause_reading(self) -> None:
        """Leave what the service sends in the kernel until `resume_reading`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading; does nothing when not paused."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once, without telling the listener.

        Unsent bytes are lost, so the service sees an aborted request, never a complete one.
        """
        self._listener = None
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after what has been written, without telling the listener."""
        self._listener = None
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    # What the event loop tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the open transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read what has arrived, and tell the listener once."""
        listener, reader = self._listener, self._reader
        if listener is None:
            self.abort()  # nobody asked: whatever it is, nobody may get it
            return
        self.heard = True
        had_head = reader.head is not None
        try:
            body = reader.feed(data)
        except UpstreamError as error:
            self._fail(error)
            return
        head = reader.head
        if head is None:
            return
        if reader.state is DONE:
            self._release(head.keep_alive and not reader.has_excess)
            listener.on_response(head, body, True)
        elif body or not had_head:
            listener.on_response(head, body, False)

    def eof_received(self) -> None:
        """Take the end of the stream as the end of a body that has no other."""
        self.reusable = False
        listener, head = self._listener, self._reader.head
        if listener is not None and head is not None and self._reader.end_of_stream():
            # Over TLS only a close_notify gets here; a bare FIN is `connection_lost`.
            self._release(keep=False)
            listener.on_response(head, [], True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange under way, if any."""
        self._transport = None
        self.reusable = False
        if self._listener is not None:
            began = self._reader.head is not None
            self._fail(
                UpstreamError(
                    ErrorCode.HTTP_RESPONSE_INCOMPLETE
                    if began
                    else ErrorCode.CONNECTION_TERMINATED,
                    "connection closed" if exc is None else type(exc).__name__,
                )
            )

    def pause_writing(self) -> None:
        """Note that the service reads more slowly than we write."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """Let the request's body go on."""
        self.writing_paused = False
        if self._listener is not None:
            self._listener.on_writable()

    def _release(self, keep: bool) -> None:
        """End the exchange under way; keep the connection only if all of the request has left."""
        self._listener = None
        transport = self._transport
        if (
            not keep
            or not self._request_written
            or transport is None
            or transport.get_write_buffer_size()
        ):
            self.reusable = False

    def _fail(self, error: UpstreamError) -> None:
        listener = self._listener
        self.abort()
        if listener is not None:
            listener.on_failure(error)


def _send(transport: asyncio.Transport, pieces: list[bytes]) -> None:
    data = joined_if_small(pieces)
    if data is not None:
        transport.write(data)
    else:
        transport.writelines(pieces)
