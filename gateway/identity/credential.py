"""A credential decorates a request and may expire. Pure: no I/O, no clock; `now` is passed in."""

from enum import Enum


class Credential:
    """Something that is added to every request of a service, and may stop working.

    This one is a token or a key: the same lines for every request. A signature is a subclass. The
    proxy never looks inside: it writes `lines_for` and reports a rejection of this very object.
    """

    __slots__ = ("expires_at", "field_lines", "renewable", "signs", "stale_at", "wall_expires_at")

    def __init__(
        self,
        field_lines: bytes,
        stale_at: float,
        expires_at: float,
        wall_expires_at: float = float("inf"),
        *,
        renewable: bool = True,
    ) -> None:
        """Make a credential; it is not changed afterwards.

        Args:
            field_lines: complete header lines, each ended by CRLF; may be empty.
            stale_at: from here on it is replaced in the background. Seconds on the cache's clock.
            expires_at: from here on nobody may use it. Seconds on the cache's clock, counted from
                the moment of asking, so that network delay shortens a life and never extends it.
                `inf`: never.
            wall_expires_at: the same instant in seconds since the epoch by our wall clock, for
                gauges and people only.
            renewable: another one can be had when a service refuses this one.
        """
        self.field_lines = field_lines
        self.stale_at = stale_at
        self.expires_at = expires_at
        self.wall_expires_at = wall_expires_at
        self.renewable = renewable
        self.signs = False
        """Whether its lines differ from request to request, and depend on the service's clock."""

    @property
    def sends(self) -> bool:
        """Whether anything is added to requests, which a 401 can be about."""
        return bool(self.field_lines)

    def lines_for(  # keywords cost a dict per call
        self,
        method: str,  # noqa: ARG002  # all five are for signatures
        host_line: bytes,  # noqa: ARG002
        path: bytes,  # noqa: ARG002
        query: bytes,  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> bytes:
        """Return the complete header lines for a request, each ended by CRLF; may be empty.

        Args:
            method: of the request.
            host_line: its `Host: …`, without line end.
            path: as sent.
            query: as sent, with its question mark; empty if there is none.
            now: seconds on the gateway's clock.
        """
        return self.field_lines

    def wants_date(self, status: int, now: float) -> bool:  # noqa: ARG002  # for signatures
        """Return whether `note_date` should be told of a response with this status at `now`."""
        return False

    def note_date(self, host_line: bytes, date: float, now: float) -> None:
        """Note the time at a service. Called only for credentials that sign requests.

        Args:
            host_line: of the request.
            date: seconds since the epoch by the response's `Date`.
            now: seconds on the gateway's clock.
        """

    def skew_s(self, measured_s: float | None) -> float | None:
        """Return our wall clock minus the judge's: by default as at the login."""
        return measured_s

    def is_cured(self, now: float) -> bool:  # noqa: ARG002  # for signatures
        """Return whether the reason for a rejection at `now` has been removed by `note_date`."""
        return False


class Freshness(Enum):
    """How a credential may be used."""

    FRESH = "fresh"
    """Use it."""
    STALE = "stale"
    """Use it, and replace it in the background."""
    EXPIRED = "expired"
    """Nobody may use it."""


def freshness(credential: Credential | None, now: float) -> Freshness:
    """Classify `credential` at `now`, in seconds of the clock its instants were taken from."""
    if credential is None or now >= credential.expires_at:
        return Freshness.EXPIRED
    if now >= credential.stale_at:
        return Freshness.STALE
    return Freshness.FRESH
