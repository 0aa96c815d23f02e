"""From a client's bytes to requests, one after the other. Pure: no socket, no clock.

The same bytes give the same requests, however they are cut.
"""

from typing import Final

from gateway.errors import DownstreamError, ErrorCode
from gateway.http import request_head
from gateway.http.chunked import ChunkedReader, ChunkError
from gateway.http.lines import is_clean
from gateway.http.pieces import gathered
from gateway.http.reader_state import (
    BODY_CHUNKED,
    BODY_COUNTED,
    DONE,
    HEAD,
    REFUSED,
    TUNNEL,
    ReaderState,
)
from gateway.http.request import Request
from gateway.http.request_head import (
    RequestHead,
    check_start,
    method_in,
    read_request_line,
)

MAX_HEAD_BYTES: Final = 128 * 1024
"""All fields of a request: what the vendor's API gateway takes."""
MAX_FIELD_BYTES: Final = 32 * 1024
"""Name and value of one field: the same."""
MAX_FIELDS: Final = 100
_LINE_BYTES: Final = 100
"""What a line takes in memory beside its bytes."""
_BETWEEN: Final = 2
"""A field's colon and space, which do not count."""


class RequestReader:
    """Reads the requests of one connection.

    A request that is complete ends reading (`DONE`) until `begin_next`; what has arrived behind it
    is kept unread, and the connection's owner stops reading it meanwhile.

    Invariants: memory is bounded by the limits above and one read; after a refusal nothing more is
    read; a line that has been read is not looked at again.
    """

    __slots__ = (
        "_chunks",
        "_fields",
        "_head",
        "_head_bytes",
        "_left",
        "_unread",
        "refusal",
        "refused_method",
        "request",
        "state",
    )

    def __init__(self) -> None:
        self.state: ReaderState = HEAD
        self.request: Request | None = None
        """The request whose head was read last; none while the next head is being read."""
        self.refusal: DownstreamError | None = None
        """Why nothing more is read."""
        self.refused_method = ""
        """Of the request that was refused, where it is known: the response to HEAD has no body."""
        self._unread = b""  # unfinished line of a head, or what has arrived behind a request
        self._head: RequestHead | None = None  # some of whose lines have been read
        self._fields = 0
        self._head_bytes = 0
        self._left = 0  # of a counted body
        self._chunks: ChunkedReader | None = None  # of a chunked body

    def in_head(self) -> bool:
        """Return whether a head has begun and not ended."""
        return self.state is HEAD and (self._head is not None or bool(self._unread))

    def has_unread(self) -> bool:
        """Return whether bytes have arrived behind the request that is complete."""
        return self.state is DONE and bool(self._unread)

    @property
    def waiting_bytes(self) -> int:
        """What is kept of a head, of a chunk's line, and of what has arrived behind, in memory."""
        size = len(self._unread)
        if self._chunks is not None:
            size += self._chunks.waiting_bytes
        if self.request is not None:
            size += 2 * self._head_bytes + _LINE_BYTES * self._fields  # as forwarded, too
        elif self._head is not None:
            size += self._head_bytes + _LINE_BYTES * self._fields
        return size

    def give_up(self) -> None:
        """Read nothing more, and keep nothing of what has been read."""
        self.state = REFUSED
        self._unread = b""
        self._head = None
        self._chunks = None

    def forget(self) -> None:
        """Keep nothing of the request that was read last either, nor of its body."""
        self.give_up()
        self.request = None

    def feed(self, data: bytes) -> None:
        """Read what has arrived, up to the end of one request; it is not empty."""
        request = self.request
        try:
            if request is None:
                if self.refusal is None:
                    self._read_head(data)
            elif self.state is BODY_COUNTED:
                self._read_counted(request, data)
            elif self._chunks is not None:
                self._read_chunks(request, self._chunks, data)
            elif self.state is TUNNEL:
                request.body.append(data)
            elif self.state is DONE:
                self._unread += data
        except DownstreamError as refusal:
            self._refuse(refusal, data)
        except ChunkError as cause:
            self._refuse(DownstreamError(ErrorCode.BAD_REQUEST, str(cause)), data)

    def begin_next(self) -> bool:
        """Begin to read the request behind one that is complete.

        Returns:
            Whether some of it has arrived, and was read.
        """
        self.state = HEAD
        self.request = None
        unread, self._unread = self._unread, b""
        if unread:
            self.feed(unread)
        return bool(unread)

    def _read_head(self, data: bytes) -> None:
        unread = self._unread
        if unread:
            data = unread + data
            if b"\n" not in data[len(unread) :] and self._head is not None:
                self._keep_unfinished(data, looked_at=len(unread))
                return
        elif self._head is None and data[0] in _LINE_END:
            # RFC 9112 section 2.2: empty lines before a request are ignored.
            data = data.lstrip(_LINE_END)
            if not data:
                return
        block, is_complete, rest = data.partition(b"\r\n\r\n")
        if is_complete:
            head = self._read_lines(self._head, block)
            request_head.finish(head)
            self._head = None
            self._unread = b""
            self._begin_body(Request(head), rest)
            return
        end = data.rfind(b"\r\n")
        if end >= 0 and (self._head is None or end > 0):
            self._head = self._read_lines(self._head, data[:end])
            data = data[end:]
        self._keep_unfinished(data)

    def _keep_unfinished(self, begin: bytes, looked_at: int = 0) -> None:
        """Keep an unfinished line. After another line, it begins with that line's CR LF.

        Args:
            begin: what is kept.
            looked_at: how many bytes of it were kept before.
        """
        if self._head is None:
            check_start(begin)
        else:
            # A CR at its end may be half of the line end.
            line = begin.removesuffix(b"\r")[2:]
            if line:
                self._check_line(line, looked_at=max(looked_at - 3, 0))
        self._unread = begin

    def _read_lines(self, head: RequestHead | None, block: bytes) -> RequestHead:
        """Read complete lines. `block` begins with the first one, or with the end of the last."""
        lines = block.split(b"\r\n")
        line_ends = len(lines) - 1
        if head is None:
            head = self._head = RequestHead(read_request_line(lines[0]))
            self._fields = 0
            self._head_bytes = 0
        fields = self._fields + line_ends
        head_bytes = self._head_bytes + len(block) - len(lines[0]) - 2 * line_ends
        del lines[0]
        if fields <= MAX_FIELDS and head_bytes <= MAX_FIELD_BYTES:
            self._fields, self._head_bytes = fields, head_bytes
            request_head.REQUEST_FIELDS.read(lines, head)
        else:
            self._read_one_by_one(lines, head)
        return head

    def _read_one_by_one(self, lines: list[bytes], head: RequestHead) -> None:
        """Read lines of which one may be refused; what is refused first tells why."""
        for line in lines:
            if len(line) > self._allowed_bytes():
                self._check_line(line)
            self._fields += 1
            self._head_bytes += len(line)
            request_head.REQUEST_FIELDS.read([line], head)

    def _allowed_bytes(self) -> int:
        """Return how long a further field line may be; 0: there must be none."""
        if self._fields >= MAX_FIELDS:
            return 0
        left = MAX_HEAD_BYTES + _BETWEEN * self._fields - self._head_bytes
        return _BETWEEN + min(MAX_FIELD_BYTES, left)

    def _check_line(self, line: bytes, looked_at: int = 0) -> None:
        """Refuse a field line, whole or not, for its first octet that is amiss or too much.

        Args:
            line: not empty.
            looked_at: how many of its bytes are known to be good.
        """
        allowed = self._allowed_bytes()
        if not allowed:
            raise DownstreamError(ErrorCode.HEADERS_TOO_LARGE)
        if not is_clean(line[looked_at : allowed + 1]):
            raise DownstreamError(ErrorCode.BAD_REQUEST, "control octets in the head")
        if len(line) > allowed:
            raise DownstreamError(ErrorCode.HEADERS_TOO_LARGE)

    def _begin_body(self, request: Request, rest: bytes) -> None:
        self.request = request
        head = request.head
        if head.chunked:
            self.state = BODY_CHUNKED
            self._chunks = ChunkedReader(MAX_HEAD_BYTES)
            if rest:
                self._read_chunks(request, self._chunks, rest)
        elif head.content_length:
            self.state = BODY_COUNTED
            self._left = head.content_length
            if rest:
                self._read_counted(request, rest)
        else:
            self._end(request, rest)

    def _read_counted(self, request: Request, data: bytes) -> None:
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            request.body.append(data)
            request.body = gathered(request.body)
        elif len(data) == left:
            request.body.append(data)
            self._end(request, b"")
        else:
            request.body.append(data[:left])
            self._end(request, data[left:])

    def _read_chunks(self, request: Request, chunks: ChunkedReader, data: bytes) -> None:
        rest = chunks.read(data, request.body)
        request.body = gathered(request.body)
        if chunks.ended:
            self._chunks = None
            self._end(request, rest)

    def _end(self, request: Request, rest: bytes) -> None:
        request.ended = True
        if request.head.upgrade is not None and request.head.is_upgrade:
            self.state = TUNNEL
            if rest:
                request.body.append(rest)
        else:
            self.state = DONE
            self._unread = rest

    def _refuse(self, refusal: DownstreamError, data: bytes) -> None:
        if self.request is not None:
            self.refused_method = self.request.head.line.method
        elif self._head is not None:
            self.refused_method = self._head.line.method
        else:
            self.refused_method = method_in((self._unread + data).lstrip(_LINE_END))
        self.refusal = refusal
        self.give_up()


_LINE_END: Final = b"\r\n"
