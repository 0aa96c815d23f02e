"""How long a body is: read strictly, each limit from both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.framing import BodyFraming, is_chunked_coding, is_plain_length
from tests.unit.http.outcomes import response_head_of


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
    """What `int()` or another server takes besides is refused."""
    assert not is_plain_length(value)


@given(st.binary(max_size=20))
def test_any_content_length_is_read_or_refused(value: bytes) -> None:
    """For arbitrary octets: what is taken for a length is one."""
    if is_plain_length(value):
        assert b"%d" % int(value) == value.lstrip(b"0") or set(value) == {ord("0")}


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
