"""How long a body is: read strictly, each limit from both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DownstreamError, ErrorCode, UpstreamError
from gateway.http.framing import BodyFraming, is_chunked_coding, is_plain_length
from tests.unit.http.outcomes import request_head_of, response_head_of


@pytest.mark.parametrize(
    ("value", "length"), [(b"0", 0), (b"007", 7), (b"9" * 15, 999_999_999_999_999)]
)
def test_content_length_is_plain_digits(value: bytes, length: int) -> None:
    """Up to fifteen digits are a length."""
    assert is_plain_length(value)
    assert int(value) == length


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
    """What `int()` or another server takes besides is refused, on both sides."""
    assert not is_plain_length(value)
    if value != value.strip():
        return  # white space around a field's value is none of it
    fields = [(b"Content-Length", value)]
    with pytest.raises(DownstreamError) as caught:
        request_head_of(fields)
    assert caught.value.code is ErrorCode.BAD_REQUEST
    with pytest.raises(UpstreamError) as answered:
        response_head_of(fields)
    assert answered.value.code is ErrorCode.HTTP_PROTOCOL_ERROR


@given(st.binary(max_size=20))
def test_any_content_length_is_read_or_refused(value: bytes) -> None:
    """For arbitrary octets nothing but a number or our own error comes out."""
    try:
        length = request_head_of([(b"Content-Length", value)]).content_length
    except DownstreamError:
        return
    assert length is not None
    digits = value.strip(b" \t")
    assert b"%d" % length == digits.lstrip(b"0") or (length == 0 and set(digits) == {ord("0")})


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
        (200, True, 5, False, BodyFraming.NO_BODY),
        (200, True, None, True, BodyFraming.NO_BODY),
        (204, False, None, False, BodyFraming.NO_BODY),
        (103, False, None, False, BodyFraming.NO_BODY),
        (304, False, 5, False, BodyFraming.NO_BODY),
        (304, False, None, True, BodyFraming.NO_BODY),
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
    fields = [(b"Transfer-Encoding", b"chunked")] if chunked else []
    if length is not None:
        fields.append((b"Content-Length", b"%d" % length))
    found = response_head_of(fields, status=b"HTTP/1.1 %d " % status, head_request=head)

    assert found.framing is expected
