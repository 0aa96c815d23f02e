"""The tokens that the stand-in cloud has issued, and whether each is valid. No I/O."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum

from gateway.twin.account import Account
from gateway.twin.clock import Clock

MAX_TOKENS = 10_000


class Scope(StrEnum):
    """The user and scope of a token; ModelArts requires a project."""

    PROJECT = "project"
    DOMAIN = "domain"
    NONE = "unscoped"


class Verdict(Enum):
    """The result of the API gateway's check of a token."""

    GOOD = "good"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(slots=True)
class Grant:
    """One token, and what it was given for."""

    token: str = field(repr=False)
    account: Account
    methods: tuple[str, ...]
    scope: Scope
    issued_at: datetime
    expires_at: datetime
    dies_at: float
    """The same instant on the monotonic clock; this one decides."""
    is_revoked: bool = False


class TokenStore:
    """All tokens, oldest first; the oldest are forgotten beyond `MAX_TOKENS`."""

    def __init__(self, clock: Clock, ttl_s: float, size: int) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._size = size
        self._grants: dict[str, Grant] = {}

    def issue(
        self,
        account: Account,
        methods: tuple[str, ...],
        scope: Scope,
        size: int | None = None,
        *,
        until: Grant | None = None,
    ) -> Grant:
        """Make a token of `size` bytes, or of the usual size. Older tokens stay good.

        One that is made from another, `until`, ends when that one does.
        """
        now = self._clock.wall()
        length = size or self._size
        grant = Grant(
            # Real ones are base64 of a signed document, which always begins like this.
            token="MIIS" + secrets.token_urlsafe(length)[: length - 4],
            account=account,
            methods=methods,
            scope=scope,
            issued_at=now,
            expires_at=until.expires_at if until else now + timedelta(seconds=self._ttl_s),
            dies_at=until.dies_at if until else self._clock.monotonic() + self._ttl_s,
        )
        self._grants[grant.token] = grant
        if len(self._grants) > MAX_TOKENS:
            del self._grants[next(iter(self._grants))]
        return grant

    def judge(self, token: str) -> tuple[Verdict, Grant | None]:
        """Look a token up; the grant is there unless the verdict is UNKNOWN."""
        grant = self._grants.get(token)
        if grant is None:
            return Verdict.UNKNOWN, None
        if grant.is_revoked:
            return Verdict.REVOKED, grant
        if self._clock.monotonic() >= grant.dies_at:
            return Verdict.EXPIRED, grant
        return Verdict.GOOD, grant

    def revoke_all(self) -> int:
        """Revoke every valid token, as a change of password does; return how many."""
        good = self._good()
        for grant in good:
            grant.is_revoked = True
        return len(good)

    def expire_all(self) -> int:
        """Expire every valid token now, before its `expires_at`; return how many."""
        good = self._good()
        for grant in good:
            grant.dies_at = self._clock.monotonic()
        return len(good)

    def count_good(self) -> int:
        """Tokens that work at this moment."""
        return len(self._good())

    def _good(self) -> list[Grant]:
        now = self._clock.monotonic()
        return [g for g in self._grants.values() if not g.is_revoked and now < g.dies_at]
