"""What a service can take, and what happens to the rest."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from gateway.settings.sections import Fault, Section
from gateway.settings.types import (
    ConnectionCount,
    Count,
    MemorySize,
    PositiveDuration,
    Share,
    split_list,
)

MAX_IN_FLIGHT = 1000
"""The default: so many that only a service that hangs reaches it."""


class Queue(Section):
    """Where requests wait that a service cannot take yet."""

    depth: Count | None = None
    """How many may wait; further ones get 503 `Overloaded` at once. Ten times `max_in_flight` when
    left out; 0 for no queue."""
    wait: PositiveDuration = 1.0
    """How long a request may wait; then 503 `Overloaded`. Choose less than the callers' own
    timeout: a caller that has given up has waited in vain. While the queue has not been empty
    for that long, the newest request goes first, and one that could not be served in time is
    refused."""


class Breaker(Section):
    """When a failing service gets no requests for a while."""

    failures: Count = 0
    """So many failures in a row open it: no connection, no response in time, or 502, 503 and 504
    from before the model, but never an error of the model's own. Then callers get 503
    `ServiceDown` at once. 0 for never."""
    open: PositiveDuration = 10.0
    """For how long; then one request is tried. If that fails too, twice as long, up to a minute."""

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield a pause that nothing begins."""
        if "open" in given and "failures" not in given:
            yield ("failures",), "required with open; such as 5 failures in a row"


class Retry(Section):
    """When a request is sent again that the service has refused."""

    on: Annotated[tuple[Literal["throttled", "unavailable"], ...], BeforeValidator(split_list)] = ()
    """`throttled`: 429 APIG.0308 and ModelArts.4206. `unavailable`: no connection, 502, 503, 504,
    500 ModelArts.4302. Name them only if the service may get a request twice: predictions are
    POST, which nobody else may repeat. Helm's values need quotes around the key: "on"."""
    budget: Share = 0.2
    """At most this share of the requests of the last 10 s, plus 3; each request once."""
    wait: PositiveDuration = 2.0
    """How long to wait before, if the service does not say so by `Retry-After`. No request is sent
    again later than `timeouts.first_byte`."""

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield a budget or a wait that nothing uses."""
        if given and "on" not in given:
            yield ("on",), "required with the other keys; use [throttled], [unavailable] or both"


class Limits(Section):
    """What the whole process takes."""

    connections: ConnectionCount = 4096
    """How many callers may be connected at a time; further ones get 503 `Overloaded`. An idle one
    takes about 6 KiB, over TLS up to 176 KiB. Never more than the limit of open files allows: two
    for each."""
    memory: MemorySize = "auto"
    """Bytes that may wait in memory: unfinished heads, bodies, responses that clients do not read,
    bodies kept to be sent again. Above it, the client that holds most is cut off first, with 503
    `Overloaded` if no response has begun. `auto` follows the memory limit of the container, or
    of the machine."""
