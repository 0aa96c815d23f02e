"""A credential decorates a request and may expire. Pure: no I/O, no clock; `now` is passed in."""

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True, eq=False)
class Credential:
    """Something that is added to every request of a service, and may stop working.

    Today it is a token; a signature or an application code would have the same shape. The proxy
    never looks inside: it writes `field_lines` and reports a rejection of this very object.
    """

    field_lines: bytes = field(repr=False)
    """Complete header lines, each ended by CRLF, ready to be written upstream; may be empty."""
    stale_at: float
    """From here on it is replaced in the background. Seconds on the cache's clock."""
    expires_at: float
    """From here on nobody may use it. Seconds on the cache's clock, counted from the moment of
    asking, so that network delay shortens a life and never extends it. `inf`: never expires."""
    wall_expires_at: float = float("inf")
    """The same instant in seconds since the epoch by our wall clock, for gauges and people only."""
    renewable: bool = True
    """Whether another one can be had when a service refuses this one."""


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
