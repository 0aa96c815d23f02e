"""A cluster as far as identity goes: it signs ID tokens of service accounts, as Kubernetes does."""

import base64
import json
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.clock import wall_clock

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = "keystone-client"


class Cluster:
    """Signs with a key of its own (RS256)."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def public_key(self) -> bytes:
        """In PEM."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def id_token(self, subject: str, *, audience: str = AUDIENCE, life_s: float = 3600) -> str:
        """Return an ID token; one with a negative life has expired."""
        now = wall_clock()
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": [audience],
            "iat": int(now),
            "exp": int(now + life_s),
        }
        signed = f"{_part({'alg': 'RS256', 'typ': 'JWT'})}.{_part(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encoded(signature)}"


def _part(value: dict[str, Any]) -> str:
    return _encoded(json.dumps(value).encode())


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
