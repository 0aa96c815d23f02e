"""Which connections are kept, for how long, and how many; on a clock that the test moves."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.errors import ErrorCode, UpstreamError
from gateway.http.response_head import ResponseHead
from gateway.upstream.connection import Connection, ResponseListener
from gateway.upstream.opener import Opener, Origin, _AddressInfo
from gateway.upstream.pool import ConnectionLimit, Pool
from tests.support.fake_time import FakeTime
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Upstream, scripted_upstream

ASK = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]


class Reader(ResponseListener):
    """Waits for an end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def on_response(self, head: ResponseHead, body: list[bytes], complete: bool) -> None:
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
        time: FakeTime,
        *,
        idle_limit_s: float = 30.0,
        max_age_s: float = 300.0,
        limit: ConnectionLimit | None = None,
    ) -> Pool:
        origin = Origin(
            host="127.0.0.1",
            port=upstream.port,
            idle_limit_s=idle_limit_s,
            max_age_s=max_age_s,
        )
        pools.append(Pool(origin, clock=time.clock, limit=limit))
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


async def test_as_many_are_kept_as_were_in_use_together(upstream: Upstream, make: Maker) -> None:
    """However many: what comes back is used again, and only age takes it away."""
    time = FakeTime()
    pool = make(time)
    connections = [await pool.connect() for _ in range(100)]
    assert counts(pool) == (100, 0)
    for connection in connections:
        pool.give_back(connection, time.now)
    assert counts(pool) == (0, 100)

    again = [pool.take(time.now) for _ in range(100)]
    assert set(again) == set(connections)
    for connection in connections:
        pool.give_back(connection, time.now)
    assert len(upstream.links) == 100


async def test_what_is_not_needed_any_more_goes_with_age(upstream: Upstream, make: Maker) -> None:
    """After a burst of five, one request at a time keeps one connection; a sweep ends the others.

    A sweep closes 64 at most, and comes again at once for the rest.
    """
    time = FakeTime()
    pool = make(time, idle_limit_s=0.05)
    connections = [await pool.connect() for _ in range(70)]
    for connection in connections:
        pool.give_back(connection, time.now)
    time.now += 0.04
    used = await exchange(pool, time)
    time.now += 0.02
    await until(lambda: counts(pool) == (0, 1))

    assert pool.take(time.now) is used
    pool.give_back(used, time.now)
    await until(lambda: sum(link.ended.is_set() for link in upstream.links) == 69)


async def test_connections_opened_together_do_not_end_together(make: Maker) -> None:
    """Else all callers would wait for new ones at the same moment, again and again."""
    time = FakeTime()
    pool = make(time, max_age_s=100.0)
    connections = [await pool.connect() for _ in range(20)]
    ages = sorted(connection.retire_at - time.now for connection in connections)
    for connection in connections:
        pool.give_back(connection, time.now)

    assert ages[0] >= 50.0
    assert ages[-1] == 100.0
    assert max(b - a for a, b in itertools.pairwise(ages)) < 2.0


async def test_dead_connection_is_not_counted(make: Maker) -> None:
    """One that its service has closed is neither idle nor handed out."""
    time = FakeTime()
    pool = make(time)
    one, two = await pool.connect(), await pool.connect()
    pool.give_back(two, time.now)
    pool.give_back(one, time.now)
    one.abort()
    assert counts(pool) == (0, 1)
    assert pool.take(time.now) is two
    pool.give_back(two, time.now)


async def test_who_waits_is_served_before_who_comes_later(upstream: Upstream, make: Maker) -> None:
    """A connection that comes back goes to the first that waits, not to a newcomer."""
    time = FakeTime()
    pool = make(time)
    held = await pool.connect()
    first, second = (asyncio.create_task(pool.connect()) for _ in range(2))
    await asyncio.sleep(0)  # they wait
    pool.give_back(held, time.now)

    assert pool.take(time.now) is None
    assert await first is held
    other = await second
    assert other is not held
    pool.give_back(held, time.now)
    pool.give_back(other, time.now)
    await until(lambda: counts(pool) == (0, 3))  # what was being opened for the first is kept
    assert len(upstream.links) == 3


async def test_waiting_is_served_in_order(upstream: Upstream, make: Maker) -> None:
    """Whichever connection is open first."""
    time = FakeTime()
    pool = make(time)
    order: list[int] = []

    async def wait(number: int) -> Connection:
        connection = await pool.connect()
        order.append(number)
        return connection

    tasks = [asyncio.create_task(wait(number)) for number in range(20)]
    for task in tasks:
        pool.give_back(await task, time.now)
    await until(lambda: pool.active == 0 and len(upstream.links) == pool.idle)

    assert order == list(range(20))


async def test_connection_that_dies_while_it_is_handed_over_is_replaced(
    upstream: Upstream, make: Maker
) -> None:
    """The request that had waited for it gets another, and stays the first."""
    time = FakeTime()
    pool = make(time)
    held = await exchange(pool, time)
    assert pool.take(time.now) is held
    first = asyncio.create_task(pool.connect())
    await asyncio.sleep(0)
    pool.give_back(held, time.now)
    held.abort()
    connection = await first

    assert connection is not held
    assert connection.reusable
    pool.give_back(connection, time.now)
    await until(lambda: pool.active == 0 and len(upstream.links) == pool.idle + 1)


async def test_who_leaves_does_not_take_a_connection_along(upstream: Upstream, make: Maker) -> None:
    """What had been handed to it in the same turn is passed on."""
    time = FakeTime()
    pool = make(time)
    held = await pool.connect()
    first, second = (asyncio.create_task(pool.connect()) for _ in range(2))
    await asyncio.sleep(0)
    pool.give_back(held, time.now)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    assert await second is held
    pool.give_back(held, time.now)
    await until(lambda: pool.active == 0 and len(upstream.links) == pool.idle)


async def test_failure_is_told_to_one_request_for_each_connection() -> None:
    """Who was served meanwhile is told nothing, and nobody waits for ever."""
    time = FakeTime()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        pool = Pool(Origin(host="127.0.0.1", port=unused.getsockname()[1]), clock=time.clock)
        results = await asyncio.gather(*(pool.connect() for _ in range(5)), return_exceptions=True)

    assert [type(result) for result in results] == [UpstreamError] * 5
    assert counts(pool) == (0, 0)


async def test_idle_connections_make_room_for_those_of_other_services(
    upstream: Upstream, make: Maker
) -> None:
    """All pools together keep within what the process may open; the oldest goes first."""
    time = FakeTime()
    limit = ConnectionLimit(3)
    one, other = make(time, limit=limit), make(time, limit=limit)
    oldest, newer = await one.connect(), await one.connect()
    one.give_back(oldest, time.now)
    time.now += 1.0
    one.give_back(newer, time.now)
    held = await other.connect()
    assert (counts(one), counts(other)) == ((0, 2), (1, 0))
    another = await other.connect()

    assert (counts(one), counts(other)) == ((0, 1), (2, 0))
    assert one.take(time.now) is newer
    third = await other.connect()  # what is in use is not limited here
    await until(upstream.links[0].ended.is_set)
    for connection in (held, another, third):
        other.give_back(connection, time.now)


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
        transport = await pool._opener._connect_to_one_of(
            _addresses(dead, upstream.port), connection
        )
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()
        with pytest.raises(ConnectionRefusedError):
            await pool._opener._connect_to_one_of(_addresses(dead, dead), connection)


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
            pool._opener._connect_to_one_of(_addresses(upstream.port, upstream.port), connection)
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


async def test_address_needs_no_look_up(upstream: Upstream) -> None:
    """One wait, for the connection itself."""
    opener = Opener(Origin(host="127.0.0.1", port=upstream.port), clock=FakeTime().clock)
    connection = await opener.open()
    connection.abort()

    assert opener._resolved == ((), 0.0)


@pytest.mark.parametrize(("waited_s", "again"), [(0.9, False), (1.0, True)])
async def test_burst_looks_a_name_up_once(waited_s: float, again: bool, upstream: Upstream) -> None:
    """And what is opened a second later follows the name to where it is then."""
    time = FakeTime()
    opener = Opener(Origin(host="localhost", port=upstream.port), clock=time.clock)
    for connection in await asyncio.gather(opener.open(), opener.open()):
        connection.abort()
    first = opener._resolved
    time.now += waited_s
    (await opener.open()).abort()

    assert (opener._resolved[1] > first[1]) is again


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
    opener = Opener(Origin(host="localhost", port=9), clock=time.clock)
    known = await opener._addresses()
    time.now += age_s
    assert (opener._still_known_after(socket.gaierror(code, ""), time.now) == known) is stands


def test_representation_counts() -> None:
    """For a debugger; it names no address."""
    pool = Pool(Origin(host="secret.example", port=80), clock=FakeTime().clock)

    assert repr(pool) == "<Pool active=0 idle=0 waiting=0>"
