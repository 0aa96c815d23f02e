"""A scripted source of credentials, and an observer that remembers."""

import asyncio
from collections import deque
from collections.abc import Hashable

from gateway.identity.credential import Credential
from gateway.identity.refresh import RefreshResult, RefreshTrigger, expires_at, stale_at
from gateway.identity.source import Login, LoginError, TokenFacts
from tests.support.fake_time import FakeTime


class FakeSource:
    """Implements `CredentialSource`: plays `script`, then goes on with tokens of `life_s`."""

    def __init__(self, time: FakeTime, *, life_s: float = 86400.0) -> None:
        self.life_s = life_s
        self.script: deque[float | Exception] = deque()
        """Each a life in seconds, or what to raise."""
        self.gate = asyncio.Event()
        """While clear, logins are under way and do not end."""
        self.gate.set()
        self.asked_at: list[float] = []
        self.secret = "first"
        self.account: Hashable = "account"
        self._time = time

    @property
    def logins(self) -> int:
        """How many logins have begun."""
        return len(self.asked_at)

    async def cache_key(self) -> Hashable:
        return ("fake", self.secret)

    async def fetch(self) -> Login:
        asked_at = self._time.now
        self.asked_at.append(asked_at)
        number = self.logins
        outcome = self.script.popleft() if self.script else self.life_s
        key = await self.cache_key()
        await self.gate.wait()
        if isinstance(outcome, Exception):
            raise outcome
        return Login(
            Credential(
                b"X-Auth-Token: token-%d\r\n" % number,
                stale_at=stale_at(asked_at, outcome, 0.0),
                expires_at=expires_at(asked_at, outcome),
                wall_expires_at=1.7e9 + outcome,
            ),
            cache_key=key,
            facts=TokenFacts(7, f"{number:08x}", user="infer", project="region"),
            skew_s=0.25,
        )


class Remembering:
    """Implements `Observer`."""

    def __init__(self) -> None:
        self.logins: list[tuple[RefreshTrigger, RefreshResult]] = []
        self.durations_s: list[float] = []
        self.credentials: list[Credential | None] = []
        """Those that came into use, one after the other."""

    def refreshed(self, trigger: RefreshTrigger, result: RefreshResult, duration_s: float) -> None:
        self.logins.append((trigger, result))
        self.durations_s.append(duration_s)

    def credential_changed(self, credential: Credential | None) -> None:
        self.credentials.append(credential)


def failing(result: RefreshResult, *, retry_after_s: float | None = None) -> LoginError:
    """Return what a source raises for `result`."""
    return LoginError(
        result, f"scripted {result}", retry_after_s=retry_after_s, public=f"public {result}"
    )
