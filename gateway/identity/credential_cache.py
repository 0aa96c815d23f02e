"""One identity's credential: kept in memory, and renewed in the background."""

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

from gateway.clock import Alarm, Clock
from gateway.errors import CredentialError
from gateway.identity.credential import Credential, Freshness, freshness
from gateway.identity.login_history import LoginHistory
from gateway.identity.next_login import NextLogin
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.rejection_guard import RejectionGuard
from gateway.identity.report import IdentityStatus, LoginLog, Reason
from gateway.identity.source import CredentialSource, Login, LoginError
from gateway.identity.store import TokenStore
from gateway.identity.waiters import Waiters


class Observer(Protocol):
    """Called by a cache after each change of its state."""

    def refreshed(self, trigger: RefreshTrigger, result: RefreshResult, duration_s: float) -> None:
        """Called once for each login that was made. Must not raise."""
        ...

    def credential_changed(self, credential: Credential | None) -> None:
        """Called when another credential is in use, or none, because it was rejected.

        Not called when one expires. Must not raise.
        """
        ...


class CredentialCache:
    """Hands out a usable credential, and makes a request wait only when there is none at all.

    Invariants:
        - at most one login under way, however many callers, and none of them can cancel it;
        - a failed login never displaces a credential;
        - a rejection displaces only the very credential rejected, and only when a login can
          start at once;
        - IAM is asked only when `refresh` allows it;
        - by itself it ends up with a usable credential once IAM gives one.

    Used from one event loop. Between awaits nothing else runs: that is all the locking there is.
    """

    def __init__(
        self,
        name: str,
        source: CredentialSource,
        *,
        store: TokenStore,
        clock: Clock,
        alarm: Alarm,
        observer: Observer,
        random: Callable[[], float],
        wait_s: float = 1.8,
    ) -> None:
        """Make a cache that does nothing before `start`.

        `store` and `clock` are shared by all caches; `random` returns [0, 1); a caller of
        `obtain` waits for `wait_s` at most, so that it gets a response within 2 s even if
        IAM never responds.
        """
        self._name = name
        self._source = source
        self._store = store
        self._clock = clock
        self._observer = observer
        self._log = LoginLog(name)
        self._history = LoginHistory(store.ledger(source.account), random)
        self._guard = RejectionGuard()
        self._waiters = Waiters(alarm, wait_s)
        self._next_login = NextLogin(alarm, self._ring)

        self._credential: Credential | None = None  # that of `_login`, at hand; `_keep` sets both
        self._login: Login | None = None
        self._task: asyncio.Task[Login] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin the first login; from here on the cache renews its credential until `aclose`."""
        self._ring()

    def usable(self, now: float) -> Credential | None:
        """Return the credential if it may be sent at `now`. The hot path: call it every time.

        The clock decides, not a timer, which may fire after the expiry.
        """
        credential = self._credential
        return credential if credential is not None and now < credential.expires_at else None

    async def obtain(self, *, trigger: RefreshTrigger = RefreshTrigger.DEMAND) -> Credential:
        """Return a usable credential, waiting for a login only if there is none.

        Raises:
            CredentialError: none can be had within `wait_s`, or IAM has to be left alone, which
                is said at once.

        Cancellation: gives up this caller's wait; the login goes on for the others.
        """
        now = self._clock()
        if (credential := self.usable(now)) is not None:
            return credential
        if not self._begin(trigger, now):
            if self._closed or not self._history.waits_for_others(now):
                raise self._unavailable(now)
            self._next_login.set_for(self._history.opens_at(now))
        await self._waiters.wait(now)
        now = self._clock()
        if (credential := self.usable(now)) is None:
            raise self._unavailable(now)
        return credential

    def reject(self, credential: Credential, *, again: bool = False) -> bool:
        """Take note that a service refused `credential` as no good.

        Returns whether another is there or under way, so that `obtain` and sending the request
        again make sense. Otherwise another login would not cure it, or cannot be made now, as
        `renewal_pause_s` tells, and the credential stays in use where it is accepted.

        Args:
            credential: the one refused.
            again: the request has been sent with two of them. A third one is worth a try only if
                this one may have been born dead.
        """
        login, now = self._login, self._clock()
        if login is None or login.credential is not credential:
            return True  # a late report on a credential that has been replaced
        if not credential.renewable:
            self._history.refused_by_service(now)
            self._log.refused_by_service(now=now)
            return False
        if credential.is_cured(now):
            return True
        delay_s = self._guard.delay_s(now)
        if delay_s is None:
            return False
        is_cured_by_waiting = not self._guard.open(now)
        self._history.token_rejected(now)
        if not self._begin(RefreshTrigger.REJECTED, now, delay_s):
            return False
        self._guard.login_caused(now)
        self._store.drop(login)
        self._keep(None)
        return is_cured_by_waiting or not again

    def renewal_pause_s(self) -> float:
        """Return in how many seconds a rejection may cause a login that might cure it.

        0: nothing is in its way, or no login would help.
        """
        now = self._clock()
        if self._guard.has_given_up(now):
            return 0.0
        return max(0.0, self._guard.pause_s(now), self._history.opens_at(now) - now)

    def locked_out(self, credential: Credential) -> None:
        """Take note that a service has locked `credential`, and leave it alone for as long.

        Further requests would prolong that; callers are told so at once.
        """
        login, now = self._login, self._clock()
        if login is not None and login.credential is credential:
            self._store.drop(login)
            self._keep(None)
            self._history.locked_out(now)
            self._next_login.set_for(self._history.opens_at(now))
            self._log.locked_out(now=now)

    def accepted(self, credential: Credential) -> None:
        """Take note that the service that `reject` was called for has accepted `credential`.

        Not needed for any other success. Without it, rejections soon after look incurable.
        """
        if credential is self._credential:
            self._guard.cured()

    def fingerprint(self) -> str:
        """Return what tells the token in use from others; empty if there is none."""
        facts = None if self._login is None else self._login.facts
        return "" if facts is None else facts.fingerprint

    def secret_changed(self) -> None:
        """Try the new secret as soon as IAM may be asked; meanwhile the credential stays."""
        self._next_login.trigger = RefreshTrigger.SECRET_CHANGE
        self._history.secret_changed(self._clock())
        if self._task is None:
            self._ring()

    def status(self, now: float) -> IdentityStatus:
        """Describe the cache at `now`, by the clock it was given."""
        usable = self.usable(now)
        due_at = self._next_login.due_at
        waiting = self._task is None and due_at < math.inf
        return IdentityStatus(
            usable=usable is not None,
            reason=None if usable is not None else self._reason(),
            locked=self._history.locked(now),
            wall_expires_at=None if usable is None else usable.wall_expires_at,
            next_login_s=max(0.0, due_at - now) if waiting else None,
            last_result=self._history.last,
            skew_s=self._history.skew_s if usable is None else usable.skew_s(self._history.skew_s),
            refused_s=self._history.refused_by_service_s(now),
            detail=self._history.detail,
            facts=None if usable is None or self._login is None else self._login.facts,
        )

    async def aclose(self) -> None:
        """End the login under way, let the waiting go, and begin no other."""
        self._closed = True
        self._next_login.set_for(math.inf)
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait({task})
        self._waiters.wake()

    def _begin(self, trigger: RefreshTrigger, now: float, delay_s: float = 0.0) -> bool:
        """Start a login, now or in `delay_s`, unless one runs; False: IAM must not be asked."""
        if self._task is not None:
            return True
        if self._closed or now < self._history.opens_at(now):
            return False
        self._next_login.trigger = RefreshTrigger.SCHEDULE
        self._history.begin()
        self._task = asyncio.create_task(self._renew(now, delay_s), name=f"login-{self._name}")
        self._task.add_done_callback(partial(self._settle, trigger, now + delay_s))
        return True

    async def _renew(self, now: float, delay_s: float) -> Login:
        """Take over what another cache, or the one before a reload, has; else log in."""
        if delay_s > 0.0:
            await self._waiters.pause(now, delay_s)
        known = self._store.get(await self._source.cache_key())
        mine = self._credential
        if known is not None and (mine is None or known.credential.expires_at > mine.expires_at):
            self._keep(known)  # even a stale one, at once: the next login may fail
            if freshness(known.credential, now) is Freshness.FRESH:
                return known
        return await self._source.fetch()

    def _settle(self, trigger: RefreshTrigger, began: float, task: asyncio.Task[Login]) -> None:
        """Process the result of a login: first change the state, then call the observers."""
        now = self._clock()
        self._task = None
        outcome = _outcome_of(task, now)
        result = RefreshResult.OK if isinstance(outcome, Login) else outcome.result
        refused = result is RefreshResult.REFUSED and not outcome.from_fleet
        if isinstance(outcome, LoginError) and outcome.is_remembered:
            refused = False
        self._history.end(now, refused=refused)
        if outcome.from_fleet:
            trigger = RefreshTrigger.FLEET
        if self._closed:
            self._waiters.wake()
            return
        taken_over = outcome is self._login
        if isinstance(outcome, Login):
            self._history.succeeded(outcome, began=began, taken_over=taken_over)
            self._guard.token_came(now)
            self._store.put(outcome)
            self._keep(outcome)
            due_at = outcome.credential.stale_at
        else:
            self._history.failed(outcome, now)
            due_at = now
        if self._next_login.trigger is RefreshTrigger.SECRET_CHANGE:  # it changed in the meantime
            self._history.secret_changed(now)
            due_at = now
        self._next_login.set_for(max(due_at, self._history.opens_at(now)))
        self._waiters.wake()
        if not taken_over:
            if isinstance(outcome, Login):
                self._log.succeeded(trigger, outcome, now=now)
            else:
                next_s, usable = self._next_login.due_at - now, self.usable(now) is not None
                self._log.failed(trigger, outcome, now=now, next_s=next_s, usable=usable)
            self._observer.refreshed(trigger, result, now - began)

    def _ring(self) -> None:
        now = self._clock()
        if not self._begin(self._next_login.trigger, now) and not self._closed:
            self._next_login.set_for(self._history.opens_at(now))

    def _keep(self, login: Login | None) -> None:
        self._login = login
        self._credential = None if login is None else login.credential
        self._observer.credential_changed(self._credential)
        if login is not None:
            self._waiters.wake()

    def _reason(self) -> Reason:
        return Reason.CLOSED if self._closed else self._history.reason()

    def _unavailable(self, now: float) -> CredentialError:
        return CredentialError(
            self._history.error_code(now),
            f"identity {self._name}: {self._reason()}",
            retry_after_s=float(max(1, math.ceil(self._history.opens_at(now) - now))),
            reason=self._history.refusal,
        )


def _outcome_of(task: asyncio.Task[Login], now: float) -> Login | LoginError:
    if task.cancelled():  # by `aclose`, or by an error in somebody's clean-up
        return LoginError(RefreshResult.TIMEOUT, "the login was cancelled")
    error = task.exception()
    if error is None:
        login = task.result()
        if freshness(login.credential, now) is Freshness.EXPIRED:
            return LoginError(RefreshResult.BAD_REPLY, "the token expired on its way to us")
        return login
    if isinstance(error, LoginError):
        return error
    # A fault of ours: recover from it all the same, and name it without quoting it.
    line = error.__traceback__
    while line is not None and line.tb_next is not None:
        line = line.tb_next
    where = f"{line.tb_frame.f_code.co_name}:{line.tb_lineno}" if line is not None else "nowhere"
    return LoginError(RefreshResult.BAD_REPLY, f"fault: {type(error).__name__} in {where}")
