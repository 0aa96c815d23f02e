"""A request as it comes in, and the way back to its caller: the seam between serve/ and proxy/."""

from dataclasses import dataclass
from typing import Protocol

from gateway.http.fields import RawFields


class RequestBody(Protocol):
    """The part of a request's body that has not arrived yet."""

    async def read(self) -> bytes:
        """Return the next piece, or nothing at the end of a complete body.

        Raises:
            DownstreamError: the body is malformed, or its sender has left.

        Cancellation: safe; nothing is lost.
        """
        ...


class Downstream(Protocol):
    """The way back to one caller. Nothing here waits or fails: a caller that left is cancelled."""

    @property
    def writing_paused(self) -> bool:
        """Whether the caller reads more slowly than we write."""
        ...

    def write(self, pieces: list[bytes]) -> None:
        """Send pieces in order, in as few segments as possible."""
        ...

    def abort(self) -> None:
        """Break the connection so that an answer under way cannot pass for complete."""
        ...


@dataclass(slots=True)
class Inbound:
    """A request's head and what has arrived of its body.

    Immutable by convention: a frozen dataclass costs a microsecond more.
    """

    method: str
    target: bytes
    version: tuple[int, int]
    fields: RawFields
    body: bytes
    """What has arrived already."""
    rest: RequestBody | None
    """What has not; None when `body` is all."""
    keep_alive: bool
    """The caller wants to use its connection again, and may."""
    received_at: float
    """When the end of the head arrived. Seconds on the proxy's clock."""
