"""One budget for the bytes that wait in memory, of all clients together, and who ends first.

A normal request never gets here: what waits is counted only when a head is unfinished, a body
arrives, or a client reads more slowly than we write. When enough of that has come, all is added up.
From three quarters of the budget on, clients that hold much are not read for a while; the last
quarter is for new small requests.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.downstream.client_stream import FOR_MEMORY
from gateway.downstream.connection import ClientConnection
from gateway.downstream.interfaces import Memory
from gateway.errors import ErrorCode, Rejection, UnavailableError
from gateway.http.pieces import size_of
from gateway.observe.memory import Waiting

_SHARE_BETWEEN_LOOKS: Final = 16
"""A sixteenth of the budget may come in any case before all is added up again."""


_NEAR: Final = 3 / 4
"""Of the budget: from here on, those that hold much are not read."""
_MUCH_BYTES: Final = 16 * 1024
"""A client that holds less is read in any case."""
_PAUSE_S: Final = 0.05
"""For how long nothing is read from those; meanwhile others make progress."""
_TURN_S: Final = 0.001
"""More than a turn of the loop: then what was ended is freed, and what was written has left."""


def no_excess() -> int:
    """Return that there is no excess: the memory of the process has no bound."""
    return 0


@dataclass(frozen=True, slots=True)
class Holding:
    """What one client makes us keep in memory. In bytes."""

    heads: int
    """Of a head that is not complete, or of what has arrived behind a request."""
    bodies: int
    """Of a request, on its way to the service."""
    answers: int
    """Written and not read by the client, held back, or not finished by the service."""
    heard_at: float
    """When it last sent something, in seconds on the gateway's clock."""

    @property
    def total(self) -> int:
        """Everything."""
        return self.heads + self.bodies + self.answers


def first_to_end(holdings: Sequence[Holding], too_much: int) -> list[int]:
    """Return which clients end so that `too_much` bytes are given back. Pure.

    The client that holds most is first; of those that hold about as much, the one that has been
    silent longest.
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


def allowed_bytes(max_bytes: int, total: int, excess: int) -> int:
    """Return how much may wait. Pure.

    Less than the budget while the process has more in memory than it should: what waits takes up
    to twice its size. A quarter of the budget is always allowed.

    Args:
        max_bytes: the budget.
        total: what waits.
        excess: what the process has too much.
    """
    if excess <= 0:
        return max_bytes
    return max(max_bytes // 4, min(max_bytes, total - excess // 2))


class MemoryBudget(Memory):
    """Keeps what waits below a bound, and the process's memory with it.

    Invariant: not more than `max_bytes` and a sixteenth wait. An eighth is given back at a time, so
    that small new requests find room.
    """

    def __init__(
        self,
        max_bytes: int,
        clients: Callable[[], Sequence[ClientConnection]],
        kept_bytes: Callable[[], int],
        excess: Callable[[], int] = no_excess,
    ) -> None:
        """Prepare.

        Args:
            max_bytes: that may wait.
            clients: returns all connections.
            kept_bytes: returns how much is kept of bodies that may be sent again.
            excess: returns how many bytes the process has in memory that it should not have.
        """
        self.max_bytes = max_bytes
        self._clients = clients
        self._kept_bytes = kept_bytes
        self._excess = excess
        self._fresh = 0
        self._look_after = max_bytes // _SHARE_BETWEEN_LOOKS  # so many fresh bytes
        self._is_stopped = False  # whether nothing is read from anybody

    def note(self, size: int) -> None:
        """Note that `size` further bytes may wait; end the largest holder if that is too much."""
        self._fresh += size
        if self._fresh >= self._look_after:
            self._fresh = 0
            self._look()

    def waiting(self) -> Waiting:
        """Return what waits at this moment."""
        _, holdings = self._holders()
        return Waiting(
            heads=sum(holding.heads for holding in holdings),
            bodies=sum(holding.bodies for holding in holdings),
            answers=sum(holding.answers for holding in holdings),
            kept=self._kept_bytes(),
            budget=self.max_bytes,
        )

    def _holders(self) -> tuple[list[ClientConnection], list[Holding]]:
        """Return the clients that make us keep something, and what it is."""
        clients = [client for client in self._clients() if held_bytes(client)]
        return clients, [holding_of(client) for client in clients]

    def _look(self) -> None:
        held = {client: held_bytes(client) for client in self._clients()}
        total = sum(held.values()) + self._kept_bytes()
        allowed = allowed_bytes(self.max_bytes, total, self._excess())
        if total > allowed:
            clients, holdings = self._holders()
            for number in first_to_end(holdings, total - allowed + self.max_bytes // 8):
                _end(clients[number])
        # No more can wait than did, and what comes: till then nobody needs to look.
        least = self.max_bytes // _SHARE_BETWEEN_LOOKS
        self._look_after = max(least, int(allowed * _NEAR) - total)
        if total > allowed * _NEAR:
            self._stop_reading(client for client, size in held.items() if size > _MUCH_BYTES)

    def _stop_reading(self, holders: Iterable[ClientConnection]) -> None:
        """Read nothing until what was written has left, and from `holders` for a while.

        What has been read in a turn of the loop stays in memory until its end, even of those that
        were ended. So the loop could read megabytes more from all that are ready.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        held = frozenset(holders)
        stopped = [_Stopped(client) for client in self._clients()]
        loop = asyncio.get_running_loop()
        loop.call_later(_TURN_S, self._go_on, [one for one in stopped if one.client not in held])
        loop.call_later(_PAUSE_S, _read_from, [one for one in stopped if one.client in held])

    def _go_on(self, stopped: Iterable["_Stopped"]) -> None:
        self._is_stopped = False
        _read_from(stopped)


def held_bytes(client: ClientConnection) -> int:
    """Return how much a client makes us keep, which is what `holding_of` adds up to."""
    size = _unread_bytes(client) + client.stream.unsent_bytes
    request, exchange = client.request, client.exchange
    if request is not None and request.body:
        size += size_of(request.body)
    if exchange is not None and exchange.attempt is not None:
        attempt = exchange.attempt
        connection = attempt.connection
        size += connection.unsent_bytes + connection.unread_bytes + size_of(attempt.held)
    return size


def _unread_bytes(client: ClientConnection) -> int:
    waiting = 0 if client.turns is None else client.turns.waiting_bytes(client.stream)
    return client.reader.waiting_bytes + waiting


def holding_of(client: ClientConnection) -> Holding:
    """Return what a client makes us keep."""
    exchange, request = client.exchange, client.request
    bodies = 0 if request is None else size_of(request.body)
    answers = client.stream.unsent_bytes
    if exchange is not None and exchange.attempt is not None:
        bodies += exchange.attempt.connection.unsent_bytes
        answers += exchange.attempt.connection.unread_bytes + size_of(exchange.attempt.held)
    return Holding(
        heads=_unread_bytes(client),
        bodies=bodies,
        answers=answers,
        heard_at=client.received_at,
    )


def _end(client: ClientConnection) -> None:
    """End a client: 503 if nothing of a response has left, else a reset."""
    error = UnavailableError(ErrorCode.OVERLOADED, Rejection.MEMORY)
    if client.turns is not None:
        client.turns.forget(client.stream)
    if client.exchange is not None:
        client.exchange.break_off(error)
        client.reader.forget()
    elif client.reader.in_head:
        client.refuse(error)
        client.reader.forget()
    else:
        client.stream.abort()


class _Stopped:
    """A client that is not read, and the connection that was its own then, which is not either."""

    __slots__ = ("_connection", "client")

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        attempt = None if client.exchange is None else client.exchange.attempt
        self._connection = None if attempt is None else attempt.connection
        client.stream.hold(FOR_MEMORY)
        if self._connection is not None:
            self._connection.pause_reading()

    def go_on(self) -> None:
        """Read from both again; the connection may be another exchange's by now, or nobody's."""
        client, connection = self.client, self._connection
        client.stream.release(FOR_MEMORY)
        if connection is None:
            return
        attempt = None if client.exchange is None else client.exchange.attempt
        is_own = attempt is not None and attempt.connection is connection
        if not (is_own and client.stream.writing_paused):
            connection.resume_reading()


def _read_from(stopped: Iterable[_Stopped]) -> None:
    for one in stopped:
        one.go_on()
