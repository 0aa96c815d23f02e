"""What an ID token (a JWT) says of itself, without checking that it is true. Pure: no I/O.

It is looked at for messages and to tell accounts apart; whether it is good, IAM decides.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from gateway.identity.refresh import RefreshResult
from gateway.identity.source import LoginError

_LONGEST_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims that matter. Texts are printable and short, whatever the token holds."""

    issuer: str
    subject: str
    audience: tuple[str, ...]
    expires_at: float | None
    """Seconds since the epoch."""

    def __str__(self) -> str:
        """Return them for people."""
        return f"iss {self.issuer}, sub {self.subject}, aud {', '.join(self.audience) or 'none'}"


def claims_of(token: SecretStr) -> Claims:
    """Return what an ID token claims.

    Raises:
        LoginError: it is no JWT. The text does not show it.
    """
    text = token.get_secret_value().strip()
    parts = text.split(".")
    if len(parts) != 3 or not all(parts):
        raise _unusable("it has not the three parts of a JWT" if text else "it is empty")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise _unusable("its claims cannot be read")
    audience = claims.get("aud", ())
    listed = audience if isinstance(audience, list) else [audience] if audience else []
    expires = claims.get("exp")
    if not isinstance(expires, (int, float)) or isinstance(expires, bool) or abs(expires) > 1e12:
        expires = None
    return Claims(
        issuer=_shown(claims.get("iss")),
        subject=_shown(claims.get("sub")),
        audience=tuple(map(_shown, listed[:5])),
        expires_at=None if expires is None else float(expires),
    )


def account_digest(token: SecretStr) -> bytes:
    """Return a digest of the account: the same before and after the token is rotated.

    If the token is not a JWT, the digest is of its whole text.
    """
    try:
        claims = claims_of(token)
    except LoginError:
        text = token.get_secret_value()
    else:
        text = repr((claims.issuer, claims.subject, claims.audience))
    return hashlib.sha256(text.encode()).digest()


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else "?"
    return "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_SHOWN])


def _unusable(why: str) -> LoginError:
    remedy = "write the JWT alone, or project the service account's token into the pod"
    return LoginError(RefreshResult.BAD_REPLY, f"the ID token cannot be used: {why}; {remedy}")
