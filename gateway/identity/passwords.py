"""Which of two passwords a login tries first. No I/O, no clock."""

from collections.abc import Sequence

from pydantic import SecretStr

from gateway.identity.secret import digest

_MOST = 8


class PasswordMemory:
    """Remembers which password of an account has worked, for each pair that its files have held.

    Invariant: once a file has another content, nothing is known of the new pair.
    """

    def __init__(self) -> None:
        self._worked: dict[tuple[bytes, ...], bytes] = {}

    def in_order(self, given: Sequence[SecretStr]) -> list[SecretStr]:
        """Return the different ones of `given` that are not empty, the one that worked first."""
        different = {digest(one): one for one in given if one.get_secret_value()}
        worked = self._worked.get(_pair(given))
        return [different[mark] for mark in sorted(different, key=lambda mark: mark != worked)]

    def worked(self, given: Sequence[SecretStr], secret: SecretStr) -> None:
        """Note that IAM has accepted `secret`, which is one of `given`."""
        pair = _pair(given)
        self._worked.pop(pair, None)
        self._worked[pair] = digest(secret)
        while len(self._worked) > _MOST:
            del self._worked[next(iter(self._worked))]


def _pair(given: Sequence[SecretStr]) -> tuple[bytes, ...]:
    return tuple(map(digest, given))
