"""From a service's bytes to the response to one request. Pure: no socket, no clock.

The same bytes give the same response, however they are cut.
"""

from typing import Final

from gateway.errors import UpstreamError
from gateway.http import response_head
from gateway.http.chunked import ChunkedReader, ChunkError
from gateway.http.framing import CHUNKED, CLOSE, LENGTH
from gateway.http.lines import is_clean
from gateway.http.pieces import gathered
from gateway.http.reader_state import (
    BODY_CHUNKED,
    BODY_COUNTED,
    BODY_UNTIL_CLOSE,
    DONE,
    HEAD,
    REFUSED,
    TUNNEL,
    ReaderState,
)
from gateway.http.response_head import (
    ResponseHead,
    malformed,
    read_status_line,
)

MAX_HEAD_BYTES: Final = 64 * 1024
"""nginx: 4-8 KiB, Envoy: 60 KiB, Go: 1 MiB. A large token echoed back still fits."""
MAX_FIELDS: Final = 256
_MAX_INTERIM: Final = 16
"""1xx responses before the final one; a flood of 102 would otherwise last for ever."""
_STATUS_LINE_BEGIN: Final = b"HTTP/1."


class ResponseReader:
    """Reads one response: interim ones are absorbed, trailers dropped.

    Invariants: memory is bounded by the limits above and one read; `head` is set once; after a
    refusal or the end nothing more is read.
    """

    __slots__ = (
        "_chunks",
        "_head_request",
        "_interim",
        "_left",
        "_overhead",
        "_switch_to",
        "_unread",
        "chunks",
        "has_excess",
        "head",
        "state",
    )

    def __init__(self, *, head_request: bool, switch_to: bytes = b"") -> None:
        """Prepare to read one response (see `begin`)."""
        self.begin(head_request, switch_to)

    def begin(self, head_request: bool, switch_to: bytes) -> None:
        """Prepare to read another response; nothing is left of the one before.

        Args:
            head_request: the request's method is HEAD, so the response has no body.
            switch_to: protocol, in lower case, that a 101 may switch to; empty: none.
        """
        self.state: ReaderState = HEAD
        self.head: ResponseHead | None = None
        """Of the final response, or of the 101 that switches protocols, once it has been read."""
        self.has_excess = False
        """Whether bytes have come behind the response's end."""
        self.chunks = 0
        """Of a chunked body: how many have begun."""
        self._interim = 0
        self._overhead = 0  # bytes of heads that have not become a final one
        self._unread = b""  # beginning of a head
        self._left = 0  # of a counted body
        self._chunks: ChunkedReader | None = None
        self._head_request = head_request
        self._switch_to = switch_to

    @property
    def waiting_bytes(self) -> int:
        """What is kept of an unfinished head, or of an unfinished line of a chunk."""
        return len(self._unread) + (0 if self._chunks is None else self._chunks.waiting_bytes)

    def feed(self, data: bytes) -> list[bytes]:
        """Read what has arrived; return the pieces of body in it, without framing.

        Raises:
            UpstreamError: it is not valid HTTP; the state is `REFUSED`.
        """
        state = self.state
        try:
            if state is HEAD:
                return self._read_head(data)
            if state is BODY_COUNTED:
                return self._read_counted(data)
            if self._chunks is not None:
                return self._read_chunks(self._chunks, data)
        except UpstreamError:
            self._refuse()
            raise
        except ChunkError as cause:
            self._refuse()
            raise malformed(str(cause)) from cause
        if state is DONE:
            self.has_excess = True
        return [data] if state is BODY_UNTIL_CLOSE or state is TUNNEL else []

    def end_of_stream(self) -> bool:
        """Return whether the response is complete when the service's side of the stream ends."""
        if self.state is BODY_UNTIL_CLOSE or self.state is TUNNEL:
            self.state = DONE
        return self.state is DONE

    def _read_head(self, data: bytes) -> list[bytes]:
        unread = self._unread
        if unread:
            begin, data = unread[:-3], unread + data  # what has been looked at has no end in it
            block, is_complete, rest = data[len(begin) :].partition(b"\r\n\r\n")
            block = begin + block
        else:
            block, is_complete, rest = data.partition(b"\r\n\r\n")
        if not is_complete:
            if not data.startswith(_STATUS_LINE_BEGIN[: len(data)]):
                raise malformed("the response does not begin with a status line")
            if self._overhead + len(data) - 3 > MAX_HEAD_BYTES:  # but for its last line ends
                raise malformed("the head is too large")
            # So nobody waits for the end of a head whose lines end without CR.
            new = data[len(unread) - unread.endswith(b"\r") :].removesuffix(b"\r")
            if not is_clean(new.replace(b"\r\n", b"")):
                raise malformed("control octets in the head")
            self._unread = data
            return []
        self._unread = b""
        head = self._head_in(block)
        if head.status >= 200 or head.status == 101:  # else another follows (RFC 9110 section 15.2)
            return self._begin_body(head, rest)
        self._interim += 1
        self._overhead += len(data) - len(rest)
        if self._interim > _MAX_INTERIM:
            raise malformed("too many interim responses")
        return self._read_head(rest) if rest else []

    def _head_in(self, block: bytes) -> ResponseHead:
        if self._overhead + len(block) > MAX_HEAD_BYTES:
            raise malformed("the head is too large")
        lines = block.split(b"\r\n")
        if len(lines) > MAX_FIELDS + 1:
            raise malformed("the head has too many fields")
        head = ResponseHead(read_status_line(lines[0]))
        del lines[0]
        response_head.RESPONSE_FIELDS.read(lines, head)
        response_head.finish(head, self._head_request)
        return head

    def _begin_body(self, head: ResponseHead, rest: bytes) -> list[bytes]:
        if head.status == 101:
            if not (
                self._switch_to
                and head.upgrade == self._switch_to
                and b"upgrade" in head.options
                and not head.line.http_1_0
            ):
                raise malformed("101 that was not asked for")
            self.state = TUNNEL
            self.head = head
            return [rest] if rest else []
        self.head = head
        framing = head.framing
        if framing is LENGTH and head.content_length:
            self.state = BODY_COUNTED
            self._left = head.content_length
            return self._read_counted(rest) if rest else []
        if framing is CHUNKED:
            self.state = BODY_CHUNKED
            self._chunks = ChunkedReader(MAX_HEAD_BYTES)
            return self._read_chunks(self._chunks, rest) if rest else []
        if framing is CLOSE:
            self.state = BODY_UNTIL_CLOSE
            return [rest] if rest else []
        self._end(rest)
        return []

    def _read_counted(self, data: bytes) -> list[bytes]:
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return [data]
        if len(data) == left:
            self._end(b"")
            return [data]
        self._end(data[left:])
        return [data[:left]]

    def _read_chunks(self, chunks: ChunkedReader, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        rest = chunks.read(data, pieces)
        self.chunks = chunks.chunks
        if chunks.ended:
            self._chunks = None
            self._end(rest)
        return gathered(pieces)

    def _end(self, rest: bytes) -> None:
        self.state = DONE
        self.has_excess = bool(rest)

    def _refuse(self) -> None:
        self.state = REFUSED
        self._unread = b""
        self._chunks = None
