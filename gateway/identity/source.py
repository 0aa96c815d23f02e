"""What a source of credentials must deliver, and which tokens are fit to be sent. No I/O."""

import hashlib
import re
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import SecretStr

from gateway.identity.credential import Credential
from gateway.identity.refresh import RefreshResult

LONGEST_TOKEN = 65536
"""Bytes. The vendor declares up to 32 768; gateways refuse a header line above that anyway."""

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What may be shown of a token. Texts are printable and short, whatever IAM sent."""

    length: int
    """Bytes of the token."""
    fingerprint: str
    """First 8 hex digits of the token's SHA-256: tells tokens apart, leads back to none."""
    user: str | None = None
    domain: str | None = None
    project: str | None = None
    project_id: str | None = None
    roles: tuple[str, ...] = ()
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    """IAM's instants by IAM's clock; the gateway itself counts on its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Login:
    """What one successful login brought."""

    credential: Credential
    cache_key: Hashable
    """Equal for two logins only if either's credential may stand in for the other's."""
    facts: TokenFacts | None = None
    """None when there is no token."""
    skew_s: float | None = None
    """Our wall clock minus IAM's, seconds, as good as a `Date` field tells (1 s)."""
    from_fleet: bool = False
    """Another replica has made it."""


class LoginError(Exception):
    """There is no new credential. `str(error)` is safe to log: it holds no foreign text."""

    def __init__(
        self,
        result: RefreshResult,
        detail: str,
        *,
        retry_after_s: float | None = None,
        skew_s: float | None = None,
        is_scope: bool = False,
        from_fleet: bool = False,
        is_remembered: bool = False,
        code: str = "",
        public: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.public = detail if public is None else public
        """What callers may be told of it: names keys of the configuration, but no address."""
        self.result = result
        self.is_scope = is_scope
        """It is about the project, as far as IAM tells; user and secret are not in question."""
        self.code = code
        """IAM's, such as `IAM.0061`; empty if there is none that is safe to show."""
        self.from_fleet = from_fleet
        """IAM was not asked, because of what it has told other replicas."""
        self.is_remembered = is_remembered
        """IAM was not asked, because it has refused the same before the gateway was started."""
        self.retry_after_s = retry_after_s
        """Seconds for which IAM asked to be left alone, unchecked."""
        self.skew_s = skew_s
        """As in `Login`: a failed login tells the time as well."""


class CredentialSource(Protocol):
    """Where credentials come from. A cache is the only caller, and makes one call at a time."""

    @property
    def account(self) -> Hashable:
        """Equal for sources whose refused logins count against the same account."""
        ...

    async def cache_key(self) -> Hashable:
        """Return the key that a login made now would have.

        Raises:
            LoginError: the secret cannot be read.
        """
        ...

    async def fetch(self) -> Login:
        """Obtain a new credential, at the cost of a round trip or more, in bounded time.

        Raises:
            LoginError: it is refused, or cannot be had.

        Cancellation: safe; leaves no connection behind.
        """
        ...


def is_visible_ascii(value: str) -> bool:
    """Return whether `value` is visible ASCII, at least one character of it."""
    return _VISIBLE_ASCII.fullmatch(value) is not None


def token_line(token: SecretStr) -> bytes:
    """Return the header line that carries `token`.

    Raises:
        ValueError: it is empty, too long, or holds anything but visible ASCII, which would let
            its author write header lines of his own. The text does not show it.
    """
    value = token.get_secret_value()
    if not is_visible_ascii(value):
        raise ValueError("the token is empty or holds something else than visible ASCII")
    if len(value) > LONGEST_TOKEN:
        raise ValueError(f"the token is longer than {LONGEST_TOKEN} bytes")
    return b"X-Auth-Token: %b\r\n" % value.encode("ascii")


def fingerprint(token: SecretStr) -> str:
    """Return the first 8 hex digits of the token's SHA-256."""
    return hashlib.sha256(token.get_secret_value().encode()).hexdigest()[:8]
