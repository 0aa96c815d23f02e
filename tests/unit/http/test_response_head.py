"""What the head of a response says, row by row."""

import pytest

from gateway.errors import UpstreamError
from gateway.http import response_head
from gateway.http.response_head import read_status_line
from tests.unit.http.outcomes import Fields, response_head_of

_LENGTH = (b"Content-Length", b"0")


@pytest.mark.parametrize(
    ("status", "fields", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", [_LENGTH], True),
        (b"HTTP/1.1 200 OK", [(b"Transfer-Encoding", b"chunked")], True),
        (b"HTTP/1.1 200 OK", [], False),
        (b"HTTP/1.1 204 No", [], True),
        (b"HTTP/1.1 304 Not", [], True),
        (b"HTTP/1.0 200 OK", [_LENGTH], False),
        (b"HTTP/1.0 200 OK", [_LENGTH, (b"Connection", b"keep-alive")], False),
        (b"HTTP/1.1 200 OK", [_LENGTH, (b"Connection", b"x , CLOSE")], False),
        (b"HTTP/1.1 200 OK", [_LENGTH, (b"Connection", b"x"), (b"connection", b"close")], False),
        (b"HTTP/1.1 200 OK", [_LENGTH, (b"Connection", b"closed")], True),
        (b"HTTP/1.1 200 OK", [_LENGTH, (b"Proxy-Connection", b"Close")], False),
        (b"HTTP/1.1 200 OK", [_LENGTH, (b"Proxy-Connection", b"x")], True),
    ],
)
def test_whether_the_connection_may_be_kept(
    status: bytes, fields: Fields, keep_alive: bool
) -> None:
    """Only if the response says where it ends, and nothing says that the connection does."""
    assert response_head_of(fields, status=status).keep_alive == keep_alive


@pytest.mark.parametrize("method_is_head", [True, False])
def test_a_response_to_head_is_kept_if_it_says_how_long_a_body_would_be(
    method_is_head: bool,
) -> None:
    """A service that sends a body all the same ends it so."""
    assert not response_head_of([], head_request=method_is_head).keep_alive
    assert response_head_of([_LENGTH], head_request=method_is_head).keep_alive


def test_proxy_connection_names_no_fields_and_switches_nothing() -> None:
    """Of what it lists only `close` is heeded; the field itself ends here."""
    head = response_head_of([_LENGTH, (b"Proxy-Connection", b"upgrade, X-Own"), (b"X-Own", b"1")])

    assert head.options == frozenset()
    assert head.lines == [b"Content-Length: 0", b"X-Own: 1"]


def test_a_listed_content_length_stays() -> None:
    """Framing is no option, so nobody can have it removed (RFC 9110 section 7.6.1)."""
    head = response_head_of([(b"Content-Length", b"2"), (b"Connection", b"content-length, x-own"),
                             (b"X-Own", b"1")])  # fmt: skip

    assert head.lines == [b"Content-Length: 2"]


@pytest.mark.parametrize(
    ("line", "status", "reason", "text"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.0 404 Not Found", 404, b"Not Found", b"HTTP/1.1 404 Not Found"),
        (b"HTTP/1.1 599", 599, b"", b"HTTP/1.1 599 "),
        (b"HTTP/1.1 100 ", 100, b"", b"HTTP/1.1 100 "),
        (b"HTTP/1.1 200 \xc3\xa4\tb", 200, b"\xc3\xa4\tb", b"HTTP/1.1 200 \xc3\xa4\tb"),
    ],
)
def test_status_line(line: bytes, status: int, reason: bytes, text: bytes) -> None:
    """It goes on as HTTP/1.1, the reason as it is; read a second time it is the same object."""
    read = read_status_line(line)

    assert (read.status, read.reason, read.text) == (status, reason, text)
    assert read.http_1_0 == line.startswith(b"HTTP/1.0")
    assert read_status_line(line) is read


def test_memory_of_status_lines_is_bounded() -> None:
    """In number, and long ones are not kept."""
    for number in range(1000):
        read_status_line(b"HTTP/1.1 200 %d" % number)
        assert len(response_head._known_lines) <= 64
    long = b"HTTP/1.1 200 " + b"x" * 200
    assert read_status_line(long) is not read_status_line(long)


@pytest.mark.parametrize("name", [b"Location", b"location"])
def test_redirects_are_noticed(name: bytes) -> None:
    """And pass."""
    head = response_head_of([(name, b"/x")])

    assert head.redirects
    assert head.lines == [name + b": /x"]
    assert not response_head_of([]).redirects


def test_protocols_that_it_switches_to_are_collected() -> None:
    """So that one of several is not taken for the only one."""
    assert response_head_of([(b"Upgrade", b"WebSocket")]).upgrade == b"websocket"
    assert response_head_of([(b"Upgrade", b"a"), (b"upgrade", b"B")]).upgrade == b"a,b"


def test_an_interim_response_may_list_options() -> None:
    """But not end the connection."""
    assert response_head_of([(b"Connection", b"x")], status=b"HTTP/1.1 103 Go").status == 103
    for status, connection in ((b"HTTP/1.1 103 Go", b"close"), (b"HTTP/1.0 103 Go", b"x")):
        with pytest.raises(UpstreamError, match="ends the connection"):
            response_head_of([(b"Connection", connection)], status=status)
