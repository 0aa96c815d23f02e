"""Requests come out the same however their bytes are cut, and nothing grows without end."""

from itertools import combinations, pairwise
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.downstream.request_parser import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_KNOWN,
    MAX_KNOWN_BYTES,
    MAX_PIPELINED,
    RequestParser,
)
from gateway.errors import ErrorCode
from gateway.proxy.inbound import Inbound, KnownHead
from tests.fuzz.cases import request_case
from tests.fuzz.strict import read_requests

ONE = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = (
    b"PUT /b?c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n"
)
BARE = b"GET / HTTP/1.0\r\n\r\n"
GET = b"GET /c?d HTTP/1.1\r\nHost: h\r\nX-Twice: 1\r\nx-twice:2 \r\n\r\n"
LONGER = b"PUT / HTTP/1.1\r\ncontent-length:8\r\nHost: h\r\n\r\nGET / HT"
LAST = b"PUT / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd"
OLD = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
UPGRADE_WITH_BODY = UPGRADE.replace(b"Host", b"Content-Length: 3\r\nHost") + b"abc"
MALFORMED = b"GET / HTTP/1.1\r\nHost : h\r\n\r\n"

Seen = tuple[str, bytes, str, list[tuple[bytes, bytes]], bytes, bool, bool]


def seen(inbound: Inbound) -> Seen:
    """Return everything there is to know of a request."""
    return (
        inbound.method,
        inbound.target,
        inbound.version,
        list(inbound.fields),
        b"".join(inbound.body),
        inbound.ended,
        inbound.keep_alive,
    )


def parse(
    pieces: list[bytes], known_heads: dict[bytes, KnownHead] | None = None
) -> tuple[list[Seen], ErrorCode | None]:
    """Feed `pieces`, taking requests as they come; return those that are good, and the refusal."""
    parser = RequestParser()
    requests: list[Inbound] = []
    for piece in pieces:
        parser.feed(piece, 0.0, {} if known_heads is None else known_heads)
        requests += parser.queue
        parser.queue.clear()
    if parser.refusal is not None and requests and not requests[-1].ended:
        requests.pop()  # its exchange hears of that, if it has begun
    return [seen(inbound) for inbound in requests], parser.refusal


@given(
    st.lists(st.sampled_from([ONE, CHUNKED, ONE, MALFORMED]), min_size=1, max_size=4),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_requests_are_the_same_however_their_bytes_are_cut(
    messages: list[bytes], cuts: list[int]
) -> None:
    """Only what a caller sent counts, never in which pieces it arrived."""
    stream = b"".join(messages)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in pairwise(places)]

    assert parse(pieces) == parse([stream])


@pytest.mark.parametrize("last", [GET, LAST, MALFORMED, UPGRADE_WITH_BODY])
def test_two_cuts_anywhere_change_nothing(last: bytes) -> None:
    """Every pair of places in a short stream, bodies and what follows them included."""
    stream = LONGER + CHUNKED + ONE + last + ONE
    expected = parse([stream])

    for first, second in combinations(range(len(stream) + 1), 2):
        pieces = [stream[:first], stream[first:second], stream[second:]]
        assert parse([piece for piece in pieces if piece]) == expected


def test_body_is_not_copied() -> None:
    """Where its end is known, what has arrived is passed on as it is."""
    parser = RequestParser()
    parser.feed(LONGER[:-6], 0.0, {})
    piece = LONGER[-6:-1]
    parser.feed(piece, 0.0, {})

    assert parser.queue[0].body[-1] is piece


def test_what_follows_a_body_is_another_request() -> None:
    """It may be recognised, and if it makes no sense, the one before stays whole."""
    parser = RequestParser()
    for piece in (LONGER[:-1], LONGER[-1:], MALFORMED):
        parser.feed(piece, 0.0, {})
    assert [inbound.ended for inbound in parser.queue] == [True]

    parser = RequestParser()
    for piece in (LONGER[:-1], LONGER[-1:], GET):
        parser.queue.clear()
        parser.feed(piece, 0.0, taught(GET))
    assert parser.queue.pop().known is not None


def test_small_pieces_of_a_body_are_gathered() -> None:
    """Those that nobody takes while a token or a connection is awaited."""
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n", 0.0, {})
    for _ in range(99):
        parser.feed(b"x", 0.0, {})

    assert len(parser.queue[0].body) < 20


@given(st.randoms(use_true_random=False))
def test_changed_requests_are_the_same_however_they_are_cut(random: Random) -> None:
    """Valid ones, changed at random; and whole ones are what a strict reader takes them for."""
    pieces = request_case(random).pieces
    stream = b"".join(pieces)
    requests, refusal = parse(list(pieces))
    assert (requests, refusal) == parse([stream] if stream else [])
    if requests and any(name.lower() == b"upgrade" for name, _ in requests[-1][3]):
        requests.pop()  # what follows its head is of another protocol
    for strict, (method, target, version, fields, body, ended, _) in zip(
        read_requests(stream)[0], requests, strict=False
    ):
        assert (strict.method.decode(), strict.target, strict.body) == (method, target, body)
        assert (strict.fields, strict.old) == (fields, version == "1.0")
        assert ended


@given(st.binary(max_size=300))
def test_any_bytes_give_requests_or_a_refusal(garbage: bytes) -> None:
    """Nothing but that: no exception comes out."""
    parse([garbage])
    parse([ONE + garbage])


def test_trailers_are_not_fields_of_this_request_or_the_next() -> None:
    """A trailer is read and dropped."""
    requests, refusal = parse([CHUNKED + ONE])

    assert refusal is None
    assert [fields for _, _, _, fields, *_ in requests] == [
        [(b"Host", b"h"), (b"Transfer-Encoding", b"chunked")],
        [(b"Host", b"h"), (b"Content-Length", b"3")],
    ]
    assert requests[0][4:6] == (b"abcde", True)


def test_what_came_before_a_refusal_stays() -> None:
    """A good request is still to be answered when the next one is bad."""
    requests, refusal = parse([ONE + MALFORMED])

    assert [target for _, target, *_ in requests] == [b"/a"]
    assert refusal is ErrorCode.BAD_REQUEST


def test_nothing_is_understood_after_a_refusal() -> None:
    """Where the next request would begin, nobody can say."""
    requests, _ = parse([MALFORMED, ONE])

    assert requests == []


def test_request_whose_body_turns_out_bad_is_not_to_be_begun() -> None:
    """It can never be complete, so nobody may take it."""
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"

    assert parse([head + b"zz\r\n"]) == ([], ErrorCode.BAD_REQUEST)


def test_method_of_a_refused_request_is_known_if_it_was_read() -> None:
    """The answer to HEAD has no body, refused or not."""
    chunks = b"HEAD / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    for said, method in (
        (MALFORMED.replace(b"GET", b"HEAD"), "HEAD"),
        (b"HEAD x HTTP/1.1\r\n", "HEAD"),
        (chunks, "HEAD"),
        (MALFORMED, "GET"),
        (b"HEAX / HTTP/1.1\r\n", ""),
        (BARE.replace(b"GET", b"HEAD").replace(b"1.0", b"1.1") + b"\x16\x03\x01", ""),
    ):
        parser = RequestParser()
        parser.feed(said, 0.0, {})

        assert parser.refusal is not None
        assert parser.refused_method == method


def test_methods_of_other_protocols_are_unknown() -> None:
    """llhttp knows RTSP's; to us they are as unknown as any other."""
    assert parse([b"DESCRIBE / HTTP/1.1\r\n"])[1] is ErrorCode.METHOD_UNKNOWN


def test_fields_have_a_limit_in_number() -> None:
    """The last allowed one passes, the next is 431."""
    for number, refusal in ((MAX_FIELDS, None), (MAX_FIELDS + 1, ErrorCode.HEADERS_TOO_LARGE)):
        fields = b"A: b\r\n" * number

        assert parse([b"GET / HTTP/1.1\r\n" + fields + b"\r\n"])[1] is refusal


def test_a_field_has_a_limit_in_size() -> None:
    """Name and value together; in one read or in many."""
    for size, refusal in (
        (MAX_FIELD_BYTES, None),
        (MAX_FIELD_BYTES + 1, ErrorCode.HEADERS_TOO_LARGE),
    ):
        head = b"GET / HTTP/1.1\r\nA: " + b"b" * (size - 1) + b"\r\n\r\n"
        halves = [head[:20000], head[20000:]]

        assert parse([head])[1] is refusal
        assert parse(halves)[1] is refusal


def test_a_head_has_a_limit_in_size() -> None:
    """All names and values together."""
    for over, refusal in ((0, None), (1, ErrorCode.HEADERS_TOO_LARGE)):
        whole, rest = divmod(MAX_HEAD_BYTES + over, 30000)
        sizes = [30000] * whole + [rest]
        fields = b"".join(b"A: " + b"b" * (size - 1) + b"\r\n" for size in sizes)

        assert parse([b"GET / HTTP/1.1\r\n" + fields + b"\r\n"])[1] is refusal


def test_a_head_that_never_ends_is_refused() -> None:
    """However small the pieces: what the parser collects by itself is bounded."""
    parser = RequestParser()
    parser.feed(b"GET / HTTP/1.1\r\nA: ", 0.0, {})
    for _ in range(200):
        parser.feed(b"b" * 10000, 0.0, {})

    assert parser.refusal is ErrorCode.HEADERS_TOO_LARGE


@pytest.mark.parametrize("ended", [True, False])
def test_small_chunks_do_not_cost_many_times_their_bytes(ended: bool) -> None:
    """What one read has brought of a body is one piece, unless the pieces are large."""
    head = CHUNKED[: CHUNKED.index(b"3;x=y")]
    end = b"0\r\n\r\n" if ended else b""
    for size, count in ((2, 1), (600, 20)):
        parser = RequestParser()
        parser.feed(head + b"%x\r\n%b\r\n" % (size, b"x" * size) * 20 + end, 0.0, {})
        [inbound] = parser.queue

        assert len(inbound.body) == count
        assert b"".join(inbound.body) == b"x" * size * 20
        assert inbound.ended == ended


def test_trailers_that_never_end_are_refused() -> None:
    """As are chunk extensions: neither brings a byte of a body."""
    parser = RequestParser()
    parser.feed(CHUNKED[: CHUNKED.index(b"3;x=y")] + b"0\r\nA: ", 0.0, {})
    taken = parser.queue.popleft()
    for _ in range(200):
        parser.feed(b"b" * 10000, 0.0, {})

    assert not taken.ended
    assert parser.refusal is ErrorCode.BAD_REQUEST


def test_pipelining_has_a_limit() -> None:
    """The last allowed request is queued, the next is one too many."""
    assert parse([ONE * MAX_PIPELINED])[1] is None
    requests, refusal = parse([ONE * (MAX_PIPELINED + 1)])

    assert len(requests) == MAX_PIPELINED
    assert refusal is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize("cut", [0, 10, 62, 70])
def test_upgrade_is_the_last_request(cut: int) -> None:
    """Whatever follows may be of another protocol: it is kept as it came."""
    sent = UPGRADE + ONE
    parser = RequestParser()
    for piece in (sent[:cut], sent[cut:], b"more"):
        parser.feed(piece, 0.0, {})

    [request] = parser.queue
    assert parser.switching is request
    assert (request.method, request.keep_alive, request.ended) == ("GET", False, True)
    assert b"".join(request.body) == ONE + b"more"
    assert parser.refusal is None


def test_old_version_is_understood() -> None:
    """HTTP/1.0 without Host, closed after the answer unless asked otherwise."""
    assert parse([BARE])[0] == [("GET", b"/", "1.0", [], b"", True, False)]


# Heads that are known.


def recognised(message: bytes, known_heads: dict[bytes, KnownHead]) -> bool:
    """Send `message` on a new connection; return whether it was recognised."""
    parser = RequestParser()
    parser.feed(message, 0.0, known_heads)
    return bool(parser.queue) and parser.queue[0].known is not None


def taught(message: bytes) -> dict[bytes, KnownHead]:
    """Return what is known after `message` has come twice."""
    known_heads: dict[bytes, KnownHead] = {}
    parse([message, message], known_heads)
    return known_heads


@pytest.mark.parametrize("message", [ONE, GET])
def test_head_that_is_repeated_is_known_to_all(message: bytes) -> None:
    """Once is not enough; then it is the same request on every connection, but for its body."""
    once: dict[bytes, KnownHead] = {}
    parse([message, CHUNKED, message], once)
    assert once == {}
    known_heads = taught(message)
    other = message.replace(b"abc", b"xyz")

    assert recognised(other, known_heads)
    assert parse([other], known_heads) == parse([other])


@given(
    st.lists(st.sampled_from([ONE, GET, CHUNKED, BARE, MALFORMED, b"\r\n", ONE[:-1]]), max_size=8),
    st.lists(st.integers(0, 400), max_size=3),
)
def test_what_is_known_changes_no_request(messages: list[bytes], cuts: list[int]) -> None:
    """Whatever came before, and however it is cut."""
    known_heads = taught(ONE) | taught(GET)
    stream = b"".join(messages)
    ends = {sum(map(len, messages[:count])) for count in range(len(messages))}
    places = sorted({0, len(stream)} | ends | {cut for cut in cuts if cut < len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(places)]

    assert parse(pieces, known_heads) == parse(pieces)


@given(st.randoms(use_true_random=False))
def test_changed_requests_are_the_same_when_they_are_known(random: Random) -> None:
    """Valid ones, changed at random, until each has had the chance to be remembered."""
    stream = b"".join(request_case(random).pieces)
    assume(stream)
    known_heads: dict[bytes, KnownHead] = {}
    for _ in range(2):
        parse([stream, stream], known_heads)

    for pieces in ([stream, stream], [stream + stream], [stream, stream[:1]]):
        assert parse(pieces, known_heads) == parse(pieces)


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: close",
        b"Authorization: x",
        b"Cookie: x",
        b"X_Auth-Token: x",
        b"Expect: 100-continue",
        b"Proxy-Authorization: x",
        b"Long: " + b"x" * MAX_KNOWN_BYTES,
    ],
)
def test_some_heads_are_not_remembered(line: bytes) -> None:
    """Secrets, last requests, and what takes more than a head and a body."""
    assert taught(ONE.replace(b"Host: h", b"Host: h\r\n" + line)) == {}


@pytest.mark.parametrize("message", [CHUNKED, OLD, b"\r\n" + ONE, ONE + b"\r\n", ONE + GET])
def test_only_a_plain_request_is_remembered(message: bytes) -> None:
    """Alone and whole in its piece, of HTTP/1.1, and ended by its length."""
    assert taught(message) == {}
    known_heads: dict[bytes, KnownHead] = {}
    parse([ONE[:-1], ONE[-1:]] * 3, known_heads)
    assert known_heads == {}


@pytest.mark.parametrize(("size", "known"), [(MAX_KNOWN_BYTES, 1), (MAX_KNOWN_BYTES + 1, 0)])
def test_long_heads_are_not_remembered(size: int, known: int) -> None:
    """2 KiB are, one more are not."""
    head = b"GET / HTTP/1.1\r\nHost: h\r\nA: %b\r\n\r\n"

    assert len(taught(head % (b"x" * (size - len(head) + 2)))) == known


def test_few_heads_are_remembered() -> None:
    """256; with the next, all others are forgotten, so no caller can make it grow."""
    known_heads: dict[bytes, KnownHead] = {}
    for number in range(MAX_KNOWN):
        parse([b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number] * 2, known_heads)
    assert len(known_heads) == MAX_KNOWN
    parse([ONE, ONE], known_heads)
    assert len(known_heads) == 1


@pytest.mark.parametrize(
    ("before", "count"),
    [
        (ONE[:-3].replace(b": 3", b": %d" % len(GET)), 1),
        (ONE[:-3], 1),
        (BARE, 1),
        (MALFORMED, 0),
        (b"\0", 0),
        (GET[:20], 0),
        (UPGRADE, 1),
        (ONE * (MAX_PIPELINED + 1), MAX_PIPELINED),
    ],
)
def test_nothing_is_recognised_where_nothing_may_begin(before: bytes, count: int) -> None:
    """Inside of a request, behind the last one, a refused one, a switch."""
    requests, refusal = parse([before, GET], taught(GET))

    assert (requests, refusal) == parse([before, GET])
    assert len(requests) == count


def test_what_is_known_is_not_let_in_where_there_are_too_many() -> None:
    """The limit of requests that wait is the same for all."""
    parser = RequestParser()
    for piece in (ONE * MAX_PIPELINED, GET):
        parser.feed(piece, 0.0, taught(GET))

    assert parser.refusal is ErrorCode.BAD_REQUEST
    assert len(parser.queue) == MAX_PIPELINED
