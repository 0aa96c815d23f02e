"""Which tokens are fit to be written into a header."""

import hashlib

import pytest
from pydantic import SecretStr

from gateway.identity.source import LONGEST_TOKEN, fingerprint, token_line


@pytest.mark.parametrize("token", ["t", "MIISkAY+/=80T9wHQ==", "!~", "x" * LONGEST_TOKEN])
def test_good_token_becomes_one_header_line(token: str) -> None:
    """Visible ASCII of 1 to 65536 bytes, as it is."""
    assert token_line(SecretStr(token)) == f"X-Auth-Token: {token}\r\n".encode()


@pytest.mark.parametrize(
    "token",
    [
        *("", " ", "a b", "a\tb", "a\n", "a\r\nX-Evil: 1", "a\x00", "a\x7f", "caf\xe9", "\u0661"),
        *("\udc80", "a\x0b", "x" * (LONGEST_TOKEN + 1)),
    ],
)
def test_bad_token_is_refused_and_not_quoted(token: str) -> None:
    """Anything else could write header lines of its own."""
    with pytest.raises(ValueError, match=r"^the token is ") as caught:
        token_line(SecretStr(token))
    assert "Evil" not in str(caught.value)


def test_fingerprint_is_the_head_of_sha_256() -> None:
    """So that people can compare it with `sha256sum`."""
    assert fingerprint(SecretStr("abc")) == hashlib.sha256(b"abc").hexdigest()[:8]
