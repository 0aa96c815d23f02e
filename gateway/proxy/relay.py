"""The way of one response to the client, piece by piece as it comes."""

from typing import Final

from gateway.http.chunked import LAST_CHUNK, chunk
from gateway.http.date import DateField
from gateway.http.framing import CHUNKED, CLOSE
from gateway.http.pieces import size_of
from gateway.http.request import Request
from gateway.http.response_head import ResponseHead
from gateway.proxy.admission import Admission
from gateway.proxy.downstream import Downstream


class Relay:
    """Writes one response to the client.

    Invariant: a response ends for the client only when it has ended upstream.
    """

    __slots__ = (
        "_admission",
        "_chunked",
        "_dates",
        "_request",
        "downstream",
        "keep_alive",
        "response_bytes",
        "started",
    )

    def __init__(
        self, admission: Admission, request: Request, downstream: Downstream, dates: DateField
    ) -> None:
        self.keep_alive = False
        """Whether the client's connection can be used again behind the response that has begun."""
        self.started = False
        """Whether a status line is on its way to the client."""
        self.response_bytes = 0
        """Of the body, without framing."""
        self.downstream = downstream
        self._admission = admission
        self._request = request
        self._dates = dates
        self._chunked = False

    def pass_on(self, head: ResponseHead, body: list[bytes], complete: bool) -> None:
        """Write more of the response, its head first.

        Args:
            head: of the response, the same each time.
            body: further pieces of the body.
            complete: the body ends with them.
        """
        pieces: list[bytes] = []
        if not self.started:
            self.started = True
            pieces.append(self._begin(head))
        if body:
            self.response_bytes += size_of(body)
        if self._chunked:
            pieces.extend([chunk(piece) for piece in body])  # compiled, `map` costs more
            if complete:
                pieces.append(LAST_CHUNK)
        else:
            pieces.extend(body)
        if pieces:
            self.downstream.write(pieces)

    def _begin(self, head: ResponseHead) -> bytes:
        """Decide about framing and connection; return the head for the client."""
        lines = [head.line.text]
        if head.redirects:
            lines.extend(map(self._mapped, head.lines))
        else:
            lines.extend(head.lines)
        if head.status == 101:
            lines.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            return b"\r\n".join(lines)
        if not head.dated:
            lines.append(self._dates.line())  # RFC 9110 section 6.6.1
        request = self._request
        self.keep_alive = request.head.keep_alive  # as it is now: the gateway may be ending
        http_1_0 = request.head.line.http_1_0
        if head.framing is CHUNKED and not http_1_0:
            self._chunked = True
            lines.append(b"Transfer-Encoding: chunked")
        elif head.framing is CHUNKED or head.framing is CLOSE:
            self.keep_alive = False
        if not request.ended:
            self.keep_alive = False  # what is left of the request would be taken for the next
        if not self.keep_alive:
            lines.append(b"Connection: close")
        elif http_1_0:
            lines.append(b"Connection: keep-alive")
        lines.append(_END)
        return b"\r\n".join(lines)

    def _mapped(self, line: bytes) -> bytes:
        name, mark, value = line.partition(b": ")
        if name.lower() != b"location":
            return line
        return name + mark + self._admission.location_for_client(value)


_END: Final = b"\r\n"
