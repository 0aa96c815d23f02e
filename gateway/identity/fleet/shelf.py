"""The operations on the fleet's shared store. Each is atomic."""

from dataclasses import dataclass


class ShelfError(Exception):
    """The place cannot be used now. `str(error)` is safe to log: it holds no foreign text."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of an entry and its account."""

    token: bytes | None
    """Encrypted."""
    token_left_s: float
    """For how many seconds the token may still be used."""
    refusals: int
    """Refused logins of the last 15 minutes."""
    pause: bytes | None
    """Why IAM must not be asked now; None: it may be."""
    pause_left_s: float


class Shelf:
    """Keys and values with a life, shared by all replicas.

    Every method raises ShelfError when it cannot be done. Cancellation: safe.
    """

    async def read(self, entry: str, account: str) -> Found:
        """Return what is known of an entry and its account."""
        raise NotImplementedError

    async def acquire(self, entry: str, owner: str, life_s: float) -> int | None:
        """Take the entry's lock for `life_s`; return its fencing number, None: it is taken."""
        raise NotImplementedError

    async def extend(self, entry: str, owner: str, life_s: float) -> bool:
        """Keep the lock for `life_s` from now on; return whether `owner` still had it."""
        raise NotImplementedError

    async def release(self, entry: str, owner: str) -> None:
        """Give the lock back, if `owner` still has it."""
        raise NotImplementedError

    async def put_token(self, entry: str, token: bytes, fence: int, life_s: float) -> bool:
        """Keep a token, and forget refusals; return whether no later one was there."""
        raise NotImplementedError

    async def count_refusal(self, entry: str, life_s: float) -> int:
        """Count a refused login; return how many there were of late."""
        raise NotImplementedError

    async def pause(self, account: str, reason: bytes, life_s: float) -> None:
        """Tell all replicas not to ask IAM for `life_s`."""
        raise NotImplementedError

    async def report(self, entry: str, fingerprint: str, life_s: float) -> None:
        """Note for `life_s` that a service has rejected a token."""
        raise NotImplementedError

    async def is_reported(self, entry: str, fingerprint: str) -> bool:
        """Return whether a service has rejected a token lately."""
        raise NotImplementedError

    async def check(self, mark: bytes, *, replace: bool = False) -> bytes:
        """Return the mark of the keys in use; store and return `mark` if there is none.

        Args:
            mark: ours.
            replace: put ours in its place.
        """
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close connections. Never raises."""
