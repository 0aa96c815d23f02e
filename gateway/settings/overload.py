"""What a service can take, and what happens to the rest."""

from gateway.settings.sections import Section
from gateway.settings.types import Count, PositiveDuration

MAX_IN_FLIGHT = 1000
"""Where nobody sets a limit: enough that only a service that hangs reaches it."""


class Queue(Section):
    """Where requests wait that a service cannot take yet."""

    depth: Count | None = None
    """How many may wait; further ones get 503 `Overloaded` at once. Ten times `max_in_flight` when
    left out; 0 for no queue."""
    wait: PositiveDuration = 1.0
    """How long a request may wait; then 503 `Overloaded`. Below the callers' patience: whoever has
    given up is not served, but has waited in vain. While the queue has not been empty for that
    long, the newest request goes first, and one that could not be served in time is refused."""
