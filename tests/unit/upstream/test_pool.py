"""Which connections are kept, for how long, and how many; on a clock that the test moves."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.errors import ErrorCode, UpstreamError
from gateway.http.response_head import ResponseHead
from gateway.upstream.connection import Connection, ResponseListener
from gateway.upstream.pool import Origin, Pool, _AddressInfo
from tests.support.fake_time import FakeTime
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Upstream, scripted_upstream

ASK = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]


class Reader(ResponseListener):
    """Waits for an end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def on_response(self, head: ResponseHead, body: list[bytes], *, complete: bool) -> None:
        assert head.status
        assert all(body)
        if complete:
            self.ended.set()

    def on_failure(self, error: UpstreamError) -> None:
        raise error

    def on_writable(self) -> None:
        pass


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with scripted_upstream(OK) as running:
        yield running


@pytest.fixture
async def make(upstream: Upstream) -> AsyncIterator[Callable[..., Pool]]:
    """Make pools to the upstream, closed at the end."""
    pools: list[Pool] = []

    def made(
        time: FakeTime, *, idle_limit_s: float = 30.0, max_age_s: float = 300.0, max_idle: int = 64
    ) -> Pool:
        origin = Origin(
            host="127.0.0.1",
            port=upstream.port,
            idle_limit_s=idle_limit_s,
            max_age_s=max_age_s,
            max_idle=max_idle,
        )
        pools.append(Pool(origin, clock=time.clock))
        return pools[-1]

    yield made
    for pool in pools:
        pool.close()


Maker = Callable[..., Pool]


def counts(pool: Pool) -> tuple[int, int]:
    return pool.active, pool.idle


async def exchange(pool: Pool, time: FakeTime) -> Connection:
    """Use a connection as an exchange does, and give it back."""
    connection = pool.take(time.now) or await pool.connect()
    reader = Reader()
    connection.start(reader, ASK, head_request=False, sent=True)
    async with asyncio.timeout(PATIENCE_S):
        await reader.ended.wait()
    pool.give_back(connection, time.now)
    return connection


async def test_sequential_requests_share_a_connection(upstream: Upstream, make: Maker) -> None:
    """It is opened once, and counted as active or as idle at every moment."""
    time = FakeTime()
    pool = make(time)
    assert counts(pool) == (0, 0)
    first = await exchange(pool, time)
    assert counts(pool) == (0, 1)
    assert pool.take(time.now) is first
    assert counts(pool) == (1, 0)
    pool.give_back(first, time.now)
    for _ in range(3):
        assert await exchange(pool, time) is first

    assert len(upstream.links) == 1
    assert first.requests == 4


async def test_connection_is_handed_to_one_exchange_at_a_time(make: Maker) -> None:
    """The second gets another."""
    time = FakeTime()
    pool = make(time)
    first = await exchange(pool, time)
    assert pool.take(time.now) is first
    assert pool.take(time.now) is None
    assert counts(pool) == (1, 0)
    pool.give_back(first, time.now)


async def test_most_recently_used_comes_first(make: Maker) -> None:
    """So that what is not needed grows old and goes."""
    time = FakeTime()
    pool = make(time)
    one, two = await pool.connect(), await pool.connect()
    pool.give_back(two, time.now)
    pool.give_back(one, time.now)

    assert pool.take(time.now) is one
    assert pool.take(time.now) is two
    pool.give_back(one, time.now)
    pool.give_back(two, time.now)


@pytest.mark.parametrize(("waited_s", "kept"), [(29.9, True), (30.0, False)])
async def test_idle_connection_has_a_limit(
    waited_s: float, kept: bool, upstream: Upstream, make: Maker
) -> None:
    """Below it the connection is used, at it closed and not used."""
    time = FakeTime()
    pool = make(time)
    first = await exchange(pool, time)
    time.now += waited_s
    taken = pool.take(time.now)

    assert (taken is first) == kept
    assert counts(pool) == (int(kept), 0)
    if taken is not None:
        pool.give_back(taken, time.now)
    else:
        async with asyncio.timeout(PATIENCE_S):
            await upstream.links[0].ended.wait()


@pytest.mark.parametrize(("age_s", "kept"), [(99.9, True), (100.0, False)])
async def test_busy_connection_has_a_maximum_age(age_s: float, kept: bool, make: Maker) -> None:
    """However often it is used: a name may have got another address."""
    time = FakeTime()
    pool = make(time, max_age_s=100.0)
    first = await exchange(pool, time)
    for _ in range(4):
        time.now += 20
        assert await exchange(pool, time) is first
    time.now = 1000.0 + age_s
    taken = pool.take(time.now)

    assert (taken is first) == kept
    if taken is not None:
        pool.give_back(taken, time.now)


async def test_connection_that_grew_old_in_use_is_not_kept(make: Maker) -> None:
    """It is closed when it comes back."""
    time = FakeTime()
    pool = make(time, max_age_s=100.0)
    connection = await pool.connect()
    time.now += 100.0
    pool.give_back(connection, time.now)

    assert counts(pool) == (0, 0)
    assert not connection.reusable


@pytest.mark.parametrize(("used", "kept"), [(2, 2), (3, 3), (4, 3)])
async def test_no_more_are_kept_than_allowed(
    used: int, kept: int, upstream: Upstream, make: Maker
) -> None:
    """The one too many is closed when it comes back."""
    time = FakeTime()
    pool = make(time, max_idle=3)
    connections = [await pool.connect() for _ in range(used)]
    assert counts(pool) == (used, 0)
    for connection in connections:
        pool.give_back(connection, time.now)

    assert counts(pool) == (0, kept)
    await until(lambda: sum(link.ended.is_set() for link in upstream.links) == used - kept)


async def test_dead_connection_is_not_counted_and_makes_room(make: Maker) -> None:
    """One that its service has closed takes nobody's place."""
    time = FakeTime()
    pool = make(time, max_idle=1)
    one, two = await pool.connect(), await pool.connect()
    pool.give_back(one, time.now)
    one.abort()
    assert counts(pool) == (1, 0)
    pool.give_back(two, time.now)
    assert counts(pool) == (0, 1)
    assert pool.take(time.now) is two
    pool.give_back(two, time.now)


async def test_idle_connections_are_closed_without_being_asked_for(
    upstream: Upstream, make: Maker
) -> None:
    """A service that nobody calls any more is left alone."""
    time = FakeTime()
    pool = make(time, idle_limit_s=0.05)
    await exchange(pool, time)
    time.now += 0.06
    async with asyncio.timeout(PATIENCE_S):
        await upstream.links[0].ended.wait()

    assert counts(pool) == (0, 0)
    assert pool._sweep is None


async def test_sweep_leaves_what_is_still_good(make: Maker) -> None:
    """And comes again while anything is kept."""
    time = FakeTime()
    pool = make(time, idle_limit_s=0.05)
    first = await exchange(pool, time)
    sweep = pool._sweep
    await until(lambda: pool._sweep is not sweep)

    assert pool._sweep is not None
    assert first.reusable
    assert counts(pool) == (0, 1)


async def test_close_closes_what_is_kept_and_later_what_comes_back(
    upstream: Upstream, make: Maker
) -> None:
    """No connection outlives the gateway, and no timer."""
    time = FakeTime()
    pool = make(time)
    kept, used = await pool.connect(), await pool.connect()
    pool.give_back(kept, time.now)
    pool.close()
    assert counts(pool) == (1, 0)
    assert pool._sweep is None
    pool.give_back(used, time.now)
    assert counts(pool) == (0, 0)
    await until(lambda: all(link.ended.is_set() for link in upstream.links))


async def test_cancelled_connect_leaves_nothing(upstream: Upstream, make: Maker) -> None:
    """At whatever turn of the loop the cancellation comes."""
    pool = make(FakeTime())
    completed = 0
    for turns in range(12):
        connecting = asyncio.create_task(pool.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        if connecting.done():
            completed += 1
            pool.give_back(connecting.result(), 0.0)
            continue
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert pool.active == 0
    pool.close()
    await until(lambda: all(link.ended.is_set() for link in upstream.links))

    assert completed < 12


async def test_refused_connect_is_replayable_and_not_counted(upstream: Upstream) -> None:
    """Nothing was written, so even a POST may go elsewhere or again."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        pool = Pool(Origin(host="127.0.0.1", port=unused.getsockname()[1]), clock=FakeTime().clock)
        with pytest.raises(UpstreamError) as caught:
            await pool.connect()

    assert caught.value.code is ErrorCode.CONNECTION_REFUSED
    assert caught.value.replayable
    assert counts(pool) == (0, 0)


async def test_unknown_name_is_a_dns_error() -> None:
    """The reserved top-level domain resolves nowhere (RFC 6761)."""
    pool = Pool(Origin(host="service.invalid", port=80), clock=FakeTime().clock)
    with pytest.raises(UpstreamError) as caught:
        await pool.connect()

    assert caught.value.code is ErrorCode.DNS_ERROR
    assert counts(pool) == (0, 0)


def _addresses(*ports: int) -> list[_AddressInfo]:
    return [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
        for port in ports
    ]


async def test_of_several_addresses_one_that_answers_is_enough(
    upstream: Upstream, make: Maker
) -> None:
    """A name may have addresses nobody listens at; TCP holds nothing back there either."""
    time = FakeTime()
    pool = make(time)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = unused.getsockname()[1]
        connection = Connection(time.now)
        transport = await pool._connect_to_one_of(_addresses(dead, upstream.port), connection)
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()
        with pytest.raises(ConnectionRefusedError):
            await pool._connect_to_one_of(_addresses(dead, dead), connection)


async def test_cancelled_connect_to_several_addresses_leaves_nothing(
    upstream: Upstream, make: Maker
) -> None:
    """Neither the connection that has been made nor the ones that have not."""
    time = FakeTime()
    pool = make(time)
    completed = 0
    for turns in range(30):
        connection = Connection(time.now)
        connecting = asyncio.create_task(
            pool._connect_to_one_of(_addresses(upstream.port, upstream.port), connection)
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        if connecting.done():
            completed += 1
            connecting.result().close()
            continue
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        connection.abort()  # as `connect` does
    await until(lambda: all(link.ended.is_set() for link in upstream.links))

    assert completed < 30


@pytest.mark.parametrize(
    ("code", "age_s", "stands"),
    [
        (socket.EAI_AGAIN, 299.9, True),
        (socket.EAI_AGAIN, 300.0, False),
        (socket.EAI_NONAME, 0.0, False),
    ],
)
async def test_what_a_name_was_holds_while_no_name_server_answers(
    code: int, age_s: float, stands: bool
) -> None:
    """As long as a connection might last; a server that says there is no such name is believed."""
    time = FakeTime()
    pool = Pool(Origin(host="127.0.0.1", port=9), clock=time.clock)
    known = await pool._addresses()
    time.now += age_s
    assert (pool._still_known_after(socket.gaierror(code, ""), time.now) == known) is stands


def test_representation_counts() -> None:
    """For a debugger; it names no address."""
    pool = Pool(Origin(host="secret.example", port=80), clock=FakeTime().clock)

    assert repr(pool) == "<Pool active=0 idle=0>"
