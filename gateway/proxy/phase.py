"""Where an exchange is."""

from enum import Enum, auto
from typing import Final


class Phase(Enum):
    """Where an exchange is."""

    ADMITTING = auto()
    QUEUED = auto()
    """It waits for its turn, since its service is busy or has a limit."""
    WAITING = auto()
    """For a credential or a connection."""
    SENDING = auto()
    """The request is on its way, and no response has begun."""
    RELAYING = auto()
    TUNNEL = auto()
    """Bytes of another protocol are passed both ways as they come."""
    ENDED = auto()
    """Answered, aborted or abandoned, and accounted for; nothing leads out of it."""


# Looking a member up costs ten times the comparison that it is for (Python 3.11).
ADMITTING: Final = Phase.ADMITTING
QUEUED: Final = Phase.QUEUED
WAITING: Final = Phase.WAITING
SENDING: Final = Phase.SENDING
RELAYING: Final = Phase.RELAYING
TUNNEL: Final = Phase.TUNNEL
ENDED: Final = Phase.ENDED
