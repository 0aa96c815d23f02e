"""When a rejected token calls for a login. Pure: no I/O, no clock; `now` is passed in."""


class RejectionGuard:
    """Decides whether a rejected token causes a login: a new token does not cure every rejection.

    Invariants: after a login that cured nothing, no other for 30 s, growing to 10 min; after
    ones that did cure, four in a row at once, then 1 s apart, growing to 10 min. Ten quiet
    minutes after a pause are a new beginning. The one exception: what replaced a rejected token
    and is rejected within 2 s may have been born dead, and is replaced once more, 1.1 s after it
    came. Revocations have a resolution of a second: one that came right before takes it along.
    """

    _BARREN_FIRST_S, _CURED_FIRST_S, _MOST_S, _FORGET_S = 30.0, 1.0, 600.0, 600.0
    _FREE = 4
    _YOUNG_S, _NEXT_SECOND_S = 2.0, 1.1

    def __init__(self) -> None:
        self._logins = 0
        self._barren = 0
        self._last_at = float("-inf")
        self._opens_at = float("-inf")
        self._came_at = float("-inf")

    def token_came(self, now: float) -> None:
        """Note that a login has brought a token."""
        self._came_at = now

    def delay_s(self, now: float) -> float | None:
        """Return in how many seconds a rejection at `now` may cause a login, if it may soon.

        That is at once, or, if the token may have been born dead, in the next second.
        """
        if self.open(now):
            return 0.0
        if self._barren == 1 and now < self._came_at + self._YOUNG_S:
            return max(0.0, self._came_at + self._NEXT_SECOND_S - now)
        return None

    def pause_s(self, now: float) -> float:
        """Return for how many seconds rejections cause no login; 0 if they do."""
        return max(0.0, self._opens_at - now)

    def has_given_up(self, now: float) -> bool:
        """Return whether a login at `now` would be useless, because the last one cured nothing."""
        return self._barren > 0 and not self.open(now)

    def open(self, now: float) -> bool:
        """Return whether a rejection at `now` may cause a login."""
        return now >= self._opens_at

    def login_caused(self, now: float) -> None:
        """Note that a rejection causes a login; until `cured` it counts as barren."""
        if now >= self._opens_at + self._FORGET_S:
            self._logins = self._barren = 0
        self._logins += 1
        self._barren += 1
        self._last_at = now
        pause_s = self._BARREN_FIRST_S * 2.0 ** min(self._barren - 1, 16)
        self._opens_at = now + min(pause_s, self._MOST_S)

    def cured(self) -> None:
        """Note that the token of the last such login is accepted where the one before was not."""
        self._barren = 0
        excess = self._logins - self._FREE
        pause_s = self._CURED_FIRST_S * 2.0 ** min(excess, 16) if excess >= 0 else 0.0
        self._opens_at = self._last_at + min(pause_s, self._MOST_S)
