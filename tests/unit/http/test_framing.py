"""How long a body is: read strictly, each limit from both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.framing import (
    BodyFraming,
    bytes_to_come,
    chunk,
    content_length_of,
    gathered,
    is_chunked_coding,
    is_fragmented,
    joined_if_small,
    response_framing,
)
from tests.support.upstream import unchunked


@pytest.mark.parametrize(
    ("value", "length"), [(b"0", 0), (b"007", 7), (b"9" * 15, 999_999_999_999_999)]
)
def test_content_length_is_plain_digits(value: bytes, length: int) -> None:
    """Up to fifteen digits are a length."""
    assert content_length_of(value) == length


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"+1",
        b"-1",
        b" 1",
        b"1 ",
        b"1_0",
        b"0x1",
        b"1,1",
        b"1.0",
        b"1" * 16,
        b"\xb2",
        b"\xd9\xa1",
    ],
)
def test_content_length_is_nothing_else(value: bytes) -> None:
    """What `int()` or another server takes besides is refused."""
    with pytest.raises(DownstreamError) as caught:
        content_length_of(value)

    assert caught.value.code is ErrorCode.BAD_REQUEST


@given(st.binary(max_size=20))
def test_any_content_length_is_read_or_refused(value: bytes) -> None:
    """For arbitrary octets nothing but a number or our own error comes out."""
    try:
        length = content_length_of(value)
    except DownstreamError:
        return
    assert b"%d" % length == value.lstrip(b"0") or (length == 0 and set(value) == {ord("0")})


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED"])
def test_chunked_in_any_case(value: bytes) -> None:
    """A coding's name has no case."""
    assert is_chunked_coding(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"gzip",
        b"gzip, chunked",
        b"chunked, chunked",
        b"xchunked",
        b"chunked;a",
        b"\x0bchunked",
    ],
)
def test_no_other_coding(value: bytes) -> None:
    """Lists, parameters and other codings are not ours to undo."""
    assert not is_chunked_coding(value)


@pytest.mark.parametrize(
    ("status", "head", "length", "chunked", "expected"),
    [
        (200, True, 5, False, BodyFraming.NONE),
        (200, True, None, True, BodyFraming.NONE),
        (204, False, 5, False, BodyFraming.NONE),
        (304, False, None, True, BodyFraming.NONE),
        (200, False, None, True, BodyFraming.CHUNKED),
        (200, False, 0, False, BodyFraming.LENGTH),
        (200, False, None, False, BodyFraming.CLOSE),
        (205, False, None, False, BodyFraming.CLOSE),
        (303, False, 3, False, BodyFraming.LENGTH),
    ],
)
def test_a_response_ends_as_rfc_9112_says(
    status: int, head: bool, length: int | None, chunked: bool, expected: BodyFraming
) -> None:
    """Section 6.3, step by step."""
    framing = response_framing(status, head_request=head, content_length=length, chunked=chunked)

    assert framing is expected


@given(st.lists(st.binary(min_size=1, max_size=50)))
def test_chunks_can_be_undone(pieces: list[bytes]) -> None:
    """Whatever octets are wrapped, the same come out."""
    assert unchunked(b"".join(map(chunk, pieces)) + b"0\r\n\r\n") == b"".join(pieces)


@pytest.mark.parametrize(("size", "joined"), [(16 * 1024, True), (16 * 1024 + 1, False)])
def test_pieces_are_joined_up_to_one_record(size: int, joined: bool) -> None:
    """16 KiB are copied, one more are not."""
    pieces = [b"a", b"b" * (size - 1)]

    assert joined_if_small(pieces) == (b"".join(pieces) if joined else None)


@pytest.mark.parametrize(("size", "joined"), [(5461, True), (5462, False)])
def test_three_pieces_are_joined_up_to_one_record(size: int, joined: bool) -> None:
    """As two are."""
    pieces = [b"a" * size] * 3

    assert joined_if_small(pieces) == (b"".join(pieces) if joined else None)


@pytest.mark.parametrize(
    ("count", "size", "fragmented"),
    [(1000, 511, True), (1000, 512, False), (17, 2, True), (16, 2, False)],
)
def test_many_small_pieces_are_gathered(count: int, size: int, fragmented: bool) -> None:
    """More than 16, below half a KiB on average."""
    pieces = [b"a" * size] * count

    assert gathered(pieces) == ([b"".join(pieces)] if fragmented else pieces)
    assert is_fragmented(pieces, size * count) == fragmented


def test_a_single_piece_is_never_copied() -> None:
    """It is handed back as it is, however large."""
    piece = b"a" * 100_000

    assert joined_if_small([piece]) is piece


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ([(b"A", b"7"), (b"content-LENGTH", b"10")], 7),
        ([(b"Content-Length", b"3")], 0),
        ([(b"Content-Length", b"9" * 15)], 10**15 - 4),
        ([(b"Content-Length", b"9" * 16)], 0),
        ([(b"Content-Length", b"10"), (b"Content-Length", b"10")], 0),
        ([(b"Content-Length", b"10"), (b"Transfer-Encoding", b"chunked")], 0),
        ([(b"transfer-encodinG", b"chunked"), (b"Content-Length", b"10")], 0),
        ([(b"upgradE", b"x"), (b"Content-Length", b"10")], 0),
        ([(b"Content-Length", b"+10")], 0),
        ([(b"Content-Length", b"10 ")], 0),
        ([(b"Content-Lengths", b"10")], 0),
        ([], 0),
    ],
)
def test_what_is_to_come_of_a_body(fields: list[tuple[bytes, bytes]], left: int) -> None:
    """Behind three bytes that are there; where it could be read otherwise, nobody says."""
    assert bytes_to_come(fields, [b"a", b"bc"]) == left
