"""Method `ak_sk`: access keys from files or the environment, and temporary ones from a platform."""

import asyncio
import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pydantic import SecretStr

from gateway.clock import Clock
from gateway.identity.answer import Answer, instant_of_date, moment_of
from gateway.identity.refresh import LONGEST_LIFE_S, RefreshResult, expires_at, stale_at
from gateway.identity.secret import digest
from gateway.identity.signature import ServiceClocks, SignedCredential
from gateway.identity.source import Login, LoginError, TokenFacts, fingerprint, is_visible_ascii

_NEVER = float("inf")
_ACCESS = ("access", "accessKeyId", "access_key_id")
_SECRET = ("secret", "secretAccessKey", "secret_access_key")
_TOKEN = ("securitytoken", "securityToken", "security_token")
_EXPIRES = ("expires_at", "expiration")


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key, fit to be sent."""

    id: str
    secret: SecretStr
    security_token: SecretStr | None = None
    """Of a temporary one."""

    @property
    def cache_key(self) -> Hashable:
        """Equal for equal keys."""
        token = None if self.security_token is None else digest(self.security_token)
        return ("ak_sk", self.id, digest(self.secret), token)

    @property
    def shown(self) -> str:
        """The id, shortened: enough for its owner to know it."""
        return f"{self.id[:4]}…{self.id[-4:]}" if len(self.id) > 12 else "…"


@dataclass(frozen=True, slots=True)
class TemporaryKey:
    """A temporary access key, as a platform issued it."""

    key: AccessKey
    expires: datetime
    """By the platform's clock."""
    date: float | None = field(default=None)
    """That clock when it was handed out, seconds since the epoch, if it was told."""


class KeyProvider(Protocol):
    """A platform that hands out temporary access keys to what runs on it."""

    @property
    def account(self) -> Hashable:
        """Equal for equal platforms."""
        ...

    async def obtain(self) -> TemporaryKey:
        """Obtain a key, in bounded time.

        Raises:
            LoginError: it is refused, or cannot be had.

        Cancellation: safe; leaves no connection behind.
        """
        ...


class AccessKeySource:
    """An access key that somebody else keeps in files or in the environment."""

    def __init__(self, read_key: Callable[[], AccessKey], clocks: ServiceClocks) -> None:
        """Prepare; `read_key` is called in a thread and may raise `LoginError`."""
        self._read_key = read_key
        self._clocks = clocks

    @property
    def account(self) -> Hashable:
        """See `CredentialSource`; no login is counted against it."""
        return ("ak_sk",)

    async def cache_key(self) -> Hashable:
        """See `CredentialSource`."""
        return (await asyncio.to_thread(self._read_key)).cache_key

    async def fetch(self) -> Login:
        """Read the key; see `CredentialSource`."""
        key = await asyncio.to_thread(self._read_key)
        credential = _credential(key, self._clocks, stale=_NEVER, end=_NEVER, wall_end=_NEVER)
        return Login(credential, key.cache_key, _facts(key, None))


class TemporaryKeySource:
    """An access key that a platform hands out for an hour or so; renewed ahead like a token."""

    def __init__(
        self,
        provider: KeyProvider,
        clocks: ServiceClocks,
        *,
        clock: Clock,
        wall_clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """Prepare; `random` returns [0, 1)."""
        self._provider = provider
        self._clocks = clocks
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random

    @property
    def account(self) -> Hashable:
        """See `CredentialSource`."""
        return self._provider.account

    async def cache_key(self) -> Hashable:
        """See `CredentialSource`; there is no secret that could change."""
        return self._provider.account

    async def fetch(self) -> Login:
        """Obtain a key; see `CredentialSource`."""
        asked_at = self._clock()
        found = await self._provider.obtain()
        wall_now = self._wall_clock()
        date = wall_now if found.date is None else found.date + 1  # it leaves out up to a second
        life_s = found.expires.timestamp() - date
        skew_s = None if found.date is None else wall_now - found.date
        if not 0 < life_s <= LONGEST_LIFE_S:
            text = (
                "the temporary access key has expired already"
                if life_s <= 0
                else ("the temporary access key is said to live for more than 31 days")
            )
            raise LoginError(RefreshResult.BAD_REPLY, text, skew_s=skew_s)
        end = expires_at(asked_at, life_s)
        credential = _credential(
            found.key,
            self._clocks,
            stale=stale_at(asked_at, life_s, self._random()),
            end=end,
            wall_end=wall_now + (end - self._clock()),
        )
        return Login(credential, self._provider.account, _facts(found.key, found.expires), skew_s)


def access_key_of(
    key_id: str, secret: SecretStr, security_token: SecretStr | None = None
) -> AccessKey:
    """Return an access key that can be sent.

    Raises:
        LoginError: one of its parts is empty or not visible ASCII. The text does not show it.
    """
    token = "x" if security_token is None else security_token.get_secret_value()
    parts = {"access key": key_id, "secret key": secret.get_secret_value(), "security token": token}
    for name, value in parts.items():
        if not is_visible_ascii(value) or (name == "access key" and "," in value):
            text = (
                f"the {name} cannot be used: it is empty, or holds white space, a line break or "
                "something else than visible ASCII; write it alone, on one line"
            )
            raise LoginError(RefreshResult.BAD_REPLY, text)
    return AccessKey(key_id, secret, security_token)


def temporary_key_of(answer: Answer, whose: str) -> TemporaryKey:
    """Return the key in a platform's answer, in any of the spellings that platforms use.

    Raises:
        LoginError: there is none in it that can be used; `BAD_REPLY` throughout.
    """
    document = _mapping(_json(answer.body, whose))
    inner = _mapping(document.get("credential") or document.get("credentials")) or document
    key_id, secret = _text(inner, _ACCESS), _text(inner, _SECRET)
    expires = moment_of(_text(inner, _EXPIRES))
    if key_id is None or secret is None or expires is None:
        text = f"{whose} answers without a complete access key and its expiry"
        raise LoginError(RefreshResult.BAD_REPLY, text)
    token = _text(inner, _TOKEN)
    key = access_key_of(key_id, SecretStr(secret), None if token is None else SecretStr(token))
    return TemporaryKey(key, expires, instant_of_date(answer.date))


def _credential(
    key: AccessKey, clocks: ServiceClocks, *, stale: float, end: float, wall_end: float
) -> SignedCredential:
    token = key.security_token
    return SignedCredential(
        key.id,
        key.secret.get_secret_value(),
        None if token is None else token.get_secret_value(),
        clocks,
        stale_at=stale,
        expires_at=end,
        wall_expires_at=wall_end,
    )


def _facts(key: AccessKey, expires: datetime | None) -> TokenFacts:
    return TokenFacts(
        length=len(key.id),
        fingerprint=fingerprint(SecretStr(key.id)),
        user=f"access key {key.shown}",
        expires_at=expires,
    )


def _text(document: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    found = (document[name] for name in names if document.get(name))
    value = next(found, None)
    return value if isinstance(value, str) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(body: bytes, whose: str) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        problem = LoginError(RefreshResult.BAD_REPLY, f"{whose} answers with something not JSON")
    raise problem  # outside the handler: a JSONDecodeError carries the body
