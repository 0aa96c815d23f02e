"""A source of credentials that all replicas share: one logs in, the others read what it got."""

import asyncio
import secrets
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final, Protocol

from gateway.clock import Clock
from gateway.identity.credential import Credential
from gateway.identity.fleet.entry import decode, encode
from gateway.identity.fleet.fleet import Fleet, FleetDownError
from gateway.identity.fleet.shelf import Found
from gateway.identity.refresh import RefreshResult, RefusalLedger
from gateway.identity.source import CredentialSource, Login, LoginError, TokenFacts
from gateway.identity.store import TokenStore

LOCK_S: Final = 1.5
"""Seconds. A replica that is killed during its login blocks the others for this long at most."""
_EXTEND_S: Final = 0.5
_POLL_LEAST_S, _POLL_MOST_S = 0.1, 0.3
_LONGEST_WAIT_S: Final = 12.0
"""More than a login may take."""
_REPORTED_S: Final = 30.0
_FAILED_S: Final = 1.0
"""Seconds for which no other replica asks IAM after a failed login."""
_THROTTLED_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 3600.0


class SharedSource(CredentialSource, Protocol):
    """A source whose credentials other replicas may use."""

    async def shared_name(self, name: Callable[..., str]) -> tuple[str, str]:
        """Return the names of this login and of its account, made with `name`.

        Equal for replicas only if each may use the other's credential; another secret is another
        name.

        Raises:
            LoginError: the secret cannot be read.
        """
        ...


class FleetSource:
    """Implements `CredentialSource`: asks the fleet's store before it asks IAM.

    Invariants: a credential that this replica has or has rejected, or that is older than the one
    it has rejected, is not taken from the store; while the store does not work, everything is as
    without it.
    """

    def __init__(
        self,
        inner: SharedSource,
        fleet: Fleet,
        *,
        store: TokenStore,
        clock: Clock,
        wall_clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """Share what `inner` gets.

        Args:
            inner: asks IAM.
            fleet: the process's access to the store.
            store: of the cache that uses this source: knows what we have, and what was rejected.
            clock: counts lives.
            wall_clock: seconds since the epoch, for people and gauges.
            random: returns [0, 1).
        """
        self._inner = inner
        self._fleet = fleet
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random

    @property
    def account(self) -> Hashable:
        """See `CredentialSource`."""
        return self._inner.account

    async def cache_key(self) -> Hashable:
        """See `CredentialSource`."""
        return await self._inner.cache_key()

    async def fetch(self) -> Login:
        """Return what another replica got, or log in for all; see `CredentialSource`."""
        if not await self._fleet.ready():
            return await self._log_in_alone()
        key = await self._inner.cache_key()
        entry, account = await self._inner.shared_name(self._fleet.keys.name)
        try:
            await self._report(key, entry)
            fence, owner = await self._turn(key, entry, account)
        except FleetDownError:
            return await self._log_in_alone()
        except _TakenOverError as taken:
            return taken.login
        return await self._log_in(entry, account, fence, owner)

    async def _report(self, key: Hashable, entry: str) -> None:
        """Tell the others which token a service has rejected."""
        rejected = self._store.rejected(key)
        if rejected is not None and rejected.facts is not None:
            fingerprint = rejected.facts.fingerprint
            await self._fleet.do(self._fleet.shelf.report(entry, fingerprint, _REPORTED_S))

    async def _turn(self, key: Hashable, entry: str, account: str) -> tuple[int, str]:
        """Return once it is our turn to log in: the fencing number, and the lock's owner.

        Raises:
            _TakenOverError: another replica got a credential.
            LoginError: IAM must not be asked now.
            FleetDownError: the store does not work.
        """
        fleet, owner = self._fleet, secrets.token_hex(16)
        gives_up_at = self._clock() + _LONGEST_WAIT_S
        while self._clock() < gives_up_at:
            await self._look(key, entry, account)
            fence = await fleet.do(fleet.shelf.acquire(entry, owner, LOCK_S))
            if fence is not None:
                try:
                    await self._look(key, entry, account)  # it may have come in between
                except (_TakenOverError, LoginError):
                    fleet.in_background(fleet.do(fleet.shelf.release(entry, owner)))
                    raise
                return fence, owner
            await asyncio.sleep(_POLL_LEAST_S + self._random() * (_POLL_MOST_S - _POLL_LEAST_S))
        raise FleetDownError

    async def _look(self, key: Hashable, entry: str, account: str) -> None:
        """Raise if a login of ours is not needed or not allowed."""
        asked_at = self._clock()
        found = await self._fleet.do(self._fleet.shelf.read(entry, account))
        login = self._login_of(found, key, asked_at)
        if login is not None and login.facts is not None:
            reported = self._fleet.shelf.is_reported(entry, login.facts.fingerprint)
            if not await self._fleet.do(reported):
                raise _TakenOverError(login)
        if found.refusals >= RefusalLedger.LIMIT:
            raise LoginError(
                RefreshResult.REFUSED,
                "IAM has refused this login for other replicas",
                from_fleet=True,
            )
        if found.pause is not None and found.pause_left_s > 0:
            result = _result_named(found.pause)
            raise LoginError(
                result,
                "another replica's login has just failed",
                retry_after_s=found.pause_left_s,
                from_fleet=True,
            )

    def _login_of(self, found: Found, key: Hashable, asked_at: float) -> Login | None:
        """Return the login in the store, if it is of use to us."""
        if found.token is None or found.token_left_s <= 0:
            return None
        content = self._fleet.keys.decrypt(found.token)
        entry = None if content is None else decode(content)
        if entry is None:
            return None
        left_s = min(found.token_left_s, entry.usable_s)
        expires_at = asked_at + left_s
        mine, rejected = self._store.get(key), self._store.rejected(key)
        for other in (mine, rejected):
            if other is not None and other.credential.field_lines == entry.field_lines:
                return None
        if mine is not None and expires_at <= mine.credential.expires_at:
            return None
        if rejected is not None and _is_older(entry.facts, rejected.facts):
            return None  # stored before an outage of the store, and revoked together with ours
        begun_at = expires_at - entry.usable_s
        credential = Credential(
            entry.field_lines,
            stale_at=begun_at + entry.usable_s * (0.5 + 0.3 * self._random()),
            expires_at=expires_at,
            wall_expires_at=self._wall_clock() + (expires_at - self._clock()),
        )
        return Login(credential, key, entry.facts, from_fleet=True)

    async def _log_in(self, entry: str, account: str, fence: int, owner: str) -> Login:
        fleet = self._fleet
        extending = asyncio.create_task(self._extend(entry, owner), name="fleet-lock")
        began = self._clock()
        try:
            login = await self._inner.fetch()
        except LoginError as error:
            fleet.in_background(self._tell(entry, account, owner, error))
            raise
        except BaseException:
            fleet.in_background(fleet.do(fleet.shelf.release(entry, owner)))
            raise
        finally:
            extending.cancel()
        fleet.in_background(self._publish(entry, login, began, fence, owner))
        return login

    async def _log_in_alone(self) -> Login:
        """Log in without the store; a refusal is counted for the others as soon as it works."""
        try:
            return await self._inner.fetch()
        except LoginError as error:
            if error.result is RefreshResult.REFUSED and not error.is_remembered:
                entry, _ = await self._inner.shared_name(self._fleet.keys.name)
                counts_until = self._clock() + RefusalLedger.WINDOW_S
                self._fleet.once_up(partial(self._count_late, entry, counts_until))
            raise

    async def _count_late(self, entry: str, counts_until: float) -> None:
        left_s = counts_until - self._clock()
        if left_s > 0:
            await self._fleet.do(self._fleet.shelf.count_refusal(entry, left_s))

    async def _extend(self, entry: str, owner: str) -> None:
        """Keep the lock for as long as the login goes on."""
        try:
            while True:
                await asyncio.sleep(_EXTEND_S)
                if not await self._fleet.do(self._fleet.shelf.extend(entry, owner, LOCK_S)):
                    return
        except FleetDownError:
            return

    async def _publish(
        self, entry: str, login: Login, began: float, fence: int, owner: str
    ) -> None:
        """Store a login for the others, and then release the lock."""
        fleet = self._fleet
        content = encode(login, login.credential.expires_at - began)
        left_s = login.credential.expires_at - self._clock()
        if content is not None and left_s > 0:
            token = fleet.keys.encrypt(content)
            await fleet.do(fleet.shelf.put_token(entry, token, fence, left_s))
        await fleet.do(fleet.shelf.release(entry, owner))

    async def _tell(self, entry: str, account: str, owner: str, error: LoginError) -> None:
        """Store why a login failed, and then release the lock."""
        fleet = self._fleet
        if error.is_remembered:
            pass  # the others have been told when it was refused
        elif error.result is RefreshResult.REFUSED:
            await fleet.do(fleet.shelf.count_refusal(entry, RefusalLedger.WINDOW_S))
        else:
            pause_s = _FAILED_S
            if error.result is RefreshResult.THROTTLED:
                asked_s = _THROTTLED_S if error.retry_after_s is None else error.retry_after_s
                pause_s = min(max(asked_s, _FAILED_S), _LONGEST_PAUSE_S)
            await fleet.do(fleet.shelf.pause(account, str(error.result).encode(), pause_s))
        await fleet.do(fleet.shelf.release(entry, owner))


class _TakenOverError(Exception):
    """Another replica has logged in; its credential is used."""

    def __init__(self, login: Login) -> None:
        super().__init__("taken over")
        self.login = login


def _is_older(facts: TokenFacts, than: TokenFacts | None) -> bool:
    """Return whether IAM issued the one before the other; False if it does not say."""
    if than is None or facts.issued_at is None or than.issued_at is None:
        return False
    return facts.issued_at < than.issued_at


def _result_named(name: bytes) -> RefreshResult:
    try:
        result = RefreshResult(name.decode("ascii"))
    except ValueError:
        return RefreshResult.NETWORK
    return RefreshResult.NETWORK if result is RefreshResult.OK else result
