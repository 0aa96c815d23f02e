"""A limit on lines of one kind, so that a flood of them cannot fill the log."""


class LineBudget:
    """Lets `burst` lines through at once and `per_s` in the long run; counts the others."""

    __slots__ = ("_burst", "_left", "_per_s", "_seen_at", "held_back")

    def __init__(self, *, burst: int, per_s: float) -> None:
        self.held_back = 0
        """Lines that were not let through since `told`."""
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._seen_at = float("-inf")

    def take(self, now: float) -> bool:
        """Return whether a line may be written at `now`, in seconds on a monotonic clock."""
        self._left = min(self._burst, self._left + (now - self._seen_at) * self._per_s)
        self._seen_at = now
        if self._left < 1:
            self.held_back += 1
            return False
        self._left -= 1
        return True

    def told(self) -> int:
        """Return `held_back`, and set it to zero."""
        held_back, self.held_back = self.held_back, 0
        return held_back
