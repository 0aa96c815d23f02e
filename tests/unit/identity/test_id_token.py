"""What an ID token says of itself."""

import base64
import json
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.identity.id_token import account_digest, claims_of
from gateway.identity.source import LoginError


def jwt(claims: Any) -> SecretStr:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return SecretStr(f"e30.{body}.c2lnbmF0dXJlLWNhbmFyeQ")


CLAIMS = {"iss": "https://k8s", "sub": "system:serviceaccount:a:b", "aud": ["x", "y"], "exp": 17e8}


def test_claims_are_shown_without_the_token() -> None:
    """Issuer, subject, audience; a line break in the file counts for nothing."""
    claims = claims_of(SecretStr(jwt(CLAIMS).get_secret_value() + "\n"))
    assert str(claims) == "iss https://k8s, sub system:serviceaccount:a:b, aud x, y"
    assert claims.expires_at == 17e8


@pytest.mark.parametrize(
    ("claims", "shown", "expires_at"),
    [
        ({}, "iss ?, sub ?, aud none", None),
        ({"aud": "one", "exp": "soon"}, "iss ?, sub ?, aud one", None),
        ({"iss": 5, "sub": "a\nb\x1b", "aud": {}, "exp": True}, "iss ?, sub a?b?, aud none", None),
        ({"sub": "s" * 500, "exp": 1e300}, f"iss ?, sub {'s' * 120}, aud none", None),
    ],
)
def test_strange_claims_stay_on_one_line(claims: Any, shown: str, expires_at: float | None) -> None:
    """The issuer of the token cannot write lines of a log."""
    assert str(claims_of(jwt(claims))) == shown
    assert claims_of(jwt(claims)).expires_at == expires_at


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("canary", "it has not the three parts of a JWT"),
        ("canary.canary", "it has not the three parts of a JWT"),
        ("a..b", "it has not the three parts of a JWT"),
        ("a.canary.b", "its claims cannot be read"),
        ("a.W10.b", "its claims cannot be read"),
        ("a.\u00e9.b", "its claims cannot be read"),
    ],
)
def test_what_is_no_id_token_is_refused_and_not_quoted(text: str, why: str) -> None:
    """With the remedy."""
    with pytest.raises(LoginError) as caught:
        claims_of(SecretStr(text))
    assert f"{why}; write the JWT alone, or project" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_rotated_token_is_of_the_same_account() -> None:
    """Time and id of a token may change, whom it is about and for may not."""
    rotated = CLAIMS | {"exp": 18e8, "iat": 5, "jti": "x"}
    assert account_digest(jwt(CLAIMS)) == account_digest(jwt(rotated))
    for change in ({"sub": "other"}, {"iss": "other"}, {"aud": ["x"]}):
        assert account_digest(jwt(CLAIMS)) != account_digest(jwt(CLAIMS | change))
    assert account_digest(SecretStr("a")) != account_digest(SecretStr("b"))
