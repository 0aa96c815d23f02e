"""Federated logins: an issuer of ID tokens for demos, and IAM's check of them. No I/O.

Real issuers sign with a private key. This one uses a shared key, since only it checks them.
"""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from gateway.twin.login import LoginRefusedError

IDP, PROTOCOL = "cce", "openid"
AUDIENCE = "twin-client"
SUBJECT = "system:serviceaccount:demo:gateway"
ISSUER = "https://kubernetes.default.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Issues ID tokens, and checks them."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def issue(
        self,
        now: float,
        *,
        subject: str = SUBJECT,
        audience: str = AUDIENCE,
        life_s: float = 3600.0,
    ) -> str:
        """Return an ID token; `now` in seconds since the epoch. A negative life has expired."""
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": [audience],
            "iat": int(now),
            "exp": int(now + life_s),
            "jti": secrets.token_hex(8),
        }
        signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
        return f"{signed}.{_encoded(self._sign(signed))}"

    def subject_of(self, token: str, now: float) -> str:
        """Return the subject of a valid ID token.

        Raises:
            LoginRefusedError: the ID token is not valid.
        """
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature, _encoded(self._sign(signed))):
            raise LoginRefusedError(401, "Invalid ID token: signature.")
        claims: dict[str, Any] = json.loads(_decoded(signed.partition(".")[2]))
        if AUDIENCE not in claims["aud"]:
            raise LoginRefusedError(401, "Invalid ID token: audience.")
        if claims["exp"] <= now:
            raise LoginRefusedError(401, "Invalid ID token: expired.")
        return str(claims["sub"])

    def _sign(self, text: str) -> bytes:
        return hmac.new(self.key, text.encode(), hashlib.sha256).digest()


def _part(value: dict[str, Any]) -> str:
    return _encoded(json.dumps(value).encode())


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
