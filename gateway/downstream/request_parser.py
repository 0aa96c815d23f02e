"""From a caller's bytes to requests: by llhttp, within bounds, or by what it said of them before.

Knows of no connection and waits for nothing; the same bytes give the same requests however cut.
"""

from collections import deque

import httptools

from gateway.errors import ErrorCode
from gateway.http.fields import may_be_remembered
from gateway.http.framing import bytes_to_come, gathered
from gateway.http.target import MAX_TARGET_BYTES
from gateway.proxy.inbound import Inbound, KnownHead

MAX_HEAD_BYTES = 128 * 1024
"""All fields of a request: what the vendor's API gateway takes."""
MAX_FIELD_BYTES = 32 * 1024
"""Name and value of one field: the same."""
MAX_FIELDS = 100
MAX_PIPELINED = 64
"""Requests that may wait for the one before them; a caller that sends more is cut off."""

MAX_KNOWN = 256
MAX_KNOWN_BYTES = 2048
"""Of a head that is remembered."""
_END = b"\r\n\r\n"

_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}


class _RefusedRequestError(Exception):
    """Raised inside a parser callback for what the parser itself would let through."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.label)
        self.code = code


class RequestParser:
    """Turns one connection's bytes into requests, in order.

    Invariants: memory is bounded by the limits above and one read; after `refusal` is set nothing
    more is understood; what was complete before it stays in `queue`; a request that is recognised
    is the one that llhttp would have made of it.
    """

    __slots__ = (
        "_between",
        "_fields",
        "_last_head",
        "_left",
        "_llhttp",
        "_read_bytes",
        "_received_at",
        "_repeated",
        "_silent_bytes",
        "_target",
        "in_head",
        "queue",
        "receiving",
        "refusal",
        "refused_method",
        "switching",
    )

    def __init__(self) -> None:
        self.queue: deque[Inbound] = deque()
        """Requests whose head is complete, and which nobody has taken yet."""
        self.receiving: Inbound | None = None
        """The request whose body is arriving; taken or not."""
        self.in_head = False
        """Whether a head has begun and not ended."""
        self.refusal: ErrorCode | None = None
        """Why nothing more can be understood."""
        self.switching: Inbound | None = None
        """The request after which the connection speaks another protocol, if it is admitted; what
        follows is in its `body` as it came. The reader must not read on before that is decided."""
        self.refused_method = ""
        """Of what was refused, where it is known: the answer to HEAD has no body."""
        self._llhttp = httptools.HttpRequestParser(self)
        self._between = True  # no request has begun that is not complete, and another may begin
        self._last_head = b""
        self._repeated = False  # the request that begins has the head of the one before it
        self._left = (
            0  # of a body whose end is known, so that llhttp, which copies, need not see it
        )
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._received_at = 0.0
        self._read_bytes = 0  # with which the head under way, and what preceded it, has come
        self._silent_bytes = 0  # of extensions and trailers, since a piece of a body came

    def feed(self, data: bytes, now: float, known_heads: dict[bytes, KnownHead]) -> None:
        """Parse what has arrived at `now`; does nothing after a refusal.

        Requests that come whole, behind a head that is in `known_heads`, are recognised instead,
        which costs half. A head gets in there when a connection repeats it.
        """
        if self._left:
            self._take(data, now, known_heads)
        elif not self._between or self.queue:
            self._parse(data, now)
        elif not self._recognise(data, now, known_heads):
            self._parse(data, now)
            if self._repeated:
                self._get_to_know(data, known_heads)

    def _recognise(self, data: bytes, now: float, known_heads: dict[bytes, KnownHead]) -> bool:
        head = data[: data.find(_END) + 4]
        known = known_heads.get(head)
        if known is None:
            self._repeated = head == self._last_head
            self._last_head = head if len(head) <= MAX_KNOWN_BYTES else b""
            return False
        size = known.body_bytes
        if len(data) - len(head) != size:
            return False
        inbound = Inbound(known.method, known.target, "1.1", known.fields, True, now)
        inbound.known = known
        inbound.ended = True
        if size:
            inbound.body.append(data[-size:])
        self.queue.append(inbound)
        return True

    def _get_to_know(self, data: bytes, known_heads: dict[bytes, KnownHead]) -> None:
        """Remember a head, if `data` was exactly one plain request, as llhttp has understood it."""
        self._repeated = False
        if not self._between or len(self.queue) != 1:
            return
        inbound, head = self.queue[0], self._last_head
        body = data[len(head) :]
        if (
            inbound.version == "1.1"
            and b"".join(inbound.body) == body
            # Where the head ends must not be a matter of opinion.
            and head.count(b"\n") == head.count(b"\r\n") == len(inbound.fields) + 2
            and may_be_remembered(inbound.fields)
        ):
            if len(known_heads) >= MAX_KNOWN:
                known_heads.clear()
            known_heads[head] = KnownHead(inbound.method, inbound.target, inbound.fields, len(body))

    def _take(self, data: bytes, now: float, known_heads: dict[bytes, KnownHead]) -> None:
        """Take `data` as what is left of a body, as it is, and what is behind it as requests."""
        inbound, left = self.receiving, self._left
        if inbound is None:
            return
        piece = data if len(data) <= left else data[:left]
        inbound.body.append(piece)
        _gather(inbound)
        self._left = left - len(piece)
        if not self._left:
            inbound.ended = True
            self.receiving = None
            self._between = True
            self._llhttp = httptools.HttpRequestParser(self)  # the other still waits for the body
            if len(data) > left:
                self.feed(data[left:], now, known_heads)

    def _parse(self, data: bytes, now: float) -> None:
        if self.refusal is not None:
            return
        if self.switching is not None:
            self.switching.body.append(data)
            return
        self._received_at = now
        was_in_head = self.in_head
        self._read_bytes = self._read_bytes + len(data) if was_in_head else len(data)
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(_code_of(error))
        if self.in_head:
            if was_in_head and self._read_bytes > _READ_BYTES + MAX_HEAD_BYTES:
                self._refuse(ErrorCode.HEADERS_TOO_LARGE)
        elif self.receiving is not None:
            self._look_at_body(self.receiving, len(data))

    def _look_at_body(self, inbound: Inbound, count: int) -> None:
        _gather(inbound)
        # Chunk extensions and trailers: the parser keeps them until they end.
        self._silent_bytes = 0 if inbound.body else self._silent_bytes + count
        if self._silent_bytes > MAX_HEAD_BYTES:
            self._refuse(ErrorCode.BAD_REQUEST)
        elif inbound.keep_alive:
            self._left = bytes_to_come(inbound.fields, inbound.body)

    def _switch(self, rest: bytes) -> None:
        self._between = False
        switching = self.switching = self.queue[-1]
        switching.keep_alive = False  # whether it is admitted or not, no request comes after it
        if rest:
            switching.body.append(rest)

    def _refuse(self, code: ErrorCode) -> None:
        self._between = False
        self.refusal = code
        if self.in_head and code is not ErrorCode.METHOD_UNKNOWN:
            self.refused_method = _METHODS.get(self._llhttp.get_method(), "")
        if self.receiving is not None and self.queue and self.receiving is self.queue[-1]:
            self.refused_method = self.queue.pop().method  # its body will never be complete
            self.receiving = None

    # What llhttp tells us.

    def on_message_begin(self) -> None:
        """Begin a head."""
        if len(self.queue) >= MAX_PIPELINED:
            raise _RefusedRequestError(ErrorCode.BAD_REQUEST)
        self._between = False
        self.in_head = True
        self._target = b""
        self._fields = []

    def on_url(self, part: bytes) -> None:
        """Collect the target, which may come in parts."""
        self._target += part
        if len(self._target) > MAX_TARGET_BYTES:
            raise _RefusedRequestError(ErrorCode.TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; trailers are not passed on."""
        if self.in_head:
            fields = self._fields
            if len(fields) >= MAX_FIELDS:
                raise _RefusedRequestError(ErrorCode.HEADERS_TOO_LARGE)
            fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Queue a request whose head is complete."""
        if self._read_bytes > MAX_FIELD_BYTES:  # else no field can be too large
            self._check_sizes()
        llhttp = self._llhttp
        inbound = self.receiving = Inbound(
            _METHODS.get(llhttp.get_method(), ""),
            self._target,
            llhttp.get_http_version(),
            self._fields,
            llhttp.should_keep_alive(),
            self._received_at,
        )
        self.in_head = False
        self.queue.append(inbound)

    def on_body(self, piece: bytes) -> None:
        """Collect a piece of the body."""
        if self.receiving is not None:
            self.receiving.body.append(piece)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        if self.receiving is not None:
            _gather(self.receiving)
            self.receiving.ended = True
            self._between = self.receiving.keep_alive
            self.receiving = None

    def _check_sizes(self) -> None:
        sizes = [len(name) + len(value) for name, value in self._fields]
        if max(sizes, default=0) > MAX_FIELD_BYTES or sum(sizes) > MAX_HEAD_BYTES:
            raise _RefusedRequestError(ErrorCode.HEADERS_TOO_LARGE)


def _gather(inbound: Inbound) -> None:
    if len(inbound.body) > 1:
        inbound.body = gathered(inbound.body)


_READ_BYTES = 256 * 1024  # uvloop reads no more at a time


def _code_of(error: httptools.HttpParserError) -> ErrorCode:
    """Name what the parser has complained about."""
    if isinstance(error.__context__, _RefusedRequestError):
        return error.__context__.code
    match error:
        case httptools.HttpParserInvalidMethodError():
            return ErrorCode.METHOD_UNKNOWN
        case httptools.HttpParserInvalidURLError():
            return ErrorCode.BAD_TARGET
        case _ if "HTTP version" in str(error):
            return ErrorCode.VERSION_NOT_SUPPORTED
        case _ if "Invalid method" in str(error):  # one of another protocol's
            return ErrorCode.METHOD_UNKNOWN
        case _:
            return ErrorCode.BAD_REQUEST
