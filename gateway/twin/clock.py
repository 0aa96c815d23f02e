"""The twin's clocks, passed in so that a test can skip hours. Owns no state."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """Two clocks: the time of day that the cloud reports, and a monotonic one."""

    wall: Callable[[], datetime] = _utc_now
    """Aware UTC time; for `Date`, `issued_at` and `expires_at`. May be wrong on purpose."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds; decides when tokens die and lock-outs end."""
