"""Which fields cross, in both directions."""

from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DownstreamError, ErrorCode, UpstreamError
from tests.unit.http.outcomes import request_head_of, response_head_of

HOST = (b"Host", b"localhost")

_NAMES = st.sampled_from(
    [
        b"A", b"a", b"B-c", b"b-C", b"X_Y", b"Accept", b"ACCEPT", b"content-type", b"X-Own", b"via",
        b"Cache-Control", b"x-request-id",
    ]
)  # fmt: skip
_VALUES = st.lists(
    st.sampled_from([9, *range(32, 127), *range(128, 256)]), max_size=10
).map(bytes)  # fmt: skip
_FIELDS = st.lists(st.tuples(_NAMES, _VALUES), max_size=12)
_OPTIONS = st.lists(st.tuples(_NAMES, st.sampled_from([b"", b" ", b"\t"])), min_size=1, max_size=4)


def refusal(*fields: tuple[bytes, bytes], minor: bytes = b"1") -> ErrorCode | None:
    """Return why these fields are refused, at once or at admission."""
    try:
        fault = request_head_of(fields, minor=minor).fault
    except DownstreamError as error:
        return error.code
    return None if fault is None else fault.code


def _lines(fields: list[tuple[bytes, bytes]], without: set[bytes]) -> list[bytes]:
    return [
        b"%b: %b" % (name, value.strip(b" \t"))
        for name, value in fields
        if name.lower() not in without
    ]


@given(_FIELDS, _OPTIONS, st.integers(0, 12))
def test_connection_removes_exactly_what_it_names(
    fields: list[tuple[bytes, bytes]], options: list[tuple[bytes, bytes]], at: int
) -> None:
    """Wherever it stands and however it is written; the rest keeps order, case and duplicates."""
    named = {name.lower() for name, _ in options}
    connection = (b"cOnnection", b",".join(pad + name + pad for name, pad in options))
    request = [HOST, *fields]
    request.insert(at, connection)
    response = list(fields)
    response.insert(at, connection)

    assert request_head_of(request).lines == _lines(fields, named)
    assert response_head_of(response).lines == _lines(fields, named)


_STAYS_HERE = st.sampled_from(
    [
        b"x-auth-token", b"x-subject-token", b"x-service-token", b"authorization", b"cookie", b"te",
        b"x-project-id", b"x-roles", b"proxy-authorization", b"proxy-x", b"x-sdk-date",
        b"x-real-ip",
        b"x-forwarded-for", b"forwarded", b"keep-alive", b"x-http-method-override", b"trailer",
    ]
)  # fmt: skip


@given(_STAYS_HERE, st.randoms(use_true_random=False), _FIELDS)
def test_no_spelling_of_what_stays_here_gets_past(
    name: bytes, random: Random, fields: list[tuple[bytes, bytes]]
) -> None:
    """Letter case and underscores at will, anywhere among others, and others are untouched."""
    spelled = b"".join(
        b"_" if octet == ord("-") and random.random() < 0.5 else
        bytes([octet]).upper() if random.random() < 0.5 else bytes([octet])
        for octet in name
    )  # fmt: skip
    request = [HOST, *fields]
    request.insert(random.randrange(len(request) + 1), (spelled, b"stolen"))

    assert request_head_of(request).lines == _lines(fields, set())


@given(st.sampled_from([b"set-cookie", b"set-cookie2", b"x-subject-token", b"x-auth-token"]),
       st.randoms(use_true_random=False), _FIELDS)  # fmt: skip
def test_no_spelling_of_a_secret_gets_back(
    name: bytes, random: Random, fields: list[tuple[bytes, bytes]]
) -> None:
    """In whatever letter case a service writes it."""
    spelled = bytes(random.choice((octet, ord(chr(octet).upper()))) for octet in name)
    response = [*fields, (spelled, b"stolen")]

    assert response_head_of(response).lines == _lines(fields, set())


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=8))
def test_arbitrary_octets_are_judged(fields: list[tuple[bytes, bytes]]) -> None:
    """Nothing but our own errors comes out."""
    with suppress(DownstreamError):
        request_head_of([HOST, *fields])
    with suppress(UpstreamError):
        response_head_of(fields)


@pytest.mark.parametrize(
    "name",
    [
        b"keep-alive", b"proxy-connection", b"te", b"proxy-authorization", b"trailer",
        b"http2-settings", b"authorization", b"x-auth-token", b"X-AUTH-TOKEN", b"x_auth_token",
        b"X-Auth_Token", b"x-subject-token", b"x-service-token", b"x-security-token",
        b"x-apig-appcode", b"apikey", b"x-domain-id", b"x-project-id", b"cookie", b"forwarded",
        b"x-real-ip", b"x-client-ip", b"true-client-ip", b"x-http-method-override",
        b"x-forwarded-for",
        b"X_Forwarded_Whatever", b"proxy-anything", b"x-sdk-date", b"transfer_encoding",
        b"content_length", b"x-forwarded", b"x-roles", b"X_Identity_Status", b"x-project-name",
        b"X.Auth.Token", b"X!Auth!Token", b"x~auth^token", b"X-User-Id", b"x-user", b"X_User_Name",
        b"X-Service-User-Id", b"x-service-project-name", b"X-Service-Domain-Id",
        b"OpenStack-System-Scope", b"X.Forwarded.For", b"content.length",
    ],
)  # fmt: skip
def test_what_ends_here(name: bytes) -> None:
    """One hop's business, claims about earlier hops, the client's identity, and their twins."""
    found = request_head_of([HOST, (name, b"stolen"), (b"X-Own", b"1")])

    assert found.lines == [b"X-Own: 1"]


@pytest.mark.parametrize(
    "name",
    [
        b"x-auth-tokens",
        b"my-cookie",
        b"x-own-authorization",
        b"x_own",
        b"sdk-x",
        b"via",
        b"x.own",
        b"x-service-name",
        b"x-users",
        b"user-id",
    ],
)
def test_what_merely_looks_like_it_passes(name: bytes) -> None:
    """No more is dropped than is named."""
    assert request_head_of([HOST, (name, b"1")]).lines == [name + b": 1"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ([HOST, HOST], ErrorCode.BAD_REQUEST),
        ([], ErrorCode.BAD_REQUEST),
        ([HOST, (b"Content-Length", b"1"), (b"content-length", b"1")], ErrorCode.BAD_REQUEST),
        ([HOST, (b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")],
        ErrorCode.BAD_REQUEST),
        ([HOST, (b"Transfer-Encoding", b"chunked")] * 2, ErrorCode.BAD_REQUEST),
        ([HOST, (b"Transfer-Encoding", b"gzip")], ErrorCode.BAD_REQUEST),
        ([HOST, (b"Expect", b"200-ok")], ErrorCode.EXPECTATION_FAILED),
        ([HOST, (b"X-Original-URL", b"/x")], ErrorCode.BAD_TARGET),
        ([HOST, (b"x-rewrite-url", b"/x")], ErrorCode.BAD_TARGET),
    ],
)  # fmt: skip
def test_what_refuses_a_request(fields: list[tuple[bytes, bytes]], code: ErrorCode) -> None:
    """Framing that can be read in two ways, and what we do not do."""
    assert refusal(*fields) is code


@pytest.mark.parametrize("name", [b"traceparent", b"Traceparent"])
def test_a_trace_is_found_and_goes_on(name: bytes) -> None:
    """Byte for byte, in its place; without one there is none."""
    fields = [HOST, (b"A", b"1"), (name, b"00-\xff"), (b"tracestate", b"x=y"), (b"B", b"2")]
    found = request_head_of(fields)

    assert found.traceparent == b"00-\xff"
    assert found.lines == [b"A: 1", name + b": 00-\xff", b"tracestate: x=y", b"B: 2"]
    assert request_head_of([HOST]).traceparent is None


@pytest.mark.parametrize("count", [2, 3, 4])
def test_two_traces_are_none(count: int) -> None:
    """The service may judge for itself: they are passed on all the same."""
    fields = [(b"TRACEPARENT", b"%d" % number) for number in range(count)]
    found = request_head_of([HOST, *fields])

    assert found.traceparent == b""
    assert found.lines == [b"TRACEPARENT: %d" % number for number in range(count)]


def test_http_1_0_has_no_codings_and_no_expectations() -> None:
    """Chunked is refused; 100-continue is ignored; a missing Host is allowed."""
    assert refusal((b"Transfer-Encoding", b"chunked"), minor=b"0") is ErrorCode.BAD_REQUEST
    found = request_head_of([(b"Expect", b"100-continue")], minor=b"0")
    assert not found.expects_continue
    assert found.host is None


def test_framing_and_marks_are_found() -> None:
    """What later decisions need, and none of it is forwarded as it came."""
    found = request_head_of(
        [
            HOST,
            (b"content-length", b"7"),
            (b"Expect", b"100-Continue"),
            (b"Origin", b"null"),
            (b"Sec-Fetch-Site", b"cross-site"),
            (b"Upgrade", b"WebSocket"),
        ]
    )

    assert (found.host, found.content_length, found.expects_continue) == (b"localhost", 7, True)
    assert (found.origin, found.fetch_site) == (b"null", b"cross-site")
    assert found.upgrade == b"websocket"
    assert not found.chunked
    assert found.lines == [b"Origin: null"]  # admission lets it go on only where it is allowed


def test_connection_can_name_what_is_ours() -> None:
    """`Connection: Host, Content-Length` deletes neither: what is ours is written after."""
    found = request_head_of(
        [HOST, (b"Connection", b"host, content-length"), (b"Content-Length", b"3")]
    )

    assert found.content_length == 3
    assert found.host == b"localhost"


def test_repeated_marks_of_a_browser_are_seen_together() -> None:
    """Neither the first nor the last can hide another."""
    found = request_head_of(
        [
            HOST,
            (b"Origin", b"http://a"),
            (b"Sec-Fetch-Site", b"cross-site"),
            (b"origin", b"http://b"),
            (b"sec-fetch-site", b"none"),
        ]
    )

    assert (found.origin, found.fetch_site) == (b"http://a, http://b", b"cross-site, none")


def test_framing_of_a_response_may_have_white_space_behind_it() -> None:
    """RFC 9112 section 5.1: it is no part of the value, and does not pass."""
    found = response_head_of([(b"Content-Length", b"2 \t")])
    assert (found.content_length, found.lines) == (2, [b"Content-Length: 2"])
    assert response_head_of([(b"Transfer-Encoding", b"chunked ")]).chunked


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Content-Length", b"9" * 16)],
        [(b"Content-Length", b"1"), (b"Content-Length", b"1")],
        [(b"Content-Length", b"+1")],
        [(b"Content-Length", b"")],
        [(b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"gzip, chunked")],
        [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
    ],
)
def test_responses_whose_end_is_in_doubt_are_refused(fields: list[tuple[bytes, bytes]]) -> None:
    """Nobody downstream gets to guess."""
    with pytest.raises(UpstreamError, match=r"Content-Length|Transfer-Encoding"):
        response_head_of(fields)


def test_what_a_response_tells_us() -> None:
    """Server, request id and challenge are noted and passed on; codings are noted only."""
    found = response_head_of(
        [
            (b"Server", b"ModelArts"),
            (b"X-Request-Id", b"r1"),
            (b"WWW-Authenticate", b"keystone uri='x'"),
            (b"Transfer-Encoding", b"Chunked"),
        ]
    )

    assert (found.server, found.request_id) == (b"ModelArts", b"r1")
    assert found.challenges_for_keystone
    assert found.chunked
    assert [line.partition(b":")[0] for line in found.lines] == [
        b"Server",
        b"X-Request-Id",
        b"WWW-Authenticate",
    ]


@pytest.mark.parametrize("value", [b"Basic realm=x", b"Keystone", b"KeystoneX y", b""])
def test_other_challenges_are_not_keystones(value: bytes) -> None:
    """Only the scheme with its parameters counts."""
    assert not response_head_of([(b"WWW-Authenticate", value)]).challenges_for_keystone
