"""One budget for the bytes that wait in memory, of all clients together, and who ends first.

A normal request never gets here: what waits is counted only when a head is unfinished, a body
arrives, or a client reads more slowly than we write. When enough of that has come, all is added up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.downstream.connection import ClientConnection, Memory
from gateway.errors import ErrorCode, Rejection, UnavailableError
from gateway.http.pieces import size_of
from gateway.observe.memory import Waiting

_SHARE_BETWEEN_LOOKS: Final = 16
"""A sixteenth of the budget may come before all is added up again."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What one client makes us keep in memory. In bytes."""

    heads: int
    """Of a head that is not complete, or of what has arrived behind a request."""
    bodies: int
    """Of a request, on its way to the service."""
    answers: int
    """Written, and not read by the client."""
    heard_at: float
    """When it last sent something, in seconds on the gateway's clock."""

    @property
    def total(self) -> int:
        """Everything."""
        return self.heads + self.bodies + self.answers


def first_to_end(holdings: Sequence[Holding], too_much: int) -> list[int]:
    """Return which clients end so that `too_much` bytes are given back. Pure.

    Whoever holds most is first; of those that hold about as much, the one that is silent longest.
    """
    order = sorted(
        range(len(holdings)),
        key=lambda n: (-holdings[n].total.bit_length(), holdings[n].heard_at),
    )
    ended = []
    for number in order:
        if too_much <= 0 or not holdings[number].total:
            break
        ended.append(number)
        too_much -= holdings[number].total
    return ended


class MemoryBudget(Memory):
    """Keeps what waits below a bound.

    Invariant: not more than `max_bytes` and a sixteenth wait. An eighth is given back at a time, so
    that small new requests find room.
    """

    def __init__(
        self,
        max_bytes: int,
        clients: Callable[[], Sequence[ClientConnection]],
        kept_bytes: Callable[[], int],
    ) -> None:
        """Prepare.

        Args:
            max_bytes: that may wait.
            clients: returns all connections.
            kept_bytes: returns how much is kept of bodies that may be sent again.
        """
        self.max_bytes = max_bytes
        self._clients = clients
        self._kept_bytes = kept_bytes
        self._fresh = 0

    def note(self, size: int) -> None:
        """Note that `size` further bytes may wait; end whoever holds most if that is too much."""
        self._fresh += size
        if self._fresh >= self.max_bytes // _SHARE_BETWEEN_LOOKS:
            self._fresh = 0
            self._look()

    def waiting(self) -> Waiting:
        """Return what waits at this moment."""
        holdings = [holding_of(client) for client in self._clients()]
        return Waiting(
            heads=sum(holding.heads for holding in holdings),
            bodies=sum(holding.bodies for holding in holdings),
            answers=sum(holding.answers for holding in holdings),
            kept=self._kept_bytes(),
            budget=self.max_bytes,
        )

    def _look(self) -> None:
        clients = self._clients()
        holdings = [holding_of(client) for client in clients]
        total = sum(holding.total for holding in holdings) + self._kept_bytes()
        if total <= self.max_bytes:
            return
        for number in first_to_end(holdings, total - self.max_bytes + self.max_bytes // 8):
            _end(clients[number])


def holding_of(client: ClientConnection) -> Holding:
    """Return what a client makes us keep."""
    exchange, request = client.exchange, client.request
    bodies = 0 if request is None else size_of(request.body)
    if exchange is not None and exchange.attempt is not None:
        bodies += exchange.attempt.connection.unsent_bytes
    return Holding(
        heads=client.reader.waiting_bytes,
        bodies=bodies,
        answers=client.stream.unsent_bytes,
        heard_at=client.received_at,
    )


def _end(client: ClientConnection) -> None:
    """End a client: 503 if nothing of a response has left, else a reset."""
    error = UnavailableError(ErrorCode.OVERLOADED, Rejection.MEMORY)
    if client.exchange is not None:
        client.exchange.break_off(error)
    elif client.reader.in_head:
        client.refuse(error)
        client.reader.give_up()
    else:
        client.stream.abort()
