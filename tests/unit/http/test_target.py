"""Targets: what is admitted stays below its service under every reading a server may give it."""

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.target import MAX_TARGET_BYTES, split_absolute, split_target

_PREFIX = b"/v1/infers/abc"

# Weighted towards what servers disagree about.
_PIECES = st.sampled_from(
    [
        b"/", b"//", b".", b"..", b"%2e", b"%2E", b"%252e", b"%2f", b"%5c", b"\\", b";", b"%3b",
        b"?",
        b"%3f", b"#", b"%23", b"%00", b"%0a", b"%25", b"%", b"%c0%af", b"%e0%80%af", b"%u002e",
        b"a",
        b"@", b":", b"*", b"~", b"%7f", b"%20", b" ", b"\t", b"%c3%a4", b"\xff", b"...", b"x..",
        b"%zz",
    ]
)  # fmt: skip
_TARGETS = st.one_of(
    st.binary(max_size=40), st.lists(_PIECES, max_size=12).map(lambda parts: b"/" + b"".join(parts))
)


def _resolved(path: bytes) -> bytes:
    stack: list[bytes] = []
    for segment in re.split(rb"[/\\]", path):
        if segment.partition(b";")[0] == b"..":
            del stack[-1:]
        elif segment.partition(b";")[0] not in {b"", b"."}:
            stack.append(segment)
    return b"/" + b"/".join(stack)


def refusal(target: bytes) -> ErrorCode | None:
    """Return why `target` is refused."""
    try:
        split_target(target)
    except DownstreamError as error:
        return error.code
    return None


@given(_TARGETS)
@example(b"/%2e%2e/x")
@example(b"/a/%252e%252e/%252e%252e/b")
@example(b"/..;/..;/b")
def test_what_is_admitted_stays_below(target: bytes) -> None:
    """Decoded up to three times and resolved, it never leaves the service's own path."""
    try:
        path, query = split_target(target)
    except DownstreamError:
        return
    assert path + query == target, "the bytes judged are the bytes forwarded"
    assert path.startswith(b"/")
    seen = _PREFIX + path
    for _ in range(4):
        resolved = _resolved(seen)
        assert resolved == _PREFIX or resolved.startswith(_PREFIX + b"/")
        assert not re.search(rb"[\x00-\x1f\x7f#\\]", seen)
        seen = unquote_to_bytes(seen)
    assert not re.search(rb"[\x00-\x20\x7f-\xff#]", query)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/", (b"/", b"")),
        (b"/iris", (b"/iris", b"")),
        (b"/iris/", (b"/iris/", b"")),
        (b"/iris?", (b"/iris", b"?")),
        (b"/iris/a%20b?x=/../y&z=%2e?", (b"/iris/a%20b", b"?x=/../y&z=%2e?")),
        (b"/a/...", (b"/a/...", b"")),
        (b"/%C3%A4", (b"/%C3%A4", b"")),
        (b"/a:b/*~!$&'()+,=-_", (b"/a:b/*~!$&'()+,=-_", b"")),
        (b"/..a/a../.a", (b"/..a/a../.a", b"")),
    ],
)
def test_ordinary_targets_pass_byte_for_byte(target: bytes, expected: tuple[bytes, bytes]) -> None:
    """Nothing is normalised, and what is harmless is not refused."""
    assert split_target(target) == expected


@pytest.mark.parametrize(
    "target",
    [
        b"", b"*", b"iris", b"http://h/iris", b"h:80", b"//iris", b"/a//b", b"/.", b"/..",
        b"/a/./b",
        b"/a/..", b"/a/../b", b"/%2e", b"/a%2fb", b"/a%5cb", b"/a\\b", b"/a;b", b"/a%3Bb", b"/a%3f",
        b"/a%23", b"/a%25", b"/a%00", b"/a%0d", b"/a%1f", b"/a%7f", b"/a%7F", b"/a#b", b"/a?b#c",
        b"/a b", b"/a?b c", b"/a?\xff", b"/\xff", b"/a%", b"/a%2", b"/a%zz", b"/%ff", b"/%c0%af",
        b"/a@b", b"/a?\x7f", b"/a\n",
    ],
)  # fmt: skip
def test_doubtful_targets_are_refused(target: bytes) -> None:
    """Other forms, and paths that another server may resolve elsewhere."""
    assert refusal(target) is ErrorCode.BAD_TARGET


def test_length_has_a_limit() -> None:
    """8192 bytes pass, one more are 414."""
    longest = b"/" + b"a" * (MAX_TARGET_BYTES - 1)

    assert refusal(longest) is None
    assert refusal(longest + b"a") is ErrorCode.TARGET_TOO_LONG


@pytest.mark.parametrize(
    "authority",
    [b"", b"h#", b"h\x80", b"h\xff", b"h\\x", b'h"', b"h x", b"h<", b"h\n", b"h\x7f", b"h^", b"h|"],
)  # fmt: skip
def test_an_authority_has_the_octets_of_one(authority: bytes) -> None:
    """What another server may cut elsewhere, or refuses, is not compared with our names."""
    with pytest.raises(DownstreamError) as refused:
        split_absolute(b"http://" + authority + b"/iris")
    assert refused.value.code is ErrorCode.BAD_TARGET


def test_an_authority_is_told_apart() -> None:
    assert split_absolute(b"HTTP://u:p@[::1]:80?q") == (b"u:p@[::1]:80", b"/?q")
    assert split_absolute(b"http://h") == (b"h", b"/")
    assert split_absolute(b"http://h/a?b") == (b"h", b"/a?b")
