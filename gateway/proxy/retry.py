"""Whether, and when, a request that the service has refused may be sent to it again.

Pure: no I/O, no clock; the caller passes `now` in seconds. Only for what the operator has named:
a prediction is a POST, and nobody else knows whether it may be repeated.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from gateway.errors import ErrorCode
from gateway.proxy.outcome import UNAVAILABLE_STATUSES, is_throttled, protects_itself
from gateway.proxy.replay import Retry

THROTTLED: Final = Retry.THROTTLED
UNAVAILABLE: Final = Retry.UNAVAILABLE

PAUSED: Final = frozenset({THROTTLED, UNAVAILABLE})
"""Reasons that apply after a pause, once per request."""
RETRIED_STATUSES: Final = UNAVAILABLE_STATUSES | {429, 500}
"""A response with another status is passed on at once."""
_UNREACHED: Final = frozenset(
    {
        ErrorCode.DNS_ERROR,
        ErrorCode.CONNECTION_REFUSED,
        ErrorCode.CONNECTION_TIMEOUT,
        ErrorCode.CONNECTION_TERMINATED,
        ErrorCode.HTTP_RESPONSE_INCOMPLETE,
    }
)
"""502 and 504 of ours that another attempt may not meet."""
_WINDOW_S: Final = 10.0
_SLICE_S: Final = 0.5
_ALWAYS: Final = 3
"""Retries that are allowed whatever the share says, or rare requests would never be repeated."""
_JITTER: Final = 0.2


def reason_for_response(status: int, vendor_code: str) -> Retry | None:
    """Return why a response would justify another attempt, if it would."""
    if is_throttled(status, vendor_code):
        return THROTTLED
    if status in UNAVAILABLE_STATUSES or protects_itself(status, vendor_code):
        return UNAVAILABLE
    return None


def reason_for_error(code: ErrorCode) -> Retry | None:
    """Return why an error of ours would justify another attempt, if it would."""
    return UNAVAILABLE if code in _UNREACHED else None


def retry_after_in(lines: Sequence[bytes]) -> float | None:
    """Return the seconds in a response's `Retry-After`; None: there is none, or it is a date."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"retry-after" and value.strip().isdigit() and len(value) <= 10:
            return float(value)
    return None


def pause_before(asked_s: float | None, wait_s: float, draw: float) -> float:
    """Return how long to wait before the next attempt, in seconds.

    Args:
        asked_s: what the service has asked for; never less than that.
        wait_s: what is configured, if it has asked for nothing.
        draw: a random number from 0 to 1, which spreads the attempts by a fifth.
    """
    if asked_s is not None:
        return asked_s * (1.0 + _JITTER * draw)
    return wait_s * (1.0 - _JITTER + 2.0 * _JITTER * draw)


class RetryBudget:
    """How many requests may be sent again, as a share of those of the last 10 s.

    Invariant: at any retry, there were no more of them in the last 10 s, itself included, than the
    share of the requests of these 10 s, plus 3. Requests are counted in slices; one that is partly
    older does not count.
    """

    __slots__ = ("_requests", "_retries", "_share")

    def __init__(self, share: float) -> None:
        """Begin with nothing seen; `share` is 0 to 1."""
        self._share = share
        self._requests: deque[tuple[float, int]] = deque()  # begin of a slice, how many
        self._retries: deque[float] = deque()

    def note_request(self, now: float) -> None:
        """Count a request that was admitted."""
        if self._requests and now < self._requests[-1][0] + _SLICE_S:
            begun_at, count = self._requests[-1]
            self._requests[-1] = (begun_at, count + 1)
        else:
            self._forget(now)
            self._requests.append((now, 1))

    def take(self, now: float) -> bool:
        """Return whether one more retry is allowed, and count it if so."""
        self._forget(now)
        requests = sum(count for _, count in self._requests)
        if len(self._retries) + 1 > self._share * requests + _ALWAYS:
            return False
        self._retries.append(now)
        return True

    def _forget(self, now: float) -> None:
        since = now - _WINDOW_S
        while self._requests and self._requests[0][0] < since:
            self._requests.popleft()
        while self._retries and self._retries[0] < since:
            self._retries.popleft()
