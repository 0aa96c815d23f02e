"""The data listener: aiohttp's low-level server, with connections of our own."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from aiohttp import web

from gateway.clock import processor_time
from gateway.downstream.client_names import ClientNames
from gateway.downstream.client_stream import FOR_EXCHANGE
from gateway.downstream.connection import (
    CROWD,
    IDLE_TIMEOUT_S,
    LINGER_S,
    ClientConnection,
)
from gateway.downstream.memory_budget import MemoryBudget, no_excess
from gateway.downstream.reading_turns import ReadingTurns
from gateway.errors import ErrorCode, Rejection, UnavailableError
from gateway.proxy.context import ExchangeContext
from gateway.proxy.phase import QUEUED

GRACE_S = 1.0
"""At the end: how long who has just been answered, or has just connected, may still send a request.
It is served, for the client could not know."""
PATIENCE_S = 0.2
"""When there are too many: how long a client may stop in the middle of a request."""
HELD_PATIENCE_S = 0.5
"""The same, if it waits for its turn or for memory."""
_ENDED_TOGETHER = 8
"""For a newcomer, so that the turn of the loop in which many come stays short."""
_LOOKED_AT_AGAIN = 256
"""Of those that had stopped, 1 µs each: by their turn, most may have gone, or gone on."""
_BETWEEN_LOOKS_S = 0.1
_SHARE_KEPT_BACK = 16
"""Of the connections."""
REFUSED_POLITELY = 16
"""Connections that may be told so at a time; an answer takes up to 2 s to arrive for sure."""


class DataListener(web.Server):
    """Makes and knows the clients' connections; no router, application, or error pages."""

    def __init__(
        self,
        context: ExchangeContext,
        *,
        max_connections: int = 10_000,
        max_memory: int = 256 * 2**20,
        excess: Callable[[], int] = no_excess,
        worked_s: Callable[[], float] = processor_time,
    ) -> None:
        """Prepare to serve.

        Args:
            context: what all exchanges share.
            max_connections: a further client gets 503.
            max_memory: bytes that may wait.
            excess: returns how many bytes the process has in memory that it should not have.
            worked_s: returns for how many seconds this thread has worked.
        """
        super().__init__(_unused)
        self.context = context
        self.memory = MemoryBudget(
            max_memory, self.clients, lambda: context.replay_budget.kept_bytes, excess
        )
        self.turns = ReadingTurns(worked_s, self.memory)
        self.draining = False
        """Set when the gateway is on its way out: answers are the last on their connections."""
        self.closed = False
        """Set when that has been announced for long enough: no request is begun any more."""
        self.clients_by_name: ClientNames | None = None
        """Who may call, by client certificate; None: no certificate is asked for."""
        self._max_connections = max_connections
        self._count = 0
        self._ended: set[ClientConnection] = set()  # no longer counted, and not gone yet
        self._stuck: deque[ClientConnection] = deque()  # in the middle of a request, lately
        self._look_again_at = 0.0
        self._lost = asyncio.Event()

    def __call__(self) -> web.RequestHandler:
        """Make the protocol of a new connection; it need not be one of aiohttp's."""
        return cast(web.RequestHandler, ClientConnection(self))

    def clients(self) -> list[ClientConnection]:
        """Return the open connections."""
        return cast(list[ClientConnection], self.connections)

    @property
    def crowded(self) -> bool:
        """Whether a further connection has to make do with less memory."""
        return self._count > CROWD

    @property
    def full(self) -> bool:
        """Whether there are more connections than are served, the newest among them."""
        return self._count > self._max_connections

    def room(self) -> int:
        """Return how many more there is room for before the last places, for small requests."""
        return self._max_connections - self._max_connections // _SHARE_KEPT_BACK - self._count

    def turned_away(self) -> None:
        """Count a client that is closed without an answer, since there are too many."""
        self.context.observer.unrouted.count_rejection(Rejection.CONNECTIONS)

    def make_room(self) -> None:
        """End clients that have stopped in the middle of a request, those first that did it first.

        Those that have been answered, and only linger, end as well.

        All are looked at, so this is not done more often than ten times a second.
        """
        now = self.context.clock()
        if not self._stuck and now >= self._look_again_at:
            self._look_again_at = now + _BETWEEN_LOOKS_S
            clients = [client for client in self.clients() if client not in self._ended]
            stuck = [c for c in clients if is_stuck(c, now) or has_lingered(c, now)]
            self._stuck.extend(sorted(stuck, key=lambda client: client.received_at))
        count = self._count
        for _ in range(min(_LOOKED_AT_AGAIN, len(self._stuck))):
            if not self.full or count - self._count == _ENDED_TOGETHER:
                break
            self._end_if_stuck(self._stuck.popleft(), now)

    def _end_if_stuck(self, client: ClientConnection, now: float) -> None:
        if client in self._ended or not client.stream.is_open():
            return
        has_been_told = has_lingered(client, now)
        if not (has_been_told or is_stuck(client, now)):
            return
        self._ended.add(client)
        self._count -= 1
        if has_been_told:
            client.stream.abort()
            return
        error = UnavailableError(ErrorCode.OVERLOADED, Rejection.CONNECTIONS)
        if client.exchange is None:
            client.refuse(error)
        else:
            client.exchange.break_off(error)
        client.stream.abort()  # it may never read

    @property
    def flooded(self) -> bool:
        """Whether there are so many that not even a 503 can be sent."""
        return self._count > self._max_connections + REFUSED_POLITELY

    def bars(self, transport: asyncio.Transport) -> bool:
        """Return whether the client's certificate is not one of those that may call."""
        names = self.clients_by_name
        return names is not None and not names.admit(transport.get_extra_info("peercert"))

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection; with one more than a few, those before it have turns, too."""
        self._count += 1
        if self._count == CROWD + 1:
            for client in self.clients():
                client.stream.turns = self.turns
        super().connection_made(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Count one less."""
        client = cast(ClientConnection, handler)
        if client in self._ended:
            self._ended.remove(client)
        else:
            self._count -= 1
        super().connection_lost(handler, exc)
        self._lost.set()

    def announce_end(self) -> None:
        """Make every response from now on the last on its connection, of requests in flight too."""
        self.draining = True
        for client in self.clients():
            if client.request is not None:
                client.request.head.keep_alive = False

    async def drain(self, timeout_s: float, *, shakes_hands: bool = False) -> bool:
        """Close each connection after its response; accept no new connections.

        Args:
            timeout_s: how long that may take; then the remaining connections are cut off.
            shakes_hands: connections may still be in their TLS handshake.

        Returns:
            Whether all connections were closed in time.
        """
        self.announce_end()
        self._lost = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await self._last_requests(shakes_hands=shakes_hands)
                self.closed = True
                for client in self.clients():
                    end_when_answered(client)
                await self._until(lambda: not self.connections)
        except TimeoutError:
            self.closed = True
            for client in self.clients():
                client.stream.abort()
            return False
        return True

    async def _last_requests(self, *, shakes_hands: bool) -> None:
        """Give those a chance who may have sent a request before they could learn of the end."""
        clients = self.clients()
        for client in clients:
            if not client.busy and not client.expects_request(GRACE_S):
                end_when_answered(client)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._until(
                    lambda: (
                        not shakes_hands
                        and not any(client.expects_request(GRACE_S) for client in self.clients())
                    )
                )

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so that changes when a connection is lost."""
        while not is_so():
            self._lost.clear()
            await self._lost.wait()


def is_stuck(client: ClientConnection, now: float) -> bool:
    """Return whether a client has stopped in the middle of a request, and no service holds it up.

    If it is us who do not read from it, it may be about to go on: it has more time.
    """
    held_by = client.stream.held_by
    patience_s = HELD_PATIENCE_S if held_by else PATIENCE_S
    if not client.received_at:  # nothing has been read yet of what it has sent
        return bool(held_by) and now - (client.deadline() - IDLE_TIMEOUT_S) > patience_s
    if now - client.received_at <= patience_s or held_by & FOR_EXCHANGE:
        return False
    if client.request is None:
        return client.reader.in_head() and not client.busy  # else it has had its answer
    return not client.request.ended


def has_lingered(client: ClientConnection, now: float) -> bool:
    """Return whether a client has had its last response for a while, and is read no more."""
    is_lingering = client.exchange is None and client.busy
    return is_lingering and client.deadline() - now < LINGER_S - PATIENCE_S


def end_when_answered(client: ClientConnection) -> None:
    """End a connection, or leave it to the request that is being answered.

    Who waits for a place is told to go elsewhere. An upload on its way has been accepted:
    it is served in the time that the drain has.
    """
    error = UnavailableError(ErrorCode.DRAINING, Rejection.DRAINING)
    if client.exchange is not None:
        has_arrived = client.request is not None and client.request.ended
        if client.exchange.phase is QUEUED and has_arrived:
            client.exchange.break_off(error)
    elif client.expects_request(0.0) and client.reader.in_head():
        client.refuse(error)
    elif not client.busy:
        client.stream.close()


async def _unused(request: web.BaseRequest) -> web.StreamResponse:
    """Stand where aiohttp wants a handler: connections begin exchanges themselves."""
    raise NotImplementedError(request)
