"""Requests come out the same however their bytes are cut, and nothing grows without end."""

import gc
import sys
from dataclasses import dataclass
from itertools import combinations, pairwise
from random import Random
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ErrorCode
from gateway.http.reader_state import DONE, HEAD, REFUSED, TUNNEL
from gateway.http.request import Request
from gateway.http.request_head import METHODS
from gateway.http.request_reader import MAX_FIELD_BYTES, MAX_FIELDS, MAX_HEAD_BYTES, RequestReader
from gateway.http.target import MAX_TARGET_BYTES
from tests.programs.fuzz.cases import request_case
from tests.programs.fuzz.strict import read_requests
from tests.support.rows import every_row
from tests.unit.http.outcomes import known_of_request

ONE = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED_HEAD = b"PUT /b?c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKED_HEAD + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n"
BARE = b"GET / HTTP/1.0\r\n\r\n"
GET = b"GET /c?d HTTP/1.1\r\nHost: h\r\nX-Twice: 1\r\nx-twice:2 \r\n\r\n"
LONGER = b"PUT / HTTP/1.1\r\ncontent-length:8\r\nHost: h\r\n\r\nGET / HT"
LAST = b"PUT / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd"
UPGRADE = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
UPGRADE_WITH_BODY = UPGRADE.replace(b"Host", b"Content-Length: 3\r\nHost") + b"abc"
MALFORMED = b"GET / HTTP/1.1\r\nHost : h\r\n\r\n"
HEAD_WITHOUT_HOST = b"HEAD / HTTP/1.1\r\nA: b\r\n\r\n"


@dataclass(frozen=True)
class Parsed:
    """What has come of some bytes."""

    requests: list[tuple[object, ...]]
    """What each head says, the body as far as it has come, and whether that is all of it."""
    refusal: ErrorCode | None
    refused_method: str


def parse(pieces: list[bytes]) -> Parsed:
    """Feed `pieces`, and take requests as they become complete."""
    reader = RequestReader()
    requests: list[Request] = []
    for piece in pieces:
        reader.feed(piece)
        while reader.state is DONE and reader.request is not None:
            requests.append(reader.request)
            reader.begin_next()
    if reader.request is not None and reader.refusal is None:
        requests.append(reader.request)  # its body is still arriving, or it switches protocols
    return Parsed(
        [(*known_of_request(one.head), b"".join(one.body), one.ended) for one in requests],
        None if reader.refusal is None else reader.refusal.code,
        reader.refused_method,
    )


def after(*pieces: bytes) -> RequestReader:
    """Return a reader that was fed `pieces` and never told to go on."""
    reader = RequestReader()
    for piece in pieces:
        reader.feed(piece)
    return reader


def refusal_of(stream: bytes, *, cut_at: int | None = None) -> ErrorCode | None:
    pieces = [stream] if cut_at is None else [stream[:cut_at], stream[cut_at:]]
    return parse([piece for piece in pieces if piece]).refusal


def targets(parsed: Parsed) -> list[object]:
    return [request[1] for request in parsed.requests]


# However it is cut.


@given(
    st.lists(
        st.sampled_from([ONE, CHUNKED, ONE, MALFORMED, HEAD_WITHOUT_HOST]), min_size=1, max_size=4
    ),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_requests_are_the_same_however_their_bytes_are_cut(
    messages: list[bytes], cuts: list[int]
) -> None:
    """Only what a client sent counts, never in which pieces it arrived."""
    stream = b"".join(messages)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in pairwise(places)]

    assert parse(pieces) == parse([stream])


@pytest.mark.parametrize(
    "stream",
    [
        CHUNKED + BARE,
        LONGER + GET,
        LONGER + LAST + BARE,
        LONGER + MALFORMED,
        LONGER + HEAD_WITHOUT_HOST,
        UPGRADE_WITH_BODY + BARE,
    ],
)
def test_two_cuts_anywhere_change_nothing(stream: bytes) -> None:
    """Every pair of places in a short stream, bodies and what follows them included."""
    expected = parse([stream])

    for first, second in combinations(range(len(stream) + 1), 2):
        pieces = [stream[:first], stream[first:second], stream[second:]]
        assert parse([piece for piece in pieces if piece]) == expected


@given(st.randoms(use_true_random=False))
def test_changed_requests_are_the_same_however_they_are_cut(random: Random) -> None:
    """Valid ones, changed at random; and whole ones are what a strict reader takes them for."""
    pieces = request_case(random).pieces
    stream = b"".join(pieces)
    parsed = parse(list(pieces))
    assert parsed == parse([stream] if stream else [])
    requests = list(parsed.requests)
    if requests and requests[-1][11] is not None:
        requests.pop()  # what follows its head is of another protocol
    for strict, found in zip(read_requests(stream)[0], requests, strict=False):
        method, target, _, http_1_0, lines, *_, body, ended = found
        assert (strict.method.decode(), strict.target, strict.old) == (method, target, http_1_0)
        assert (strict.body, strict.chunked) == (body, found[7])
        assert isinstance(lines, list)
        assert set(lines) <= {b"%b: %b" % field for field in strict.fields} | {
            b"Origin: " + value for value in strict.values(b"origin")
        }
        assert ended


@given(st.binary(max_size=300))
def test_any_bytes_give_requests_or_a_refusal(garbage: bytes) -> None:
    """Nothing but that: no exception comes out."""
    parse([garbage] if garbage else [])
    parse([ONE + garbage])


@pytest.mark.parametrize(
    "start", [b"PRI * HTTP/2.0", *(f"{name} / H".encode() for name in METHODS)]
)
def test_a_first_line_that_breaks_off_is_the_same_in_one_piece_or_in_many(start: bytes) -> None:
    """Also one that begins like the preface of HTTP/2, or is only a method."""
    with every_row() as trying:
        for length in range(len(start) + 1):
            with trying(start[:length]):
                stream = start[:length] + b"\r\n\r\n" + GET
                assert parse([stream]) == parse([bytes([octet]) for octet in stream])


# One request after the other.


def test_reading_ends_with_a_request_until_the_next_is_wanted() -> None:
    """What has arrived behind it is kept, and not looked at."""
    reader = after(ONE + b"\0")
    first = reader.request
    assert reader.state is DONE
    assert reader.has_unread()
    assert not reader.in_head()

    reader.feed(b"more")
    assert (reader.state, reader.request, reader.refusal) == (DONE, first, None)
    reader.begin_next()
    assert reader.refusal is not None
    assert reader.refusal.code is ErrorCode.METHOD_UNKNOWN


def test_any_number_of_requests_may_wait() -> None:
    """They are bytes that nobody has read yet; the reader of the connection bounds them."""
    parsed = parse([ONE * 1000])

    assert len(parsed.requests) == 1000
    assert parsed.refusal is None


def test_whether_a_head_has_begun_is_known() -> None:
    """Not by empty lines before it, and not once it has ended."""
    reader = RequestReader()
    seen = []
    for piece in (b"\r", b"\n\r\n", b"G", b"ET / HTTP/1.1\r\n", b"Host: h\r\n", b"\r\n"):
        reader.feed(piece)
        seen.append(reader.in_head())
    assert seen == [False, False, True, True, True, False]

    reader.begin_next()
    assert (reader.state, reader.request, reader.in_head()) == (HEAD, None, False)


def test_what_follows_a_body_is_another_request() -> None:
    """If it makes no sense, the one before stays whole."""
    parsed = parse([LONGER[:-1], LONGER[-1:], MALFORMED])

    assert [request[-2:] for request in parsed.requests] == [(b"GET / HT", True)]
    assert parsed.refusal is ErrorCode.BAD_REQUEST


def test_what_came_before_a_refusal_stays() -> None:
    """A good request is still to be answered when the next one is bad."""
    parsed = parse([ONE + MALFORMED])

    assert targets(parsed) == [b"/a"]
    assert parsed.refusal is ErrorCode.BAD_REQUEST


def test_nothing_is_understood_after_a_refusal() -> None:
    """Where the next request would begin, nobody can say."""
    for bad in (MALFORMED, CHUNKED_HEAD + b"zz\r\n"):
        reader = after(bad, ONE, CHUNKED)
        refused = reader.request
        reader.feed(b"2\r\nab\r\n0\r\n\r\n")

        assert reader.state is REFUSED
        assert reader.request is refused
        assert refused is None or (refused.body, refused.ended) == ([], False)
        assert not reader.has_unread()
        assert not reader.in_head()


def test_request_whose_body_turns_out_bad_is_not_complete() -> None:
    """It has begun, and will never end."""
    reader = after(CHUNKED_HEAD + b"2\r\nab\r\nzz\r\n")

    assert reader.refusal is not None
    assert reader.refusal.code is ErrorCode.BAD_REQUEST
    assert reader.request is not None
    assert not reader.request.ended


def test_method_of_a_refused_request_is_known_if_it_was_read() -> None:
    """The response to HEAD has no body, refused or not."""
    chunks = CHUNKED_HEAD.replace(b"PUT", b"HEAD") + b"zz\r\n"
    for said, method in (
        (MALFORMED.replace(b"GET", b"HEAD"), "HEAD"),
        (b"HEAD / HTTP/3\r\n", "HEAD"),
        (b"\r\n\nHEAD / HTTP/3\r\n", "HEAD"),
        (HEAD_WITHOUT_HOST, "HEAD"),
        (chunks, "HEAD"),
        (MALFORMED, "GET"),
        (b"HEAX / HTTP/1.1\r\n", ""),
        (b"HEAD\x00/ HTTP/1.1\r\n", ""),
        (BARE.replace(b"GET", b"HEAD") + b"\x16\x03\x01", ""),
    ):
        for cut in range(len(said)):
            parsed = parse([piece for piece in (said[:cut], said[cut:]) if piece])
            assert parsed.refusal is not None
            assert parsed.refused_method == method, (said, cut)


def test_methods_of_other_protocols_are_unknown() -> None:
    """As unknown as any other."""
    assert refusal_of(b"DESCRIBE / HTTP/1.1\r\n") is ErrorCode.METHOD_UNKNOWN


def test_old_version_is_understood() -> None:
    """HTTP/1.0 without Host, closed after the response unless asked otherwise."""
    for request, keep_alive in (
        (BARE, False),
        (BARE.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"), True),
    ):
        reader = after(request)
        assert reader.request is not None
        assert reader.request.ended
        assert reader.request.head.line.http_1_0
        assert (reader.request.head.host, reader.request.head.keep_alive) == (None, keep_alive)


@pytest.mark.parametrize("cut", [0, 10, 62, 70])
@pytest.mark.parametrize("upgrade", [UPGRADE, UPGRADE_WITH_BODY])
def test_upgrade_is_the_last_request(upgrade: bytes, cut: int) -> None:
    """Whatever follows may be of another protocol: it is kept as it came."""
    sent = upgrade + ONE
    reader = after(*(piece for piece in (sent[:cut], sent[cut:], b"more") if piece))
    request = reader.request

    assert reader.state is TUNNEL
    assert reader.refusal is None
    assert request is not None
    assert (request.head.line.method, request.head.keep_alive, request.ended) == (
        "GET",
        False,
        True,
    )
    body = upgrade[-3:] if upgrade is UPGRADE_WITH_BODY else b""
    assert b"".join(request.body) == body + ONE + b"more"


# Bodies.


def test_trailers_are_not_fields_of_this_request_or_the_next() -> None:
    """A trailer is read and dropped."""
    parsed = parse([CHUNKED + ONE])

    assert parsed.refusal is None
    assert targets(parsed) == [b"/b?c", b"/a"]
    assert [request[4] for request in parsed.requests] == [[], []]
    assert parsed.requests[0][-2:] == (b"abcde", True)


def test_body_is_not_copied() -> None:
    """Where its end is known, what has arrived is passed on as it is."""
    piece = LONGER[-6:-1]
    reader = after(LONGER[:-6], piece)

    assert reader.request is not None
    assert reader.request.body[-1] is piece


def test_body_is_taken_once() -> None:
    """What has been taken is not returned again; what comes later is new."""
    reader = after(LONGER[:-6])
    assert reader.request is not None
    taken = [reader.request.take_body()]
    for piece in (LONGER[-6:-1], LONGER[-1:]):
        reader.feed(piece)
        taken.append(reader.request.take_body())

    assert taken == [[b"GE"], [b"T / H"], [b"T"]]
    assert reader.request.take_body() == []


@pytest.mark.parametrize("head", [ONE[:-3].replace(b": 3", b": 100"), CHUNKED_HEAD + b"64\r\n"])
def test_small_pieces_of_a_body_are_gathered(head: bytes) -> None:
    """Those that nobody takes while a token or a connection is awaited."""
    reader = after(head, *[b"x"] * 99)

    assert reader.request is not None
    assert len(reader.request.body) < 20
    assert b"".join(reader.request.body) == b"x" * 99


@pytest.mark.parametrize("ended", [True, False])
def test_small_chunks_do_not_cost_many_times_their_bytes(ended: bool) -> None:
    """What one read has brought of a body is one piece, unless the pieces are large."""
    end = b"0\r\n\r\n" if ended else b""
    for size, count in ((2, 1), (600, 20)):
        reader = after(CHUNKED_HEAD + b"%x\r\n%b\r\n" % (size, b"x" * size) * 20 + end)
        request = reader.request

        assert request is not None
        assert len(request.body) == count
        assert b"".join(request.body) == b"x" * size * 20
        assert request.ended == ended


def test_trailers_that_never_end_are_refused() -> None:
    """As are chunk extensions: neither brings a byte of a body."""
    for start in (b"0\r\nA: ", b"1;a="):
        reader = after(CHUNKED_HEAD + start, *[b"b" * 10000] * 200)

        assert reader.refusal is not None
        assert reader.refusal.code is ErrorCode.BAD_REQUEST
        assert reader.request is not None
        assert not reader.request.ended


# Limits.


def test_fields_have_a_limit_in_number() -> None:
    """The last allowed one passes, the next is 431."""
    for number, refusal in ((MAX_FIELDS, None), (MAX_FIELDS + 1, ErrorCode.HEADERS_TOO_LARGE)):
        head = b"GET / HTTP/1.0\r\n" + b"A: b\r\n" * number + b"\r\n"

        assert refusal_of(head) is refusal
        assert all(refusal_of(head, cut_at=cut) is refusal for cut in range(len(head)))


def test_a_field_has_a_limit_in_size() -> None:
    """Name and value together; in one read or in many."""
    for size, refusal in (
        (MAX_FIELD_BYTES, None),
        (MAX_FIELD_BYTES + 1, ErrorCode.HEADERS_TOO_LARGE),
    ):
        head = b"GET / HTTP/1.0\r\nA: " + b"b" * (size - 1) + b"\r\n\r\n"

        assert refusal_of(head) is refusal
        for cut in (17, 20, 20000, *range(len(head) - 8, len(head))):
            assert refusal_of(head, cut_at=cut) is refusal


def test_a_head_has_a_limit_in_size() -> None:
    """All names and values together; in one read or in many."""
    for over, refusal in ((0, None), (1, ErrorCode.HEADERS_TOO_LARGE)):
        whole, rest = divmod(MAX_HEAD_BYTES + over, 30000)
        sizes = [10, 20, *[30000] * whole, rest - 30]
        fields = b"".join(b"A: " + b"b" * (size - 1) + b"\r\n" for size in sizes)
        head = b"GET / HTTP/1.0\r\n" + fields + b"\r\n"

        assert refusal_of(head) is refusal
        for cut in (5, 20, 40, 55, 30000, 60000, 60100, *range(len(head) - 8, len(head))):
            assert refusal_of(head, cut_at=cut) is refusal


def test_a_target_has_a_limit_in_size() -> None:
    """In one read or in many."""
    for size, refusal in (
        (MAX_TARGET_BYTES, None),
        (MAX_TARGET_BYTES + 1, ErrorCode.TARGET_TOO_LONG),
    ):
        head = b"GET /" + b"a" * (size - 1) + b" HTTP/1.0\r\n\r\n"

        assert refusal_of(head) is refusal
        for cut in (3, 4, 5, 4000, *range(len(head) - 20, len(head))):
            assert refusal_of(head, cut_at=cut) is refusal


@pytest.mark.parametrize(
    ("begin", "code"),
    [
        (b"", ErrorCode.METHOD_UNKNOWN),
        (b"GET /", ErrorCode.TARGET_TOO_LONG),
        (b"GET / ", ErrorCode.BAD_REQUEST),
        (b"GET / HTTP/1.1", ErrorCode.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\n", ErrorCode.HEADERS_TOO_LARGE),
        (b"GET / HTTP/1.1\r\nA: ", ErrorCode.HEADERS_TOO_LARGE),
        (b"GET / HTTP/1.1\r\nA: b\r\n", ErrorCode.HEADERS_TOO_LARGE),
    ],
)
def test_a_head_that_never_ends_is_refused(begin: bytes, code: ErrorCode) -> None:
    """However small the pieces: what the reader collects by itself is bounded."""
    reader = after(*filter(None, [begin]), *[b"b" * 1000] * 200)

    assert reader.refusal is not None
    assert reader.refusal.code is code
    assert not reader._unread


@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\n",
        b"GET /\n",
        b"GET / HTTP/1.1\r\r",
        b"GET / HTTP/1.1\rX",
        b"GET /\rX",
        b"GET /\x00",
        b"GET  /",
        b"GET /  ",
        b"GET / R",
        b"GET / HTTP/1.1 ",
        b"GET / HTTP/1.11",
        b"GET / HTTP/1.1\r\nHost: h\n",
        b"GET / HTTP/1.1\r\nHost: h\r\r",
        b"GET / HTTP/1.1\r\nHost: h\rX",
        b"GET / HTTP/1.1\r\n\n",
        b"GET / HTTP/1.1\r\n\r\r",
        b"GET / HTTP/1.1\r\nHost: h\r\n\rX",
        b"GET / HTTP/1.1\r\nHost: h\x00",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01",
    ],
)
def test_what_can_become_no_request_is_refused_at_once(begin: bytes) -> None:
    """A client that ends its lines in its own way, or speaks another protocol, need not wait."""
    assert refusal_of(begin[:-1]) is None or begin[0] not in b"GP"
    assert refusal_of(begin) is not None
    assert all(refusal_of(begin, cut_at=cut) is refusal_of(begin) for cut in range(len(begin)))


def test_at_its_limits_a_head_is_the_same_however_it_is_cut() -> None:
    """The first octet that is amiss or too much tells why, also where both come together."""
    random = Random(7)
    for _ in range(300):
        lines = [b"GET /%b HTTP/1.0" % (b"a" * random.choice((1, 8100, 8191, 8192)))]
        sizes = random.choices((1, 3000, 29000, 32766, 32767, 32768), k=random.randrange(7))
        lines += [b"A: " + b"b" * size for size in sizes]
        lines += [b"A:b"] * random.choice((0, 0, 94, 95, 96, 97, 98, 99, 100))
        stream = b"\r\n".join([*lines, b"", b""])
        for _ in range(random.choice((0, 1, 1, 2))):
            at = random.randrange(len(stream))
            stream = stream[:at] + random.choice((b"\0", b"\r", b"\n", b" ")) + stream[at:]
        cuts = sorted(random.randrange(len(stream)) for _ in range(random.choice((1, 3, 30))))
        places = sorted({0, len(stream), *cuts})

        assert parse([stream[a:b] for a, b in pairwise(places)]) == parse([stream])


def test_a_byte_more_costs_the_same_however_much_came_before() -> None:
    """Lines that are whole are not read again with each byte that comes."""
    reader = RequestReader()
    reader.feed(b"POST /iris HTTP/1.1\r\nHost: localhost\r\n")
    costs = []
    for field in range(90):
        reader.feed(b"x-%d: " % field)
        costs += [calls_to_feed(reader, b"a") for _ in range(300)]
        reader.feed(b"\r\n")

    assert reader.in_head()
    assert max(costs) <= min(costs) + 2


def calls_to_feed(reader: RequestReader, data: bytes) -> int:
    """Return how many functions, Python's and C's, reading `data` calls."""
    calls = 0

    def count(_frame: FrameType, event: str, _what: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    gc.disable()  # hypothesis has it call functions, which would be counted
    sys.setprofile(count)
    reader.feed(data)
    sys.setprofile(None)
    gc.enable()
    return calls
