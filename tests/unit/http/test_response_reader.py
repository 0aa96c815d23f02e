"""One response as it comes: its end, what is behind it, switching, and the limits."""

import pytest

from gateway.errors import ErrorCode
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
from gateway.http.response_reader import MAX_FIELDS, MAX_HEAD_BYTES
from tests.unit.http.outcomes import octets_of, read_response

_OK = b"HTTP/1.1 200 OK\r\n"
_COUNTED = _OK + b"Content-Length: 2\r\n\r\nok"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: t\r\n\r\n"
_SWITCH = b"HTTP/1.1 101 Up\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "body", "state", "whole", "excess"),
    [
        (b"", b"", HEAD, False, False),
        (_OK, b"", HEAD, False, False),
        (_COUNTED, b"ok", DONE, True, False),
        (_COUNTED[:-1], b"o", BODY_COUNTED, False, False),
        (_COUNTED + b"\r", b"ok", DONE, True, True),
        (_CHUNKED, b"ok", DONE, True, False),
        (_CHUNKED[:-1], b"ok", BODY_CHUNKED, False, False),
        (_CHUNKED + _OK, b"ok", DONE, True, True),
        (_OK + b"\r\nok", b"ok", BODY_UNTIL_CLOSE, True, False),
        (b"HTTP/1.1 103 Go\r\n\r\n", b"", HEAD, False, False),
        (b"HTTP/1.1 103 Go\r\n\r\n" * 16 + _COUNTED, b"ok", DONE, True, False),
        (b"HTTP/1.1 204 No\r\n\r\nx", b"", DONE, True, True),
    ],
)
def test_where_a_response_ends(
    said: bytes, body: bytes, state: ReaderState, whole: bool, excess: bool
) -> None:
    """Whether it is whole if the stream ends then; in one read, in many, and at every cut."""
    cuts = [[said[:cut], said[cut:]] for cut in range(1, len(said))]
    for pieces in ([said] if said else [], octets_of(said), *cuts):
        found = read_response(*pieces)
        assert (found.body, found.state, found.whole, found.excess, found.code) == (
            body, state, whole, excess, None,
        )  # fmt: skip


@pytest.mark.parametrize("said", [_COUNTED[:-2], _CHUNKED.partition(b"2\r\n")[0], _OK + b"\r\n"])
def test_a_response_to_head_has_no_body(said: bytes) -> None:
    """Whatever it announces; what follows is not its own."""
    assert read_response(said, head_request=True).state is DONE
    assert read_response(said + b"x", head_request=True).excess


@pytest.mark.parametrize("behind", [b"", b"\x81\x00HTTP/1.1"])
def test_a_switch_that_was_asked_for(behind: bytes) -> None:
    """What follows is passed as it comes, and its end is an end."""
    for pieces in ([_SWITCH + behind], octets_of(_SWITCH + behind)):
        found = read_response(*pieces, switch_to=b"websocket", ends=False)
        assert (found.body, found.state, found.code) == (behind, TUNNEL, None)
    assert read_response(_SWITCH, switch_to=b"websocket").whole


@pytest.mark.parametrize(
    ("said", "switch_to"),
    [
        (_SWITCH, b""),
        (_SWITCH, b"h2c"),
        (_SWITCH.replace(b"Connection: Upgrade\r\n", b""), b"websocket"),
        (_SWITCH.replace(b"WebSocket", b"h2c"), b"websocket"),
        (_SWITCH.replace(b"HTTP/1.1", b"HTTP/1.0"), b"websocket"),
        (_SWITCH.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\n\r\n"), b"websocket"),
    ],
)
def test_any_other_switch_is_refused(said: bytes, switch_to: bytes) -> None:
    """To another protocol, to several, or half said."""
    found = read_response(said, switch_to=switch_to)
    assert (found.state, found.code) == (REFUSED, ErrorCode.HTTP_PROTOCOL_ERROR)


@pytest.mark.parametrize("over", [0, 1])
def test_heads_have_limits(over: int) -> None:
    """In size, interim ones together with the final one; in fields; in interim responses."""
    interim = b"HTTP/1.1 103 Go\r\n\r\n"
    filled = _OK + b"A: ".ljust(MAX_HEAD_BYTES + over - len(_OK) - len(interim), b"x")
    for said in (
        interim + filled + b"\r\n\r\n",
        _OK + b"A: b\r\n" * (MAX_FIELDS + over) + b"\r\n",
        interim * (16 + over) + _OK + b"\r\n",
    ):
        for cut in (1, 40, len(said) - 4, len(said) - 1):
            found = read_response(said[:cut], said[cut:])
            assert (found.code is None) == (not over), (said[:30], cut)
