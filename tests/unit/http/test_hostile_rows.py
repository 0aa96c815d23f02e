"""Every hostile row, without a network: what the reader and admission alone make of its bytes."""

from collections.abc import Iterator
from itertools import pairwise
from random import Random

import pytest

from gateway.errors import DownstreamError
from gateway.http.host import AllowedHosts
from gateway.http.reader_state import DONE
from gateway.http.request import Request
from gateway.http.request_head import METHODS
from gateway.http.request_reader import RequestReader
from gateway.observe.service_metrics import ServiceMetrics
from gateway.proxy.admission import Admission, Rules, admit
from gateway.proxy.service import RouteTable, Service
from gateway.upstream.opener import Origin
from gateway.upstream.pool import Pool
from tests.exchange.hostile_rows import CLASSES, Row
from tests.support import upstream
from tests.support.gateway import FakeCredentials
from tests.support.rows import every_row

_CLOSING = {400, 414, 431, 501, 505}
"""After these nobody can say for sure where the next request begins."""
_EVERY_CUT_BYTES = 1000
"""Longer rows are cut at their beginning, at their end, and at some places between."""

_SERVICE = Service(
    name="iris",
    path=b"/v1/infers/abc",
    origin=b"http://127.0.0.1:1",
    host_line=b"Host: 127.0.0.1:1",
    methods=frozenset(METHODS),
    max_body_bytes=12 * 1024 * 1024,
    replay_bytes=0,
    first_byte_s=1,
    first_chunk_s=1,
    idle_s=1,
    websocket=False,
    max_in_flight=1,
    credentials=FakeCredentials(),
    pool=Pool(Origin(host="127.0.0.1", port=1), clock=lambda: 0.0),
    metrics=ServiceMetrics("iris", ["POST"], []),
)
_RULES = Rules(RouteTable((_SERVICE,)), AllowedHosts([]))


class Conversation:
    """One connection: a reader, and the statuses of its responses, as an exchange gives them."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.forwarded: list[upstream.Request] = []
        """Whole requests, as the service would see them."""
        self._reader = RequestReader()
        self._request: Request | None = None  # that was judged
        self._admission: Admission | None = None  # none: it was refused
        self._closed = False

    def hear(self, data: bytes) -> None:
        """Read `data` and answer what can be answered."""
        if self._closed:
            return
        reader = self._reader
        reader.feed(data)
        while not self._closed:
            request = reader.request
            if request is not None and request is not self._request:
                self._judge(request)
            if reader.refusal is not None:
                if request is None or self._admission is not None:
                    self.statuses.append(reader.refusal.code.status)
                self._closed = True
            elif request is None or reader.state is not DONE:
                return
            else:
                self._end(request)

    def end(self) -> None:
        """Hear that the client sends no more."""
        if self._reader.in_head() and not self._closed:
            self.statuses.append(400)

    def _judge(self, request: Request) -> None:
        self._request = request
        self._admission = None
        try:
            self._admission = admit(_RULES, request)
        except DownstreamError as refusal:
            self.statuses.append(refusal.code.status)
            self._closed = refusal.code.status in _CLOSING

    def _end(self, request: Request) -> None:
        if self._admission is not None:
            self.statuses.append(200)
            self.forwarded.append(_seen(self._admission, b"".join(request.body)))
        self._closed = self._closed or not request.head.keep_alive
        if not self._closed:
            self._reader.begin_next()


def _seen(admission: Admission, body: bytes) -> upstream.Request:
    head = admission.upstream_head + b"X-Auth-Token: token-1\r\n\r\n"
    if admission.head.chunked:
        body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    return upstream.Request(head, body)


def assert_outcome(row: Row, pieces: list[bytes]) -> None:
    """Say `pieces`, and compare what comes of them with what should."""
    conversation = Conversation()
    for piece in pieces:
        conversation.hear(piece)
    if row.ends:
        conversation.end()

    assert tuple(conversation.statuses) == row.statuses, pieces
    assert len(conversation.forwarded) == row.forwarded, pieces
    assert all(row.check(request) for request in conversation.forwarded), pieces


def cuts_of(size: int) -> Iterator[int]:
    """Return places to cut `size` bytes at."""
    if size <= _EVERY_CUT_BYTES:
        return iter(range(1, size))
    random = Random(size)
    return iter([*range(1, 50), *(random.randrange(1, size) for _ in range(20)),
                 *range(size - 50, size)])  # fmt: skip


_ROWS = [row for rows in CLASSES.values() for row in rows]


@pytest.mark.parametrize("rows", CLASSES.values(), ids=CLASSES)
def test_row_is_the_same_whole_and_at_every_cut(rows: list[Row]) -> None:
    """The statuses, in order, and the requests that go on."""
    with every_row() as trying:
        for row in rows:
            with trying(row.name):
                assert_outcome(row, [row.sent] if row.sent else [])
                for cut in cuts_of(len(row.sent)):
                    assert_outcome(row, [row.sent[:cut], row.sent[cut:]])


@pytest.mark.parametrize("rows", CLASSES.values(), ids=CLASSES)
def test_row_is_the_same_octet_by_octet(rows: list[Row]) -> None:
    """As it is whole."""
    with every_row() as trying:
        for row in rows:
            with trying(row.name):
                assert_outcome(row, [row.sent[at : at + 1] for at in range(len(row.sent))])


def test_rows_are_the_same_in_random_pieces() -> None:
    """Some of each, always the same."""
    random = Random(1)
    for row in _ROWS:
        size = len(row.sent)
        for count in (2, 3, 10):
            places = sorted({0, size, *(random.randrange(size + 1) for _ in range(count))})
            assert_outcome(row, [row.sent[a:b] for a, b in pairwise(places)])
