"""An identity with books on it: its cache is the gateway's own, and the books hold it to account.

Nothing here looks inside the cache; what it may and must do is worked out from what IAM said.
"""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random

from pydantic import SecretStr

from gateway.errors import CredentialError
from gateway.identity.credential import Credential
from gateway.identity.credential_cache import CredentialCache
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.source import Login, LoginError
from gateway.identity.store import TokenStore
from tests.support.simulated_iam import (
    TIMEOUT_S,
    Account,
    Fault,
    SimulatedIam,
    SimulatedSource,
    Times,
    unreadable,
)
from tests.support.virtual_loop import Machine, VirtualLoop

WAIT_S = 1.8
"""How long a caller may wait."""
LOCK_S, LOCK_LIMIT = 900.0, 2
BLINK_S = 1e-3
NEXT_SECOND_S = 1.1
"""After this a token that may have been born dead is replaced."""

OK, REFUSED, THROTTLED = RefreshResult.OK, RefreshResult.REFUSED, RefreshResult.THROTTLED


@dataclass
class Surroundings:
    """What the identities of one process share."""

    loop: VirtualLoop
    machine: Machine
    store: TokenStore
    random: Random
    identities: list["Identity"] = field(default_factory=list)
    suspensions: int = 0
    results: Counter[RefreshResult] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    """Rules that were broken."""

    @property
    def now(self) -> float:
        return self.machine.clock()

    def refreshed(
        self,
        trigger: RefreshTrigger,  # noqa: ARG002  # as `Observer` has it
        result: RefreshResult,
        duration_s: float,  # noqa: ARG002  # as above
    ) -> None:
        """Implements `Observer`."""
        self.results[result] += 1

    def credential_changed(self, credential: Credential | None) -> None:
        """Implements `Observer`."""


class Identity:
    """A cache with the books on it: what it did, and what it may and must do therefore."""

    def __init__(
        self, world: Surroundings, name: str, iam: SimulatedIam, user: str, project: str
    ) -> None:
        self.name, self.iam, self.user, self.project = name, iam, user, project
        self.world = world
        self.account = iam.accounts.setdefault(user, Account(f"{user}-0"))
        self.shared = project != user
        """Whether others log in to the same account."""
        self.secret: str | None = self.account.secret
        self.held = {self.account.secret}

        self.closing = False
        self.in_flight = 0
        self.began_at = -1.0
        self.logins = 0
        self.allowed = 10.0
        """How many logins time and events so far can explain."""
        self.current: Credential | None = None
        self.current_ends = 0.0
        self.won: Credential | None = None
        """By the last login."""
        self.given_up: set[Credential] = set()
        """After a rejection."""
        self.acted: deque[float] = deque()
        """When a rejection was acted on."""
        self.waiting = 0

        self.last: RefreshResult | None = None
        self.failures: Counter[RefreshResult] = Counter()
        self.not_before = 0.0
        self.due_by = 0.0
        """By when the next login must begin if there is no token."""
        self.secret_changed = self.rejected = False
        """Whether that happened while the login under way was so."""
        self.healthy_since: float | None = 0.0
        self.usable_from = 0.0
        """From when on, in a healthy world, there must be a token."""
        self.recovers_by(self.due())
        self.cache = self.make_cache()

    def make_cache(self) -> CredentialCache:
        world = self.world
        return CredentialCache(
            self.name,
            SimulatedSource(
                self.iam,
                world.machine,
                user=self.user,
                project=self.project,
                read_secret=self.read_secret,
                random=world.random.random,
                began=self.login_begins,
                ended=self.login_ends,
            ),
            store=world.store,
            clock=world.machine.clock,
            alarm=world.machine.alarm,
            observer=world,
            random=world.random.random,
            wait_s=WAIT_S,
        )

    def read_secret(self) -> SecretStr:
        if self.secret is not None:
            return SecretStr(self.secret)
        self.failed(RefreshResult.BAD_REPLY, None)
        return unreadable()

    def must(self, condition: bool, text: str) -> None:
        """Remember a broken rule; raised here, a cache would survive it as any other fault."""
        if not condition:
            self.world.broken.append(f"{self.name} at {self.world.now:.3f}: {text}")

    # ---- logins --------------------------------------------------------------------------------

    def login_begins(self) -> None:
        now = self.world.now
        self.in_flight += 1
        self.must(self.in_flight == 1, "two logins at once")
        self.must(now >= self.locked_until(), "a third login after two refused ones")
        self.must(now >= self.not_before - BLINK_S, f"login before {self.not_before:.3f}")
        self.logins += 1
        self.must(self.logins <= self.allowed, f"{self.logins} logins")
        self.began_at = now

    def login_ends(self, outcome: Login | LoginError | None) -> None:
        self.in_flight -= 1
        now = self.world.now
        if outcome is None:
            self.must(self.closing, "a login was cancelled")
            return
        if isinstance(outcome, LoginError):
            if outcome.result is REFUSED:
                told = self.account.told_at
                told.append(now)
                in_window = sum(at > now - LOCK_S for at in told[-LOCK_LIMIT - 1 :])
                self.must(in_window <= LOCK_LIMIT, "three refused logins in 15 minutes")
            self.failed(outcome.result, outcome.retry_after_s)
        elif now >= outcome.credential.expires_at:
            self.failed(RefreshResult.BAD_REPLY, None)
        else:
            self.won = outcome.credential
            if outcome.credential.expires_at < self.began_at + 1.0:
                self.recovers_by(self.began_at + 1.0)  # it ends before another may be asked for
            again = self.secret_changed or self.rejected
            self.succeeded(outcome.credential)
            life_s = outcome.credential.expires_at - self.began_at
            self.not_before = now if again else self.began_at + max(1.0, 0.5 * life_s)

    def succeeded(self, credential: Credential) -> None:
        self.last = OK
        self.failures.clear()
        self.secret_changed = self.rejected = False
        self.due_by = max(credential.expires_at, self.began_at + 1.0)

    def failed(self, result: RefreshResult, retry_after_s: float | None) -> None:
        now = self.world.now
        self.last = result
        kind = result if result in {REFUSED, THROTTLED} else RefreshResult.NETWORK
        self.failures[kind] += 1
        growth = 2.0 ** min(self.failures[kind] - 1, 16)
        if kind is REFUSED:
            least = min(LOCK_S * growth, 4 * 3600.0)
        elif kind is RefreshResult.NETWORK:
            least = 0.5
        elif retry_after_s is None:
            least = min(30.0 * growth, 600.0)
        else:
            least = min(max(1.0, retry_after_s), 3600.0)
        most = min(growth, 30.0) if kind is RefreshResult.NETWORK else 1.1 * least
        if kind is REFUSED and self.secret_changed:
            least = most = 0.0
            self.failures[kind] = 0
        self.not_before, self.due_by = now + least, now + most
        self.secret_changed = self.rejected = False
        if self.healthy_since is not None:
            self.must(self.began_at <= self.healthy_since, f"{result} for no reason")
            self.recovers_by(self.due())

    def locked_until(self) -> float:
        told = self.account.told_at
        return told[-LOCK_LIMIT] + LOCK_S if len(told) >= LOCK_LIMIT else 0.0

    def due(self) -> float:
        return max(self.due_by, self.locked_until()) + self.slack_s

    @property
    def slack_s(self) -> float:
        """Three share an account: two log in at a time, or one while a refusal is recent."""
        if not self.shared:
            return BLINK_S
        turn_s = TIMEOUT_S + 0.4
        return 8 * turn_s if self.world.now < self.refused_until() + 8 * turn_s else turn_s

    def recovers_by(self, login_by: float) -> None:
        self.usable_from = max(self.usable_from, login_by + self.iam.latency_s + BLINK_S)

    # ---- health --------------------------------------------------------------------------------

    def change_secret(self, secret: str | None) -> None:
        self.secret = secret
        if secret is not None:
            self.held.add(secret)

    def notice_secret(self) -> None:
        now = self.world.now
        self.allowed += 2
        self.secret_changed = self.secret_changed or self.login_under_way()
        if self.last is OK:
            self.not_before = min(self.not_before, self.began_at + 1.0)
        elif self.last is REFUSED:
            self.failures[REFUSED] = 0
            self.not_before = self.due_by = now
        self.cache.secret_changed()
        self.healthy_since = None
        self.review()

    def login_under_way(self) -> bool:
        return self.cache.status(self.world.now).next_login_s is None

    async def close(self) -> None:
        self.closing = True
        await self.cache.aclose()

    async def reload(self) -> None:
        await self.close()
        self.closing = False
        now = self.world.now
        self.secret_changed = self.rejected = False
        self.allowed += 2
        self.current = self.won = self.last = None
        self.failures.clear()
        self.not_before = self.due_by = now
        self.recovers_by(self.due())
        self.cache = self.make_cache()
        self.cache.start()

    def suspended(self, late_s: float) -> None:
        now = self.world.now
        self.allowed += 3
        self.due_by = max(self.due_by, now + late_s)
        if self.healthy_since is not None:
            self.healthy_since = now
        self.recovers_by(self.due())

    def allow(self, passed_s: float) -> None:
        """Count the logins that this much time can explain, by the policy's own figures."""
        iam = self.iam
        per_s = (20 if iam.times is Times.REISSUED else 1) / max(1.0, iam.life_s / 2)
        if iam.fault is Fault.THROTTLED:
            per_s += 1 / (30.0 if iam.retry_after is None else max(1, iam.retry_after))
        elif iam.fault is not Fault.NONE or iam.latency_s > min(1.0, iam.life_s / 2):
            per_s += 1 / 4  # a pause is 15 s on average once the first five are over
        self.allowed += passed_s * (per_s + 1 / LOCK_S)

    def review(self) -> None:
        """Work out whether anything still keeps this identity from having a token."""
        iam, account = self.iam, self.account
        healthy = (
            iam.fault is Fault.NONE
            and iam.times is not Times.REISSUED
            and not (iam.times is Times.NO_ISSUED_AT and iam.life_s < 5)  # a second is uncertain
            and iam.latency_s <= min(0.25, iam.life_s / 8)
            and not account.locked(self.world.now)
            and self.secret is not None
            and all(
                other.secret in {None, account.secret}
                for other in self.world.identities
                if other.account is account
            )
        )
        if not healthy:
            self.healthy_since = None
        elif self.healthy_since is None:
            self.healthy_since, self.usable_from = self.world.now, 0.0
            self.recovers_by(max(self.world.now, self.due()))

    # ---- calls ---------------------------------------------------------------------------------

    async def call(self, answer_s: float) -> None:
        """Do as an exchange does: send, and after a rejection once more."""
        cache = self.cache  # a reload makes another
        try:
            by_heart = self.world.random.random() < 0.5  # as the proxy does, to save a task
            credential = cache.usable(self.world.now) if by_heart else None
            credential = credential or await self.obtain(cache)
            self.check_valid(credential)
            await asyncio.sleep(answer_s)
            if self.iam.accepts(credential.field_lines) or not self.reject(cache, credential):
                return
            again = await self.obtain(cache)
            self.check_valid(again)
            await asyncio.sleep(answer_s)
            if self.iam.accepts(again.field_lines):
                cache.accepted(again)
            else:
                self.reject(cache, again)
        except CredentialError:
            self.must(cache.usable(self.world.now) is None, "told that there is no token")

    async def obtain(self, cache: CredentialCache) -> Credential:
        loop = self.world.loop
        began, turns, suspensions = loop.virtual_s, loop.turns, self.world.suspensions
        usable = cache.usable(self.world.now)
        self.waiting += 1
        try:
            return await cache.obtain()
        finally:
            self.waiting -= 1
            self.must(usable is None or loop.turns == turns, "waited in spite of a token")
            if suspensions == self.world.suspensions:
                self.must(loop.virtual_s <= began + WAIT_S + BLINK_S, "waited for too long")

    def reject(self, cache: CredentialCache, credential: Credential) -> bool:
        now = self.world.now
        before, under_way = cache.usable(now), self.login_under_way()
        coming = cache.reject(credential)
        after = cache.usable(now)
        if before is not credential or not coming:
            self.must(after is before, "a rejection of another, or in vain, cost a token")
            if before is None and coming:
                self.not_before = min(self.not_before, now)  # it expired before it was rejected
            return coming
        self.given_up.add(credential)
        self.rejected = self.rejected or under_way
        self.not_before = now if self.last is OK else self.not_before
        self.allowed += 1
        self.recovers_by(now + NEXT_SECOND_S + self.slack_s)
        self.acted.append(now)
        while self.acted[0] <= now - 3600:
            self.acted.popleft()
        self.must(sum(at > now - 60 for at in self.acted) <= 11, "minute full of rejections")
        self.must(len(self.acted) <= 40, "hour full of rejections")
        return coming

    def check_valid(self, credential: Credential) -> None:
        """Hold what was handed out against IAM's books."""
        token = self.iam.issued.get(credential.field_lines)
        self.must(token is not None, "a token that its IAM has not issued")
        if token is not None:
            ours = (token.user, token.project) == (self.user, self.project)
            self.must(ours and token.secret in self.held, "somebody else's token")
            dead_s = self.world.now - token.expires_at
            self.must(dead_s < 0, f"token dead for {dead_s:.3f} s by IAM's clock")
            self.must(credential not in self.given_up, "a token that was rejected")

    # ---- every turn ----------------------------------------------------------------------------

    def check(self, now: float, *, quiet: bool) -> None:
        usable = self.cache.usable(now)
        if usable is not self.current:
            self._check_change(usable, now)
        elif usable is not None and now >= self.current_ends:
            self.check_valid(usable)
        if not quiet:
            return
        if usable is not None:
            self.must(self.waiting == 0, "callers wait in spite of a token")
            return
        if self.in_flight == 0 and not self.login_under_way():
            self.must(self.waiting == 0, "callers wait for nothing")
            self.must(now <= self.due(), "no token, and no login in time")
        old = self.in_flight and self.began_at <= (self.healthy_since or 0.0)
        if self.healthy_since is not None and not old:
            self.must(now <= self.usable_from, "no token after all is well again")

    def _check_change(self, usable: Credential | None, now: float) -> None:
        before, self.current = self.current, usable
        if usable is not None:
            self.check_valid(usable)
            self.current_ends = self.iam.issued[usable.field_lines].expires_at
            if usable is not self.won and now < usable.stale_at:
                self.succeeded(usable)  # by taking over another cache's
                self.not_before = now
        elif before is not None and before not in self.given_up:
            self.must(now >= before.expires_at, "a token that works was dropped")
            if self.shared and (self.iam.life_s < 10 or now < self.refused_until()):
                self.recovers_by(now + self.slack_s)

    def refused_until(self) -> float:
        return self.account.told_at[-1] + LOCK_S if self.account.told_at else 0.0
