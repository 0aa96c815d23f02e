"""A stage for whole exchanges in memory: the engine between a client and a service made of bytes.

The only module of the scenarios that imports the gateway's own. Everything but sockets happens as
in production: parsing, admission, credential, forwarding, relaying, metrics and the access log.
Time stands still until a test moves it (see `VirtualLoop`).
"""

import asyncio
import json
import tempfile
from collections.abc import Callable
from typing import Any, cast

from gateway.downstream.client_stream import LOOK_S
from gateway.downstream.connection import HEAD_TIMEOUT_S, IDLE_TIMEOUT_S, LINGER_S
from gateway.downstream.listener import GRACE_S, DataListener
from gateway.errors import CredentialError, ErrorCode, UpstreamError
from gateway.http.date import DateField
from gateway.http.host import AllowedHosts
from gateway.http.request_head import METHODS
from gateway.identity.credential import Credential
from gateway.observe.access_log import AccessLog
from gateway.observe.exposition import returned_by
from gateway.observe.memory import Waiting
from gateway.observe.metrics import NO_SERVICE, Metrics
from gateway.observe.overload import OverloadGauges
from gateway.observe.service_metrics import ServiceGauges, ServiceMetrics
from gateway.observe.streams import UsageCounts
from gateway.proxy.accounting import Observer
from gateway.proxy.admission import Rules
from gateway.proxy.context import ExchangeContext
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.gate import Gate, Limits
from gateway.proxy.replay import MAX_KEPT_BYTES, ReplayBudget, Retry
from gateway.proxy.service import RouteTable, Service
from gateway.upstream.connection import Connection
from gateway.upstream.pool import Pool
from tests.support.gateway import FakeCredentials
from tests.support.memory_transport import Client, Fate, MemoryTransport, ServiceEnd
from tests.support.virtual_loop import EPOCH, VirtualLoop

__all__ = [
    "BODY_PAUSE_S",
    "FIRST_BYTE_S",
    "FIRST_CHUNK_S",
    "GRACE_S",
    "HEAD_S",
    "HOLD_S",
    "KEEP_ALIVE_S",
    "LINGER_S",
    "LOOK_S",
    "Client",
    "Fate",
    "OpenStage",
    "ServiceEnd",
    "Stage",
]

HEAD_S = HEAD_TIMEOUT_S
"""In which a request's head must have arrived."""
KEEP_ALIVE_S = IDLE_TIMEOUT_S
"""After which a client connection without a request is closed."""
FIRST_BYTE_S = 40.0
"""In which the service must begin its response."""
FIRST_CHUNK_S = 50.0
"""In which the body of its response must begin."""
BODY_PAUSE_S = 60.0
"""How long a body may pause, either way."""
HOLD_S = 1.0
"""How long a possible rejection is held back at most."""

_START_S = 1000.0
_TURNS = 20
"""More turns of the loop than any chain of ready callbacks in the engine."""

OpenStage = Callable[..., "Stage"]
"""Builds a stage with the options of `Stage`; its end is checked after the test."""


class Clock:
    """The time on stage, in seconds. It is the event loop's own, so timers are due by it too."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        loop.virtual_s = _START_S

    def now(self) -> float:
        """Return the present instant."""
        return self._loop.virtual_s

    def advance(self, seconds: float) -> None:
        """Move on. Timers that are due then run on the next turn of the loop."""
        self._loop.virtual_s += seconds


class MemoryCredentials(FakeCredentials):
    """Credentials that are at hand, waited for, or cannot be had, as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.is_anonymous = False
        self._bug: Exception | None = None

    def are_awaited(self) -> None:
        """Have none at hand until `arrive`."""
        self.at_hand = False
        self.gate.clear()

    def arrive(self) -> None:
        """Give one to everyone who waits, and have it at hand again."""
        self.at_hand = True
        self.gate.set()

    def cannot_be_had(self, code: str, *, retry_after_s: float) -> None:
        """Fail all who wait, or come later, with an error of this name."""
        self.at_hand = False
        self.failure = CredentialError(ErrorCode[code], retry_after_s=retry_after_s)
        self.gate.set()

    def have_a_bug(self, *, when_awaited: bool) -> None:
        """Raise what no caller of theirs expects."""
        if when_awaited:
            self.at_hand, self.failure = False, RuntimeError("a bug")
        else:
            self._bug = RuntimeError("a bug")

    def usable(self, now: float) -> Credential | None:
        if self._bug is not None:
            raise self._bug
        if self.is_anonymous:
            return Credential(b"", stale_at=float("inf"), expires_at=float("inf"))
        return super().usable(now)


class MemoryPool(Pool):
    """Stands where `Pool` does, and opens connections in memory.

    It notes it as a fault when a connection is given back that nobody has.
    """

    def __init__(self, clock: Clock) -> None:
        self.active = 0
        self.ends: list[ServiceEnd] = []
        """The service's ends of all connections so far, in the order in which they were opened."""
        self.faults: list[str] = []
        self.failure: UpstreamError | None = None
        self._time = clock
        self._gate = asyncio.Event()
        self._gate.set()
        self._kept: list[Connection] = []
        self._taken: set[Connection] = set()

    # What a test does.

    def offers_one(self) -> None:
        """Have one more new connection at hand."""
        self._kept.append(self._new_connection())

    def makes_wait(self) -> None:
        """Let all who open a connection wait until `opens`."""
        self._gate.clear()

    def opens(self) -> None:
        """Let all who wait have a connection."""
        self._gate.set()

    def fails(self, code: str) -> None:
        """Fail all who wait, or come later, with an error of this name."""
        self.failure = UpstreamError(ErrorCode[code], replayable=True)
        self._gate.set()

    # What the engine does (`Pool`).

    @property
    def idle(self) -> int:
        return sum(connection.reusable for connection in self._kept)

    def take(self, now: float) -> Connection | None:  # noqa: ARG002  # none is ever too old here
        while self._kept:
            connection = self._kept.pop()
            if connection.reusable:
                return self._hand_out(connection)
            connection.close()
        return None

    async def connect(self) -> Connection:
        self.active += 1
        try:
            await self._gate.wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.active -= 1
        return self._hand_out(self._new_connection())

    def give_back(self, connection: Connection, now: float) -> None:  # noqa: ARG002  # as `take`
        if connection not in self._taken:
            self.faults.append("a connection was given back that nobody had")
            return
        self._taken.remove(connection)
        self.active -= 1
        if connection.reusable:
            self._kept.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        while self._kept:
            self._kept.pop().close()

    def _hand_out(self, connection: Connection) -> Connection:
        self.active += 1
        self._taken.add(connection)
        return connection

    def _new_connection(self) -> Connection:
        connection = Connection(self._time.now())
        self.ends.append(ServiceEnd(MemoryTransport(cast(asyncio.Protocol, connection))))
        return connection


class Stage:
    """One gateway with service `iris`, one client, and one connection to the service at hand."""

    def __init__(
        self,
        *,
        methods: str = "GET HEAD POST PUT PATCH DELETE OPTIONS",
        max_body_bytes: int = 2**20,
        replay_bytes: int = 2**16,
        max_kept_bytes: int = MAX_KEPT_BYTES,
        websocket: bool = False,
        upload_rate: int = 0,
        counts_usage: bool = False,
        first_chunk_s: float = FIRST_CHUNK_S,
        max_in_flight: int = 1000,
        limits: Limits | None = None,
        max_connections: int = 100,
        max_memory: int = 256 * 2**20,
        origins: frozenset[bytes] = frozenset(),
        connection_at_hand: bool = True,
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.clock = Clock(loop)
        self.credentials = MemoryCredentials()
        self.pool = MemoryPool(self.clock)
        self.under_way_at_end = 0
        """How many exchanges this scenario leaves unfinished."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        now = self.clock.now
        unrouted = ServiceMetrics(NO_SERVICE, METHODS, list(Retry))
        counts = ServiceMetrics("iris", [*methods.split(), "GET"], list(Retry))
        counts.bodies.usage = UsageCounts() if counts_usage else None
        self._counts = (unrouted, counts)
        self._gate = (
            None
            if limits is None
            else Gate("iris", limits, counts.overload, clock=now, draw=lambda: 0.5)
        )
        service = Service(
            name="iris",
            path=b"/v1/infers/abc",
            origin=b"http://service.test",
            host_line=b"Host: service.test",
            methods=frozenset(methods.split()),
            max_body_bytes=max_body_bytes,
            replay_bytes=replay_bytes,
            first_byte_s=FIRST_BYTE_S,
            first_chunk_s=first_chunk_s,
            idle_s=BODY_PAUSE_S,
            upload_rate=upload_rate,
            websocket=websocket,
            max_in_flight=max_in_flight,
            limits=limits,
            gate=self._gate,
            credentials=self.credentials,
            pool=self.pool,
            metrics=counts,
        )
        observer = Observer(
            AccessLog(self._log.fileno()), unrouted, clock=now, wall_clock=lambda: EPOCH + now()
        )
        self._context = ExchangeContext(
            rules=Rules(RouteTable((service,)), AllowedHosts([]), origins),
            deadlines=Deadlines(now),
            clock=now,
            observer=observer,
            dates=DateField(lambda: EPOCH + now()),
            replay_budget=ReplayBudget(max_kept_bytes),
        )
        self._metrics = Metrics()
        self._metrics.before_scrape = observer.settle
        self._metrics.add_service(unrouted, lambda: ServiceGauges(0, 0))
        self._metrics.add_service(counts, self._gauges)
        self._listener = DataListener(
            self._context, max_connections=max_connections, max_memory=max_memory, worked_s=now
        )
        self._clients: list[Client] = []
        if connection_at_hand:
            self.pool.offers_one()
        self.client = self.new_client()

    def new_client(self) -> Client:
        """Let one more client connect."""
        client = Client(MemoryTransport(self._listener()))
        self._clients.append(client)
        return client

    def _gauges(self) -> ServiceGauges:
        gate = self._gate
        overload = OverloadGauges(limit=1000) if gate is None else gate.gauges()
        return ServiceGauges(self.pool.active, self.pool.idle, overload)

    @property
    def service(self) -> ServiceEnd:
        """The service's end of the newest connection to it."""
        return self.pool.ends[-1]

    @property
    def services(self) -> list[ServiceEnd]:
        """The service's ends of all connections to it, oldest first."""
        return self.pool.ends

    # Time and turns.

    async def settle(self) -> None:
        """Let everything run that can run without time passing."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def settle_once(self) -> None:
        """Let one turn of the loop pass."""
        await asyncio.sleep(0)

    async def until(self, is_so: Callable[[], object]) -> None:
        """Yield to the loop until `is_so` is true; fail when it does not become true."""
        for _ in range(_TURNS):
            if is_so():
                return
            await asyncio.sleep(0)
        raise AssertionError("this did not happen")

    async def hold_is_over(self) -> None:
        """Let the time pass for which a possible rejection is held back."""
        self.clock.advance(HOLD_S)
        await self.settle()

    async def look_at_clients(self) -> None:
        """Let the time pass after which clients that are not read are looked at."""
        self.clock.advance(LOOK_S)
        await self.settle()

    def look_at_deadlines(self) -> None:
        """Do now what is done about twice a second: act on every deadline that is over."""
        deadlines = self._context.deadlines
        if deadlines._timer is not None:
            deadlines._timer.cancel()
        deadlines._tick()

    def pass_time(self, seconds: float) -> None:
        """Move on, then act on every deadline that is over."""
        self.clock.advance(seconds)
        self.look_at_deadlines()

    # The end of the gateway's life.

    def announces_its_end(self) -> None:
        """Begin the first phase of a drain: every response is the last on its connection."""
        self._listener.announce_end()

    def drains(self, timeout_s: float = 5.0) -> asyncio.Task[bool]:
        """Begin the second phase; the task says whether all requests ended in time."""
        return asyncio.create_task(self._listener.drain(timeout_s))

    async def grace_is_over(self) -> None:
        """Let the time pass in which clients may still begin a request during a drain."""
        await self.settle()
        self.clock.advance(GRACE_S)
        await self.settle()

    # What is told of it.

    @property
    def kept_bytes(self) -> int:
        """Bytes of bodies that are in memory in order to be sent again."""
        return self._context.replay_budget.kept_bytes

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of the access log so far."""
        self._context.observer.settle()
        self._log.seek(0)
        return [json.loads(line) for line in self._log.read().splitlines()]

    @property
    def record(self) -> dict[str, Any]:
        """The only line of the access log."""
        [record] = self.records
        return record

    def sample(self, name: str, **labels: str) -> float:
        """Return the sum of the samples called `name` that have these labels."""
        return sum(
            sample.value
            for family in self._metrics.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def waiting(self) -> Waiting:
        """Return what waits in memory."""
        return returned_by(self._listener.memory.add_up())

    def exported(self) -> set[str]:
        """Return the names of all samples."""
        return {sample.name for family in self._metrics.collect() for sample in family.samples}

    async def check_over(self) -> None:
        """Assert what holds after every scenario: all is accounted for, and nothing is left."""
        await self.settle()
        under_way = sum(counts.started - counts.finished for counts in self._counts)
        assert under_way == self.under_way_at_end, "exchanges under way"
        for client in self._clients:
            client.vanish()
        await self.settle()
        started = sum(counts.started for counts in self._counts)
        assert sum(counts.finished for counts in self._counts) == started, "all are accounted for"
        assert len(self.records) == started, "each has one line in the access log"
        assert self.pool.active == 0, "no connection is in use"
        assert self.pool.faults == []
        assert self.kept_bytes == 0
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, "no task is left"

    def close(self) -> None:
        """Let go of what Python would complain about; nothing is checked."""
        self.pool.close()
        for end in (*self._clients, *self.pool.ends):
            end.vanish()
        self._log.close()
