"""What one client makes us keep in memory."""

from dataclasses import dataclass

from gateway.downstream.connection import ClientConnection
from gateway.http.pieces import size_of


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
