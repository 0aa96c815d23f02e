"""The time of day as HTTP writes it (RFC 9110 section 5.6.7)."""

from collections.abc import Callable
from email.utils import formatdate


class DateField:
    """Makes the Date of what is answered now; its text is made once a second."""

    __slots__ = ("_line", "_second", "_wall_clock")

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        """`wall_clock` returns seconds since the epoch."""
        self._wall_clock = wall_clock
        self._second = -1
        self._line = b""

    def line(self) -> bytes:
        """Return `Date: …`, without line end."""
        second = int(self._wall_clock())
        if second != self._second:
            self._second = second
            self._line = b"Date: " + formatdate(second, usegmt=True).encode("ascii")
        return self._line
