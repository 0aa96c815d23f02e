"""Redirects: only those that lead to the service itself are rewritten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.location import location_for_client

PATH = b"/v1/infers/abc"


def mapped(value: bytes, origin: bytes = b"https://s.example", path: bytes = PATH) -> bytes:
    return location_for_client(value, origin=origin, path=path, prefix=b"/iris")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"https://s.example/v1/infers/abc", b"/iris"),
        (b"https://s.example/v1/infers/abc/", b"/iris/"),
        (b"https://s.example/v1/infers/abc/x%20y?a=%2F&b#end", b"/iris/x%20y?a=%2F&b#end"),
        (b"https://s.example/v1/infers/abc?q", b"/iris?q"),
        (b"HTTPS://S.Example:443/v1/infers/abc/x", b"/iris/x"),
        (b"//s.example/v1/infers/abc/x", b"/iris/x"),
        (b"/v1/infers/abc/x", b"/iris/x"),
        (b"/v1/infers/abc#end", b"/iris#end"),
    ],
)
def test_what_leads_to_the_service_leads_back_to_the_gateway(value: bytes, expected: bytes) -> None:
    """Whole URL, without scheme, or path alone; query and fragment byte for byte."""
    assert mapped(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"http://s.example/v1/infers/abc/x", b"https://s.example:8443/v1/infers/abc/x",
        b"https://other.example/v1/infers/abc/x", b"https://s.example.evil/v1/infers/abc",
        b"https://u@s.example/v1/infers/abc/x", b"https://s.example@evil/v1/infers/abc",
        b"https://s.example\\@evil/v1/infers/abc", b"https:///v1/infers/abc",
        b"https:/v1/infers/abc",
        b"https://s.example/v1/infers/abcd", b"https://s.example/v1/infers", b"https://s.example",
        b"/v1/infers/abc/../other", b"/v1/infers/abc/%2e%2e/other", b"/v1/infers/abc//x",
        b"/v1/infers/abcd", b"/other", b"x", b"./x", b"?q", b"#f", b"", b"mailto:a@b",
        b"v1/infers/abc", b"/v1/infers/abc/\xff", b"ftp://s.example/v1/infers/abc",
    ],
)  # fmt: skip
def test_everything_else_is_passed_untouched(value: bytes) -> None:
    """Another origin or path, what readers may resolve differently, and relative references."""
    assert mapped(value) == value


def test_a_service_at_the_root_has_every_path() -> None:
    """The path of its URL is empty; the client's prefix is not, or is."""
    assert mapped(b"https://s.example", path=b"") == b"/iris/"
    assert mapped(b"/x", path=b"") == b"/iris/x"
    assert mapped(b"x", path=b"") == b"x"
    assert location_for_client(b"/x", origin=b"https://s", path=b"", prefix=b"") == b"/x"


@given(st.binary(max_size=40), st.sampled_from([b"", b"https://s.example", b"//s.example", PATH]))
def test_nothing_leads_to_another_host(tail: bytes, start: bytes) -> None:
    """Whatever is rewritten is a path below the client's prefix."""
    value = start + tail
    result = mapped(value)

    assert result == value or result[:5] == b"/iris"
    assert result == value or result[5:6] in {b"", b"/", b"?", b"#"}
