"""When to log in, and when to leave IAM alone. Pure: no I/O, no clock; `now` is passed in.

Instants are seconds on the cache's clock; `spread` is a random number in [0, 1).
"""

from collections import deque
from enum import StrEnum

MIN_INTERVAL_S = 1.0
"""Least time between the starts of two logins that only the age of a token calls for."""
LONGEST_LIFE_S = 31 * 86400.0
"""A token that is said to live longer is invalid: no issuer hands out a month."""

_REFUSED_FIRST_S, _REFUSED_MOST_S = 15 * 60.0, 4 * 3600.0
_THROTTLED_FIRST_S, _THROTTLED_MOST_S = 30.0, 10 * 60.0
_RETRY_AFTER_LEAST_S, _RETRY_AFTER_MOST_S = 1.0, 3600.0
_TRANSIENT_LEAST_S, _TRANSIENT_FIRST_S, _TRANSIENT_MOST_S = 0.5, 1.0, 30.0
_JITTER = 0.1  # of a pause that IAM or its lock-out asks for: never shorter, hardly longer


class RefreshTrigger(StrEnum):
    """Why a login was made: label `trigger` of `gateway_token_refreshes_total`."""

    STARTUP = "startup"
    SCHEDULE = "schedule"
    DEMAND = "demand"
    REJECTED = "rejected"
    FLEET = "fleet"
    """None was made: another replica's came from the fleet's store, or the reason for none."""
    SECRET_CHANGE = "secret_change"  # noqa: S105  # a label, no secret


class RefreshResult(StrEnum):
    """How a login ended: label `result` of `gateway_token_refreshes_total`."""

    OK = "ok"
    REFUSED = "refused"
    """IAM rejects these credentials; trying again may lock the account."""
    THROTTLED = "throttled"
    NETWORK = "network"
    TIMEOUT = "timeout"
    BAD_REPLY = "bad_reply"
    """IAM failed, or its response is not valid."""


def family(result: RefreshResult) -> RefreshResult:
    """Return the member that stands for all failures paused for alike; they grow together."""
    match result:
        case RefreshResult.TIMEOUT | RefreshResult.BAD_REPLY:
            return RefreshResult.NETWORK
        case _:
            return result


def pause_after(
    result: RefreshResult, *, failures_in_a_row: int, retry_after_s: float | None, spread: float
) -> float:
    """Return for how many seconds to leave IAM alone after a login that ended in `result`.

    Args:
        result: how it ended; after `OK` it is the least interval between logins.
        failures_in_a_row: how many of its family there were since the last success, it included.
        retry_after_s: what IAM asked for when it throttles, or what is left of the pause after an
            earlier refusal; counted from now, and not used otherwise.
        spread: random, so that replicas that failed together do not retry together.
    """
    growth = 2.0 ** min(max(failures_in_a_row, 1) - 1, 16)
    match result:
        case RefreshResult.OK:
            return MIN_INTERVAL_S
        case RefreshResult.REFUSED:
            if retry_after_s is not None:
                return min(max(retry_after_s, _RETRY_AFTER_LEAST_S), _REFUSED_MOST_S)
            return _at_least(_REFUSED_FIRST_S * growth, _REFUSED_MOST_S, spread)
        case RefreshResult.THROTTLED:
            if retry_after_s is None:
                return _at_least(_THROTTLED_FIRST_S * growth, _THROTTLED_MOST_S, spread)
            return _at_least(max(retry_after_s, _RETRY_AFTER_LEAST_S), _RETRY_AFTER_MOST_S, spread)
        case RefreshResult.NETWORK | RefreshResult.TIMEOUT | RefreshResult.BAD_REPLY:
            ceiling_s = min(_TRANSIENT_FIRST_S * growth, _TRANSIENT_MOST_S)
            return _TRANSIENT_LEAST_S + spread * (ceiling_s - _TRANSIENT_LEAST_S)


def _at_least(pause_s: float, most_s: float, spread: float) -> float:
    return min(pause_s * (1 + _JITTER * spread), most_s)


def stale_at(asked_at: float, life_s: float, spread: float) -> float:
    """Return when to replace a token: at 50-80 % of its life, at random, so that replicas differ.

    A tenth of the life at least is left for the login, which matters to very short ones.
    """
    latest = expires_at(asked_at, life_s) - 0.1 * life_s
    return min(asked_at + life_s * (0.5 + 0.3 * spread), latest)


def expires_at(asked_at: float, life_s: float) -> float:
    """Return from when on nobody may use a token: 5 s, or 5 % of a short life, before its end.

    Of a very short one it is 1 s, or a fifth: Keystone tells times to the second only, so that a
    token may end up to a second earlier than it seems to.
    """
    return asked_at + life_s - min(5.0, max(0.05 * life_s, min(1.0, 0.2 * life_s)))


class RefusalLedger:
    """Counts the refused logins of one account, over all its identities.

    Invariant: not more than 2 are refused in any 15 minutes, those under way taken for refused.
    IAM locks an account after 5 by default and after 3 at its strictest; the third is left to a
    person who looks what is wrong.
    """

    LIMIT = 2
    WINDOW_S = 15 * 60.0
    _RECHECK_S = 0.2

    def __init__(self) -> None:
        self._refused_at: deque[float] = deque(maxlen=self.LIMIT)
        self._under_way = 0
        self.one_at_a_time = False
        """Whether each login waits for the one before, because it may be refused twice."""

    def opens_at(self, now: float) -> float:
        """Return when the next login may start; not later than `now` if it may at once."""
        if self.exhausted(now):
            return self._refused_at[0] + self.WINDOW_S
        if self.is_busy(now):
            return now + self._RECHECK_S
        return now

    def is_busy(self, now: float) -> bool:
        """Return whether another login must wait until those under way have ended."""
        if self.exhausted(now) or not self._under_way:
            return False
        return self.one_at_a_time or self._recent(now) + self._under_way >= self.LIMIT

    def exhausted(self, now: float) -> bool:
        """Return whether refused logins alone forbid another one."""
        return self._recent(now) >= self.LIMIT

    def begin(self) -> None:
        """Note that a login starts; `end` must follow."""
        self._under_way += 1

    def try_again(self, now: float) -> bool:
        """Note a refusal within a login under way; tell whether it may ask IAM once more."""
        if self._recent(now) + 1 + self._under_way > self.LIMIT:
            return False
        self._refused_at.append(now)
        return True

    def end(self, now: float, *, refused: bool) -> None:
        """Note that a login has ended."""
        self._under_way -= 1
        if refused:
            self._refused_at.append(now)

    def _recent(self, now: float) -> int:
        return sum(now < instant + self.WINDOW_S for instant in self._refused_at)
