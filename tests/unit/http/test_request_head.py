"""What the head of a request says, row by row."""

import pytest

from gateway.errors import DownstreamError, ErrorCode
from gateway.http import request_head
from gateway.http.request_head import METHODS, check_start, method_in, read_request_line
from tests.unit.http.outcomes import Fields, request_head_of

_HOST = (b"Host", b"h")


@pytest.mark.parametrize(
    ("minor", "fields", "keep_alive"),
    [
        (b"1", [], True),
        (b"9", [], True),
        (b"0", [], False),
        (b"0", [(b"Connection", b"Keep-Alive")], True),
        (b"0", [(b"Proxy-Connection", b"keep-alive")], True),
        (b"0", [(b"Connection", b"keep-alive, close")], False),
        (b"1", [(b"Connection", b"CLOSE")], False),
        (b"1", [(b"Connection", b"a ,\tclose")], False),
        (b"1", [(b"Connection", b"closed")], True),
        (b"1", [(b"Proxy-Connection", b"close")], False),
        (b"1", [(b"Connection", b"upgrade"), (b"Upgrade", b"websocket")], False),
        (b"1", [(b"Connection", b"upgrade"), (b"Upgrade", b"x")], True),  # an offer, ignored
        (b"1", [(b"Connection", b"upgrade")], True),
        (b"1", [(b"Upgrade", b"x")], True),
        (b"1", [(b"Proxy-Connection", b"upgrade"), (b"Upgrade", b"x")], True),
    ],
)
def test_whether_the_connection_may_be_kept(minor: bytes, fields: Fields, keep_alive: bool) -> None:
    """As the version and Connection say; never behind a switch of protocols."""
    assert request_head_of([_HOST, *fields], minor=minor).keep_alive == keep_alive


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
def test_expectation(value: bytes) -> None:
    """In any letter case; ignored from HTTP/1.0."""
    assert not request_head_of([_HOST]).expects_continue
    assert request_head_of([_HOST, (b"Expect", value)]).expects_continue
    assert not request_head_of([(b"Expect", value)], minor=b"0").expects_continue


def test_first_fault_is_the_one_that_counts() -> None:
    """So the answer does not depend on what follows."""
    head = request_head_of([_HOST, (b"Expect", b"x"), (b"X-Rewrite-URL", b"/")])
    assert head.fault is not None
    assert head.fault.code is ErrorCode.EXPECTATION_FAILED


@pytest.mark.parametrize("minor", [b"1", b"2"])
def test_a_host_is_needed(minor: bytes) -> None:
    """Exactly one; with HTTP/1.0 it may be missing."""
    assert request_head_of([], minor=b"0").host is None
    for fields in ([], [_HOST, _HOST]):
        with pytest.raises(DownstreamError) as caught:
            request_head_of(fields, minor=minor)
        assert caught.value.code is ErrorCode.BAD_REQUEST


def test_no_coding_on_http_1_0() -> None:
    """Old servers do not know it, and take the chunks for another request."""
    coding = (b"Transfer-Encoding", b"chunked")
    assert request_head_of([_HOST, coding]).chunked
    with pytest.raises(DownstreamError):
        request_head_of([_HOST, coding], minor=b"0")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([b"a.B-1_:"], "a.B-1_:"),
        ([b"x" * 64], "x" * 64),
        ([b"x" * 65], ""),
        ([b""], ""),
        ([b"a b"], ""),
        ([b"\xff"], ""),
        ([b"a b", b"c"], "c"),
        ([b"a", b"b"], "a"),
    ],
)
def test_request_id_is_ours_if_it_is_plain(values: list[bytes], found: str) -> None:
    """All of them go on as they are."""
    fields = [(b"X-Request-Id", value) for value in values]
    head = request_head_of([_HOST, *fields])

    assert head.request_id == found
    assert head.lines == [b"X-Request-Id: " + value for value in values]


@pytest.mark.parametrize("method", METHODS)
def test_request_line(method: str) -> None:
    """Its parts; read a second time it is the same object, if it has no query."""
    for target, path, query in ((b"/a", b"/a", b""), (b"/a?b?c", b"/a", b"?b?c")):
        line = b"%b %b HTTP/1.1" % (method.encode(), target)
        read = read_request_line(line)

        assert (read.method, read.target, read.path, read.query) == (method, target, path, query)
        assert (read.supported, read.http_1_0, read.fault) == (True, False, None)
        assert (read_request_line(line) is read) == (not query)


@pytest.mark.parametrize(
    ("version", "supported", "http_1_0"),
    [(b"1.0", True, True), (b"1.1", True, False), (b"1.9", True, False), (b"2.0", False, False),
     (b"0.9", False, False), (b"3.0", False, False)],
)  # fmt: skip
def test_version(version: bytes, supported: bool, http_1_0: bool) -> None:
    """Others are refused by admission, once they have been read."""
    read = read_request_line(b"GET / HTTP/" + version)

    assert (read.supported, read.http_1_0) == (supported, http_1_0)


def test_memory_of_request_lines_is_bounded() -> None:
    """In number; what is long, has a query or a bad target is not kept."""
    for number in range(1000):
        read_request_line(b"GET /%d HTTP/1.1" % number)
        assert len(request_head._known_lines) <= 256
    before = set(request_head._known_lines)
    for target in (b"/" + b"a" * 256, b"/?secret", b"//", b"*"):
        read_request_line(b"GET %b HTTP/1.1" % target)
    assert set(request_head._known_lines) == before


@pytest.mark.parametrize(
    ("begin", "code"),
    [
        (b"", None), (b"G", None), (b"GET", None), (b"GET ", None), (b"GET /", None),
        (b"GET / ", None), (b"GET / HT", None), (b"GET / HTTP/1.1", None), (b"GET /\r", None),
        (b"GET / HTTP/1.1\r", None), (b"P", None), (b"PRI", None),
        (b"GE ", ErrorCode.METHOD_UNKNOWN), (b"get ", ErrorCode.METHOD_UNKNOWN),
        (b"X", ErrorCode.METHOD_UNKNOWN), (b"GETT", ErrorCode.METHOD_UNKNOWN),
        (b"GET /\x00", ErrorCode.BAD_TARGET), (b"GET /\n", ErrorCode.BAD_TARGET),
        (b"GET /\r\r", ErrorCode.BAD_TARGET),
        (b"GET / H/", ErrorCode.BAD_REQUEST), (b"GET / HTTP/1.1 ", ErrorCode.BAD_REQUEST),
        (b"GET / HTTP/11", ErrorCode.BAD_REQUEST), (b"PRI * HTTP/2.0", ErrorCode.BAD_REQUEST),
        (b"GET /" + b"a" * 8192, ErrorCode.TARGET_TOO_LONG),
    ],
)  # fmt: skip
def test_a_beginning_is_refused_once_nothing_can_come_of_it(
    begin: bytes, code: ErrorCode | None
) -> None:
    """Not before, and with the code that the whole line would have."""
    found = None
    try:
        check_start(begin)
    except DownstreamError as refusal:
        found = refusal.code
    assert found is code


@pytest.mark.parametrize(
    ("begin", "method"), [(b"HEAD /", "HEAD"), (b"HEAD", ""), (b"HEA /", ""), (b"", "")]
)
def test_method_of_a_beginning(begin: bytes, method: str) -> None:
    """Only once it is known to have ended."""
    assert method_in(begin) == method
