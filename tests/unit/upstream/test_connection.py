"""A connection to a service, without a network: what it writes, hears, and is good for after."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ErrorCode, UpstreamError
from gateway.http.response_head import ResponseHead
from gateway.upstream.connection import Connection, ResponseListener
from tests.programs.fuzz.cases import answer_case
from tests.programs.fuzz.strict import MalformedError, PartialError, read_response
from tests.support.rows import every_row

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;ext=1\r\nabc\r\n1\r\nd\r\n0\r\nX-Trailer: y\r\n\r\n"
)
ASK = [b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"]


class Wire(asyncio.Transport):
    """A transport in memory."""

    def __init__(self, **extra: object) -> None:
        super().__init__(extra)
        self.written: list[bytes] = []
        self.closed = ""
        self.reading = True
        self.unsent = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: object) -> None:
        assert isinstance(list_of_data, list)
        self.written.extend(map(bytes, list_of_data))

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = "aborted"

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Heard(ResponseListener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heads: list[ResponseHead] = []
        self.body = b""
        self.pieces: list[bytes] = []
        self.ends = 0
        self.error: UpstreamError | None = None
        self.writable = 0
        self.when_complete: Callable[[], None] = lambda: None

    def on_response(self, head: ResponseHead, body: list[bytes], complete: bool) -> None:
        assert not self.ends, "heard of something after the end"
        assert all(body), "an empty piece, which as a chunk would end the body"
        if head not in self.heads:
            self.heads.append(head)
        self.body += b"".join(body)
        self.pieces += body
        if complete:
            self.ends += 1
            self.when_complete()

    def on_failure(self, error: UpstreamError) -> None:
        assert not self.ends, "heard of something after the end"
        self.ends += 1
        self.error = error

    def on_writable(self) -> None:
        self.writable += 1

    @property
    def code(self) -> ErrorCode | None:
        return None if self.error is None else self.error.code


def opened() -> tuple[Connection, Wire]:
    connection, wire = Connection(0.0), Wire()
    connection.connection_made(wire)
    return connection, wire


def asked(
    pieces: list[bytes] = ASK, *, head_request: bool = False, sent: bool = True
) -> tuple[Connection, Wire, Heard]:
    connection, wire = opened()
    heard = Heard()
    connection.start(heard, pieces, head_request=head_request, sent=sent)
    return connection, wire, heard


def test_head_and_body_leave_as_one_piece() -> None:
    """One write is one segment and one system call."""
    _, wire, _ = asked([b"head", b"body"])

    assert wire.written == [b"headbody"]


def test_large_bodies_are_not_copied() -> None:
    """What is more than a TLS record long is handed on as it is."""
    body = bytes(20000)
    _, wire, _ = asked([b"head", body])

    assert wire.written == [b"head", body]


@given(
    said=st.sampled_from([(OK, b"ok"), (CHUNKED, b"abcd")]),
    interim=st.integers(0, 3),
    cuts=st.lists(st.integers(0, 200)),
)
def test_answer_is_the_same_however_it_is_cut(
    said: tuple[bytes, bytes], interim: int, cuts: list[int]
) -> None:
    """Segments have no meaning: one head, the body, one end, and a connection to keep."""
    answer, body = said
    stream = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * interim + answer
    connection, _, heard = asked()
    places = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    for start, end in pairwise(places):
        connection.data_received(stream[start:end])

    [head] = heard.heads
    assert head.line.text == b"HTTP/1.1 200 OK"
    assert not head.value_of(b"link")
    assert (heard.body, heard.ends, heard.error) == (body, 1, None)
    assert connection.reusable


@given(st.binary(max_size=100), st.integers(1, len(CHUNKED)))
def test_any_bytes_are_an_answer_or_an_upstream_error(noise: bytes, at: int) -> None:
    """Whatever a service says, the sink hears one end at most, and no other exception gets out."""
    connection, wire, heard = asked()
    connection.data_received(CHUNKED[:at] + noise)
    if not wire.closed:
        connection.data_received(CHUNKED[at:])
    connection.connection_lost(None)

    assert heard.ends == 1
    assert not connection.reusable


def outcome(pieces: Sequence[bytes], *, head_request: bool, reset: bool) -> tuple[object, ...]:
    """Say `pieces`, end the connection, and return what was heard."""
    connection, wire, heard = asked(head_request=head_request)
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
    reusable = connection.reusable
    if not wire.closed and not reset:
        connection.eof_received()
    connection.connection_lost(ConnectionResetError() if reset else None)
    assert heard.ends == 1
    if heard.error is not None:
        return heard.code, reusable
    [head] = heard.heads
    return head.status, head.line.reason, head.lines, heard.body, reusable


@given(st.randoms(use_true_random=False))
def test_changed_answers_are_the_same_however_they_are_cut(random: Random) -> None:
    """Valid ones, changed at random; and whole ones are what a strict reader takes them for."""
    case = answer_case(random)
    head_request, reset = case.request.startswith(b"HEAD"), case.ending == "reset"
    stream = b"".join(case.pieces)
    found = outcome(case.pieces, head_request=head_request, reset=reset)
    assert found == outcome([stream] if stream else [], head_request=head_request, reset=reset)
    try:
        response, end = read_response(stream, 0, to_head=head_request, ended=True, was_reset=reset)
    except (MalformedError, PartialError):
        return
    if len(found) > 2 and response.status >= 200:
        assert (response.status, response.body) == (found[0], found[3])
        assert response.whole
        if found[-1] and response.framed:  # else only its end tells
            assert end == len(stream)
            assert not response.last


def test_sink_may_start_the_next_request_at_once() -> None:
    """When it hears the end the connection is free."""
    connection, wire, heard = asked()
    second = Heard()
    heard.when_complete = lambda: connection.start(second, ASK, head_request=False, sent=True)
    connection.data_received(OK)
    connection.data_received(OK)

    assert (heard.body, second.body) == (b"ok", b"ok")
    assert connection.requests == 2
    assert len(wire.written) == 2
    assert connection.reusable


def test_bytes_while_idle_close_it() -> None:
    """Nobody has asked; nobody may get them."""
    connection, wire = opened()
    connection.data_received(b"H")

    assert wire.closed == "aborted"
    assert not connection.reusable


NO_BODY = b"HTTP/1.1 204 No Content\r\n\r\n"
ENDS_WITH_A_LINE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok\r\n"


@pytest.mark.parametrize("said", [OK, CHUNKED, NO_BODY, ENDS_WITH_A_LINE])
@pytest.mark.parametrize(
    "extra", [b"x", OK, b"\x00", b"HTTP/1.1 2", NO_BODY, b"\r\n", b"\n", b"\r", b"\r\n\r\n"]
)
def test_bytes_after_an_answer_spoil_it(said: bytes, extra: bytes) -> None:
    """The answer is heard once and whole; the connection serves nobody else."""
    connection, _, heard = asked()
    connection.data_received(said)
    assert connection.reusable
    connection, _, heard = asked()
    connection.data_received(said + extra)

    assert (heard.ends, len(heard.heads), heard.error) == (1, 1, None)
    assert not connection.reusable


@pytest.mark.parametrize("before", [b"\r\n", b"\n", b"\r", b" ", b"x"])
@pytest.mark.parametrize("first", [True, False])
def test_bytes_before_an_answer_are_not_http(before: bytes, first: bool) -> None:
    """Also on a connection that has served before, and also what a lenient parser skips."""
    connection, _, heard = asked()
    if not first:
        connection.data_received(OK)
        heard = Heard()
        connection.start(heard, ASK, head_request=False, sent=True)
    connection.data_received(before + OK)

    assert heard.code is ErrorCode.HTTP_PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("interim", "code"),
    [
        (b"100 Go\r\nContent-Length: 0\r\n", None),
        (b"100 Go\r\nContent-Length: 2\r\n", ErrorCode.HTTP_PROTOCOL_ERROR),
        (b"103 Go\r\nTransfer-Encoding: chunked\r\n", ErrorCode.HTTP_PROTOCOL_ERROR),
        (b"102 G\x01o\r\n", ErrorCode.HTTP_PROTOCOL_ERROR),
    ],
)
def test_interim_answer_that_could_be_read_otherwise_is_not_http(
    interim: bytes, code: ErrorCode | None
) -> None:
    """It has no body; one that announces any may be an answer to another reader."""
    connection, _, heard = asked()
    connection.data_received(b"HTTP/1.1 " + interim + b"\r\n" + OK)

    assert heard.code is code


def test_no_piece_of_a_body_is_empty() -> None:
    """`Heard` does not take one, wherever the answer is cut."""
    with every_row() as trying:
        for cut in range(1, len(CHUNKED)):
            with trying(cut):
                connection, _, heard = asked()
                connection.data_received(CHUNKED[:cut])
                connection.data_received(CHUNKED[cut:])
                assert heard.body == b"abcd"


@pytest.mark.parametrize(
    ("said", "reusable"),
    [
        (OK, True),
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), False),
        (OK.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", False),
        ((b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
         b"Content-Length: 2\r\n\r\nok"), False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", True),
    ],
)  # fmt: skip
def test_close_and_http_1_0_end_it(said: bytes, reusable: bool) -> None:
    """Keeping a connection is for both sides to want."""
    connection, _, heard = asked()
    connection.data_received(said)

    assert (heard.ends, heard.error) == (1, None)
    assert connection.reusable == reusable


def test_answer_before_the_request_was_whole_ends_it() -> None:
    """The rest of the body would be taken for the next request."""
    connection, _, heard = asked(sent=False)
    connection.data_received(OK)

    assert heard.ends == 1
    assert not connection.reusable


def test_request_that_was_written_in_parts_keeps_it() -> None:
    """`end` says that all of it is written."""
    connection, wire, heard = asked(sent=False)
    connection.write([b"more"])
    connection.end()
    connection.data_received(OK)

    assert wire.written == [ASK[0], b"more"]
    assert heard.ends == 1
    assert connection.reusable


@pytest.mark.parametrize("length", [b"Content-Length: 2", b"Transfer-Encoding: chunked", b"X: y"])
def test_answer_to_head_ends_with_its_head(length: bytes) -> None:
    """And the parser does not take the next answer for its body."""
    connection, _, heard = asked(head_request=True)
    connection.data_received(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n")
    assert (heard.ends, heard.body) == (1, b"")
    second = Heard()
    connection.start(second, ASK, head_request=False, sent=True)
    connection.data_received(OK)

    assert (second.body, second.ends) == (b"ok", 1)


@pytest.mark.parametrize("length", [b"Content-Length: 2", b"Transfer-Encoding: chunked", b"X: y"])
@pytest.mark.parametrize("extra", [b"2", b"2\r\n", b"\r\n", b"\n", b"ok", OK])
def test_bytes_after_an_answer_to_head_spoil_it(length: bytes, extra: bytes) -> None:
    """Also those that a parser could take for the beginning of a body."""
    connection, _, heard = asked(head_request=True)
    connection.data_received(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n" + extra)

    assert (heard.ends, heard.body) == (1, b"")
    assert not connection.reusable


@pytest.mark.parametrize("said", [OK[:-1], CHUNKED[:-2], CHUNKED[:60]])
@pytest.mark.parametrize("failure", [None, ConnectionResetError()])
def test_cut_body_is_incomplete(said: bytes, failure: Exception | None) -> None:
    """Whether it ended with FIN or RST."""
    connection, _, heard = asked()
    connection.data_received(said)
    if failure is None:
        connection.eof_received()
    connection.connection_lost(failure)

    assert heard.code is ErrorCode.HTTP_RESPONSE_INCOMPLETE
    assert heard.error is not None
    assert not heard.error.replayable
    assert not connection.reusable


@pytest.mark.parametrize(
    ("said", "heard_something"), [(b"", False), (b"HTTP/1.1 2", True), (OK[:20], True)]
)
def test_cut_before_the_head_is_terminated(said: bytes, heard_something: bool) -> None:
    """And `heard` says whether the service was at work on it; never `replayable` by itself."""
    connection, _, heard = asked()
    if said:
        connection.data_received(said)
    connection.eof_received()
    connection.connection_lost(None)

    assert heard.code is ErrorCode.CONNECTION_TERMINATED
    assert heard.error is not None
    assert not heard.error.replayable
    assert connection.heard == heard_something


def test_fin_ends_a_body_that_has_no_other_end() -> None:
    """RFC 9112 section 6.3, the last rule."""
    connection, _, heard = asked()
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nsome")
    assert heard.ends == 0
    connection.eof_received()
    connection.connection_lost(None)

    assert (heard.body, heard.ends, heard.error) == (b"some", 1, None)
    assert not connection.reusable


def test_lost_connection_does_not_end_such_a_body() -> None:
    """No FIN was seen (over TLS: no close_notify), so nobody knows whether it was all."""
    connection, _, heard = asked()
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nsome")
    connection.connection_lost(None)

    assert heard.code is ErrorCode.HTTP_RESPONSE_INCOMPLETE


@pytest.mark.parametrize("lost", [True, False])
def test_start_on_a_closed_connection_is_replayable(lost: bool) -> None:
    """Nothing was written: even a POST may go again."""
    connection, wire = opened()
    if lost:
        connection.connection_lost(None)
    else:
        wire.close()
    heard = Heard()
    connection.start(heard, ASK, head_request=False, sent=True)

    assert heard.code is ErrorCode.CONNECTION_TERMINATED
    assert heard.error is not None
    assert heard.error.replayable
    assert wire.written == []


def test_abort_is_silent_and_final() -> None:
    """The sink has had its reasons; nothing reaches it any more, and nothing is written."""
    connection, wire, heard = asked(sent=False)
    connection.abort()
    connection.write([b"late"])
    connection.connection_lost(None)

    assert (heard.ends, wire.closed) == (0, "aborted")
    assert wire.written == ASK
    assert not connection.reusable


def test_fin_while_idle_spoils_it() -> None:
    """It is closed by its service; an exchange that wrote to it might not notice."""
    connection, _ = opened()
    connection.eof_received()

    assert not connection.reusable


def test_service_that_reads_again_is_reported_to_an_exchange_only() -> None:
    """`writing_paused` follows the transport; an idle connection has nobody to tell."""
    connection, _, heard = asked(sent=False)
    connection.pause_writing()
    assert connection.writing_paused
    connection.resume_writing()
    assert (connection.writing_paused, heard.writable) == (False, 1)
    connection.end()
    connection.data_received(OK)
    connection.pause_writing()
    connection.resume_writing()
    assert heard.writable == 1


def test_reading_can_be_paused() -> None:
    """And neither call does harm when the transport has gone."""
    connection, wire, _ = asked()
    connection.pause_reading()
    assert not wire.reading
    connection.resume_reading()
    assert wire.reading
    wire.close()
    connection.pause_reading()
    assert wire.reading
    connection.connection_lost(None)
    connection.resume_reading()


@pytest.mark.parametrize(("count", "code"), [(16, None), (17, ErrorCode.HTTP_PROTOCOL_ERROR)])
def test_interim_answers_are_counted_per_request(count: int, code: ErrorCode | None) -> None:
    """Sixteen, for the first request on a connection and for the next."""
    connection, _, first = asked()
    connection.data_received(b"HTTP/1.1 102 Processing\r\n\r\n" * 16 + OK)
    assert first.ends == 1
    second = Heard()
    connection.start(second, ASK, head_request=False, sent=True)
    connection.data_received(b"HTTP/1.1 102 Processing\r\n\r\n" * count + OK)

    assert second.code is code


@pytest.mark.parametrize(("size", "code"), [(65533, None), (65534, ErrorCode.HTTP_PROTOCOL_ERROR)])
def test_bytes_without_a_body_are_bounded(size: int, code: ErrorCode | None) -> None:
    """64 KiB of the last chunk's size and trailers and no more, however they are cut."""
    connection, wire, heard = asked()
    connection.data_received(CHUNKED[: CHUNKED.index(b"X-Trailer")])
    for at in range(0, size, 10000):
        connection.data_received(b"t" * min(10000, size - at))

    assert heard.code is code
    assert bool(wire.closed) == (code is not None)


def test_body_is_not_copied() -> None:
    """Where its end is known, what has arrived is passed on as it is."""
    connection, _, heard = asked()
    said = (b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n", b"abc", b"defgh")
    for piece in said:
        connection.data_received(piece)

    assert heard.pieces[0] is said[1]
    assert heard.pieces[1] is said[2]


@pytest.mark.parametrize(("count", "pieces"), [(17, 1), (16, 16)])
def test_many_small_chunks_are_passed_on_as_one_piece(count: int, pieces: int) -> None:
    """What one read has brought; as objects, they take 28 times their bytes."""
    connection, _, heard = asked()
    connection.data_received(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * count
    )

    assert heard.body == b"ab" * count
    assert len(heard.pieces) == pieces


class Said:
    """A connection, and what it has said in one response after the other."""

    def __init__(self) -> None:
        self.connection, _ = opened()

    def hear(self, *pieces: bytes, sent: bool = True) -> tuple[object, ...]:
        """Return all there is to know of one response."""
        heard = Heard()
        self.connection.start(heard, ASK, head_request=False, sent=sent)
        for piece in pieces:
            self.connection.data_received(piece)
        heads = [(head.line.text, head.lines) for head in heard.heads]
        return heads, heard.body, heard.ends, heard.code, self.connection.reusable


@pytest.mark.parametrize("extra", [b"", b"x", b"\r\n", OK])
@pytest.mark.parametrize("sent", [True, False])
def test_two_cuts_anywhere_change_no_answer(extra: bytes, sent: bool) -> None:
    """Nor what is heard next on the connection, if it is good for that."""
    answer = b"HTTP/1.1 200 OK\r\nX: 1\r\ncontent-length:8 \r\n\r\nHTTP/1.1" + extra
    plain = answer.replace(b":8 ", b":8")
    for stream in (answer, plain, OK[:-1]):
        expected = Said().hear(stream, sent=sent)
        for first, second in combinations(range(1, len(stream)), 2):
            said = Said()
            pieces = (stream[:first], stream[first:second], stream[second:])
            found = said.hear(*pieces, sent=sent)
            # What comes behind an answer is nobody's, and when nobody listens ends it at once.
            assert found[:4] == expected[:4]
            if found[2] and said.connection.reusable:
                assert expected[4]
                assert said.hear(CHUNKED[:20], CHUNKED[20:]) == Said().hear(CHUNKED)


def test_request_that_has_not_left_whole_ends_it() -> None:
    """An early response is passed on; the rest of the request would delay, or end, the next one."""
    connection, wire, heard = asked()
    wire.unsent = 1
    connection.data_received(OK)

    assert (heard.ends, heard.error) == (1, None)
    assert not connection.reusable
