"""State that outlives a cache: tokens, by everything they depend on, and the accounts' ledgers."""

from collections.abc import Hashable

from cachetools import TLRUCache

from gateway.clock import Clock
from gateway.identity.passwords import PasswordMemory
from gateway.identity.refresh import RefusalLedger
from gateway.identity.refusal_file import RefusalFile
from gateway.identity.source import Login


class TokenStore:
    """Shared by all caches of a process, so that a reload neither logs in again nor forgets.

    Invariants: never gives out an expired login; a login is found only under its own key.
    """

    def __init__(
        self, clock: Clock, *, capacity: int = 256, refusals: RefusalFile | None = None
    ) -> None:
        """Begin with nothing; `refusals` is where refused logins of earlier processes are."""
        self.refusals = refusals
        self._logins: TLRUCache[Hashable, Login, float] = TLRUCache(capacity, _end_of_life, clock)
        self._rejected: TLRUCache[Hashable, Login, float] = TLRUCache(capacity, _end_of_life, clock)
        self._ledgers: dict[Hashable, RefusalLedger] = {}
        self._passwords: dict[Hashable, PasswordMemory] = {}

    def get(self, key: Hashable) -> Login | None:
        """Return the latest login under `key` that has not expired."""
        return self._logins.get(key)

    def put(self, login: Login) -> None:
        """Keep `login` until it expires, or until 256 others were used more recently."""
        self._logins[login.cache_key] = login

    def drop(self, login: Login) -> None:
        """Forget `login`, unless another has taken its place: a service has rejected it."""
        self._rejected[login.cache_key] = login
        if self._logins.get(login.cache_key) is login:
            self._logins.pop(login.cache_key, None)

    def rejected(self, key: Hashable) -> Login | None:
        """Return the login under `key` that was dropped last."""
        return self._rejected.get(key)

    def ledger(self, account: Hashable) -> RefusalLedger:
        """Return the one ledger of `account`."""
        return self._ledgers.setdefault(account, RefusalLedger())

    def passwords(self, account: Hashable) -> PasswordMemory:
        """Return the one memory of which password of `account` has worked."""
        return self._passwords.setdefault(account, PasswordMemory())


def _end_of_life(_key: Hashable, login: Login, _now: float) -> float:
    return login.credential.expires_at
