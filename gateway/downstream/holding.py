"""What a client makes us keep in memory, and what all do together."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.downstream.connection import ClientConnection
from gateway.http.pieces import size_of

LOOKED_AT_TOGETHER: Final = 512
"""Clients whose bytes are added up in one turn of the loop, 2 to 4 µs each."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What one client makes us keep in memory. In bytes."""

    heads: int
    """Of a head that is not complete, or of what has arrived behind a request."""
    bodies: int
    """Of a request, on its way to the service."""
    answers: int
    """Written and not read by the client, held back, or not finished by the service."""


def held_bytes(client: ClientConnection) -> int:
    """Return how much a client makes us keep, which is what `holding_of` adds up to."""
    stream, request, exchange = client.stream, client.request, client.exchange
    size = client.reader.waiting_bytes + stream.waiting_bytes
    if stream.transport is not None:
        size += stream.transport.get_write_buffer_size()
    if request is not None and request.body:
        size += size_of(request.body)
    if exchange is not None and exchange.attempt is not None:
        attempt = exchange.attempt
        connection = attempt.connection
        size += connection.unsent_bytes + connection.unread_bytes + size_of(attempt.held)
    return size


def holding_of(client: ClientConnection) -> Holding:
    """Return what a client makes us keep."""
    exchange, request = client.exchange, client.request
    bodies = 0 if request is None else size_of(request.body)
    answers = client.stream.unsent_bytes
    if exchange is not None and exchange.attempt is not None:
        bodies += exchange.attempt.connection.unsent_bytes
        answers += exchange.attempt.connection.unread_bytes + size_of(exchange.attempt.held)
    return Holding(
        heads=client.reader.waiting_bytes + client.stream.waiting_bytes,
        bodies=bodies,
        answers=answers,
    )


def sum_of_holdings(clients: Sequence[ClientConnection]) -> Generator[int, None, Holding]:
    """Return what clients make us keep, all together.

    Yields:
        0, after every `LOOKED_AT_TOGETHER` clients: others may run now.
    """
    heads = bodies = answers = 0
    for number, client in enumerate(clients):
        if number and number % LOOKED_AT_TOGETHER == 0:
            yield 0
        holding = holding_of(client)
        heads += holding.heads
        bodies += holding.bodies
        answers += holding.answers
    return Holding(heads, bodies, answers)
