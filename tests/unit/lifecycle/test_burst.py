"""Many connections that wait to be accepted, on a real socket."""

import asyncio
import errno
import resource
import select
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
import trustme

from gateway.lifecycle.backlog import accept_the_last
from gateway.lifecycle.burst import BurstServer, given_up, most_waiting, paced
from tests.support.until import PATIENCE_S, until

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
MANY = 150
TURNS = 20
"""Of the loop, until all of them have been accepted; one a turn would take `MANY`."""


class Accepted(asyncio.Protocol):
    """A connection, which says a word of its own."""

    def __init__(self, known: list["Accepted"]) -> None:
        self._known = known
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._known.append(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.transport.write(b"heard")


class Known:
    """Whose connections they become."""

    def __init__(self, known: list[Accepted], room: int) -> None:
        self._known = known
        self._room = room
        self.away = 0

    def __call__(self) -> Accepted:
        return Accepted(self._known)

    def room(self) -> int:
        return self._room

    def turned_away(self) -> None:
        self.away += 1


@asynccontextmanager
async def burst_server(
    known: list[Accepted], tls: ssl.SSLContext | None = None, *, room: int = 10_000
) -> AsyncIterator[BurstServer]:
    """Listen on a free port of the loopback."""
    create = asyncio.get_running_loop().create_server
    server = await BurstServer.open(Known(known, room), tls, create, "127.0.0.1", 0)
    try:
        yield server
    finally:
        server.close()
        for connection in known:
            connection.transport.abort()


def connected(server: BurstServer, count: int, sent: bytes = b"") -> list[socket.socket]:
    """Connect so many that send this. All of them wait, since the loop does not turn meanwhile."""
    (queue,) = server.sockets
    before = _unacknowledged(queue)
    callers = [begun(queue.getsockname()) for _ in range(count)]
    _stand_still_until(lambda: _unacknowledged(queue) == before + count)
    send(callers, sent)
    return callers


def send(callers: Sequence[socket.socket], data: bytes) -> None:
    """Have them send this; return when it has arrived, which a busy kernel may put off."""
    for caller in callers:
        caller.send(data)
    _stand_still_until(lambda: not any(map(_unacknowledged, callers)))


def _unacknowledged(connection: socket.socket) -> int:
    """Return how many packets are on their way; of a listening socket, how many connections wait.

    It is `tcpi_unacked` of `struct tcp_info` (tcp(7)).
    """
    info = connection.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[24:28], sys.byteorder)


def _stand_still_until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s


def begun(address: tuple[str, int]) -> socket.socket:
    """Begin to connect, which is at once on the loopback."""
    caller = socket.socket()
    caller.setblocking(False)  # the socket's own way
    with suppress(BlockingIOError):
        caller.connect(address)
    return caller


def _is_closed(caller: socket.socket) -> bool:
    """Return whether the other side has closed; what it has sent is read."""
    try:
        return caller.recv(1024) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def faults() -> list[Exception]:
    """Return those that the loop is told of; the list grows."""
    told: list[Exception] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(context["exception"])
    )
    return told


async def turns_until(is_so: Callable[[], object]) -> None:
    """Let the loop turn until this is so, and not once more."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110  # a turn is short
            await asyncio.sleep(0)


async def turns_until_heard(known: list[Accepted]) -> None:
    """Let the loop turn until a request has been read, and not once more."""
    await turns_until(lambda: any(one.received == GET for one in known))


async def test_many_are_accepted_in_few_turns() -> None:
    """Each is a connection like any other."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        callers = connected(server, MANY)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert len(known) == MANY
        send(callers, b"hello")
        await until(lambda: all(one.received == b"hello" for one in known))
        heard = [await asyncio.get_running_loop().sock_recv(caller, 10) for caller in callers]
        assert heard == [b"heard"] * MANY
        for caller in callers:
            caller.close()


async def test_one_that_is_gone_costs_nobody_anything() -> None:
    """A connection that was reset while it waited is passed over."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        gone, *callers = connected(server, 10)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
        await until(lambda: len(known) >= len(callers))
        send(callers, b"hello")
        await until(lambda: sum(one.received == b"hello" for one in known) == len(callers))
        for caller in callers:
            caller.close()


class Defective(Known):
    """Some of them fail in a way that nobody has thought of."""

    made = 0

    def __call__(self) -> Accepted:
        self.made += 1
        if self.made % 5 == 0:
            raise RuntimeError("a defect")
        return super().__call__()


@pytest.mark.parametrize("together", [100, 1])
async def test_defect_of_one_stops_no_other(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    """It is closed, and told; whether the loop has accepted it or we have."""
    known: list[Accepted] = []
    told = faults()
    async with burst_server(known) as server:
        monkeypatch.setattr(server, "_clients", Defective(known, room=10_000))
        callers: list[socket.socket] = []
        while len(callers) < 100:
            callers.extend(connected(server, together))
            await until(lambda: len(known) + len(told) == len(callers))
        await until(lambda: sum(map(_is_closed, callers)) == 20)
        assert [str(fault) for fault in told] == ["a defect"] * 20
        for caller in callers:
            caller.close()


class Miscounting(Known):
    """They fail now and then to say how many there is room for."""

    asked = 0

    def room(self) -> int:
        self.asked += 1
        if self.asked in {1, 4}:
            raise RuntimeError("a defect")
        return super().room()


async def test_defect_between_them_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait are begun with in the next turn."""
    known: list[Accepted] = []
    told = faults()
    async with burst_server(known) as server:
        monkeypatch.setattr(server, "_clients", Miscounting(known, room=10_000))
        callers = connected(server, MANY)
        await until(lambda: len(known) == MANY)
        assert [str(fault) for fault in told] == ["a defect"] * 2
        callers += connected(server, 1)
        await until(lambda: len(known) == MANY + 1)
        for caller in callers:
            caller.close()


async def test_defect_in_handing_one_over_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed, and told."""
    known: list[Accepted] = []
    told = faults()
    async with burst_server(known) as server:
        monkeypatch.setattr(server, "_tls", "no context")
        callers = connected(server, MANY)
        await until(lambda: len(known) + len(told) == MANY)
        assert {type(fault) for fault in told} == {TypeError}
        assert len(told) > MANY // 2
        assert sum(map(_is_closed, callers)) == len(told)
        for caller in callers:
            caller.close()


async def test_a_closed_one_accepts_no_more_and_keeps_what_it_has() -> None:
    """Its address is free, and who was accepted is still served."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        address = server.sockets[0].getsockname()
        (caller,) = connected(server, 1)
        await until(lambda: known)
        server.close()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert not server.sockets
        refused = begun(address)
        assert refused.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        refused.close()
        caller.send(b"hello")
        await until(lambda: known[0].received == b"hello")
        caller.close()


async def test_what_is_encrypted_is_accepted_alike() -> None:
    """The protocol hears of a connection after its handshake; silence holds nobody up.

    Who sends something else than a handshake is closed, and nothing is told.
    """
    told = faults()
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    known: list[Accepted] = []
    async with burst_server(known, tls) as server:
        silent = connected(server, 10)
        *_, caller = connected(server, 1)
        reader, writer = await asyncio.open_connection(
            sock=caller, ssl=trust, server_hostname="localhost"
        )
        writer.write(b"hello")
        assert await reader.read(10) == b"heard"
        assert len(known) == 1
        writer.close()
        send(silent, GET)
        await until(lambda: all(map(_is_closed, silent)))
        assert not told
        for other in silent:
            other.close()


@pytest.mark.parametrize(
    "sent",
    [
        bytes(8 * 1024),
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    ],
)
async def test_who_cannot_be_served_yet_waits_for_the_others(sent: bytes) -> None:
    """A small request that has come behind many others is read while those still wait."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        callers = connected(server, MANY, sent)
        (small,) = connected(server, 1, GET)
        await turns_until_heard(known)
        assert server.waiting > 0
        await until(lambda: len(known) == MANY + 1)
        assert server.waiting == 0
        for caller in (*callers, small):
            caller.close()


async def test_small_request_is_begun_with_as_it_is_accepted() -> None:
    """Though others wait: a turn is long where they do, and a request takes several."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        callers = connected(server, MANY, bytes(8 * 1024))
        for _ in range(TURNS // 4):
            await asyncio.sleep(0)
        small = connected(server, 4, GET)
        turns = 0
        while sum(one.received == GET for one in known) < len(small):
            await asyncio.sleep(0)
            turns += 1
        assert server.waiting > 0
        assert turns <= 2
        await until(lambda: len(known) == MANY + len(small))
        for caller in (*callers, *small):
            caller.close()


async def test_who_speaks_up_overtakes_those_that_are_silent() -> None:
    """They are begun with oldest first, and what comes meanwhile is noticed."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        *silent, small = connected(server, MANY)
        await turns_until(lambda: server.waiting)
        send([small], GET)
        await turns_until_heard(known)
        assert server.waiting > 0
        await until(lambda: len(known) == MANY)
        for caller in (*silent, small):
            caller.close()


async def test_who_is_silent_does_not_wait_for_a_flood_to_end() -> None:
    """One of them is begun with in each turn, whatever the others send."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        others = connected(server, 2)
        (silent,) = connected(server, 1)
        callers = connected(server, MANY // 2)
        send([*others, *callers], GET)
        name = silent.getsockname()
        await turns_until(
            lambda: any(one.transport.get_extra_info("peername") == name for one in known)
        )
        assert server.waiting > 0
        await until(lambda: not server.waiting)
        for caller in (*others, silent, *callers):
            caller.close()


async def test_one_of_the_others_is_begun_with_while_small_requests_wait() -> None:
    """Else those take the time that a small request waits for."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        large = connected(server, MANY // 3, bytes(8 * 1024))
        small = connected(server, MANY // 3, GET)
        while server._first or not server._last:
            before = sum(len(one.received) > len(GET) for one in known)
            await asyncio.sleep(0)
            begun_with = sum(len(one.received) > len(GET) for one in known) - before
            assert begun_with <= 2  # another may have been accepted by the loop
        await until(lambda: not server.waiting)
        for caller in (*large, *small):
            caller.close()


async def test_who_has_said_nothing_is_given_up_before_a_handshake() -> None:
    """What is small may be a handshake; nothing is not."""
    known: list[Accepted] = []
    async with burst_server(known, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), room=0) as server:
        (*_, last) = callers = connected(server, 4)
        await turns_until(lambda: server.waiting)
        while server.waiting:
            assert server._gives_one_up()
        assert _is_closed(last)
        for caller in callers[:-1]:
            with suppress(OSError):
                caller.send(GET)  # which is no handshake
        await until(lambda: all(map(_is_closed, callers[:-1])))
        for caller in callers:
            caller.close()


async def test_who_has_spoken_up_is_not_given_up() -> None:
    """Though it had sent nothing when it was accepted."""
    known: list[Accepted] = []
    async with burst_server(known, room=0) as server:
        callers = connected(server, 4)
        await turns_until(lambda: server.waiting)
        send(callers[:-1], GET)
        before = server.waiting
        assert server._gives_one_up()
        assert server.waiting == before - 1
        assert _is_closed(callers[-1])
        await until(lambda: sum(one.received == GET for one in known) == len(callers) - 1)
        for caller in callers:
            caller.close()


@pytest.mark.parametrize("sent", [b"", bytes(8 * 1024)])
async def test_last_places_are_for_small_requests(sent: bytes) -> None:
    """Where there is little room, the others are begun with one by one."""
    known: list[Accepted] = []
    async with burst_server(known, room=0) as server:
        callers = connected(server, MANY // 3, sent)
        small = connected(server, MANY // 3, GET)
        most = 0
        while sum(one.received == GET for one in known) < len(small):
            before = len(known)
            await asyncio.sleep(0)
            most = max(most, len(known) - before)
        assert most > 4
        while len(known) < len(callers) + len(small):
            before = len(known)
            await asyncio.sleep(0)
            assert len(known) - before <= 2  # another may have been accepted by the loop
        for caller in (*callers, *small):
            caller.close()


@pytest.mark.parametrize(
    ("before", "took_s", "count"),
    [(16, 0.0, 16), (8, 0.0, 9), (8, 0.006, 9), (16, 0.007, 8), (9, 0.007, 4), (4, 1.0, 4)],
)
def test_fewer_are_begun_with_after_a_long_turn(before: int, took_s: float, count: int) -> None:
    """Half as many, four at least; after a short one one more, sixteen at most."""
    assert paced(before, took_s) == count


async def test_who_sends_much_while_it_waits_waits_longer() -> None:
    """It is looked at again before it is begun with: eight of those are read in a turn."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        callers = connected(server, MANY)
        await turns_until(lambda: server.waiting)
        send(callers, bytes(8 * 1024))
        for _ in range(TURNS // 4):  # in which those are begun with that were on their way
            await asyncio.sleep(0)
        while len(known) < MANY:
            before = len(known)
            await asyncio.sleep(0)
            assert len(known) - before <= 8
        for caller in callers:
            caller.close()


async def test_the_newest_and_the_oldest_come_first() -> None:
    """In a flood, a new one would else wait as long as it lasts, or an old one for ever."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        callers = connected(server, MANY, GET)
        await until(lambda: len(known) == MANY)
        order = [one.transport.get_extra_info("peername") for one in known]
        first, middle, last = (
            order.index(callers[number].getsockname()) for number in (1, MANY // 2, -1)
        )
        assert max(first, last) < MANY // 4 < middle
        for caller in callers:
            caller.close()


@pytest.mark.parametrize(
    ("files", "waiting"),
    [(1024, 64), (4096, 256), (8192, 1024), (20_000, 3976), (2**20, 4096)],
)
def test_so_many_may_wait(files: int, waiting: int) -> None:
    """A sixteenth of few files, a quarter of those beyond 4096, 4096 at most."""
    assert most_waiting(files) == waiting


async def test_few_wait_where_few_files_may_be_open() -> None:
    """Requests and probes need the others; who is not accepted waits in the system's queue."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    known: list[Accepted] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, files[1]))
    try:
        async with burst_server(known) as server:
            callers = connected(server, MANY)
            most = 0
            while len(known) < MANY:
                most = max(most, server.waiting)
                await asyncio.sleep(0)
            assert 0 < most <= 1024 // 16
            for caller in callers:
                caller.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)


@pytest.mark.parametrize(
    ("waiting", "room", "count"),
    [(2048, 0, 0), (2050, -7, 2), (4096, 0, 32), (3001, 3000, 1), (3000, 3000, 0), (0, 0, 0)],
)
def test_so_many_are_given_up_in_a_turn(waiting: int, room: int, count: int) -> None:
    """Those there is no room for, beyond 2048; a close takes up to 40 µs."""
    assert given_up(waiting, room) == count


async def test_those_that_wait_for_nothing_are_given_up() -> None:
    """More accepted connections than there is room for are closed, those that wait longest."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files[1] < 16_384:
        pytest.skip("few files may be open")
    known: list[Accepted] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (16_384, files[1]))  # 3072 may wait
    try:
        async with burst_server(known, room=0) as server:
            callers: list[socket.socket] = []
            while server.waiting < 2200:  # they come faster than they are given up
                callers += connected(server, 128, bytes(8 * 1024))
                await asyncio.sleep(0)
            await until(lambda: server.waiting <= 2048)
            assert _is_closed(callers[0]) or _is_closed(callers[1])
            assert not _is_closed(callers[-1])
            await until(lambda: not server.waiting)
            for caller in callers:
                caller.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)


@pytest.mark.parametrize("sent", [b"", bytes(8 * 1024)])
async def test_who_waits_longest_is_given_up_where_there_is_no_room(sent: bytes) -> None:
    """Small requests behind those that will hardly be begun with are accepted, and served."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    known: list[Accepted] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, files[1]))  # 64 may wait
    try:
        async with burst_server(known, room=0) as server:
            callers = connected(server, MANY, sent)
            (small,) = connected(server, 1, GET)
            await turns_until_heard(known)
            assert len(known) < MANY // 2
            clients = cast(Known, server._clients)
            await until(lambda: len(known) + clients.away == len(callers) + 1)
            assert MANY // 4 < len(known) < MANY
            for caller in (*callers, small):
                caller.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)


async def test_the_end_waits_for_those_that_are_accepted_and_not_begun_with() -> None:
    """A client that has been accepted may have sent a request."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        callers = connected(server, MANY)
        await accept_the_last(server.sockets, lambda: server.waiting)
        server.close()
        assert len(known) == MANY
        for caller in callers:
            caller.close()


async def test_the_end_waits_for_who_holds_itself_connected() -> None:
    """Its last packet is on the way as the end begins; who comes later is not accepted."""
    known: list[Accepted] = []
    async with burst_server(known) as server:
        (queue,) = server.sockets
        queue.setsockopt(socket.SOL_TCP, socket.TCP_DEFER_ACCEPT, 10)  # until data comes
        caller = begun(queue.getsockname())

        async def end() -> None:
            await accept_the_last([queue], lambda: server.waiting, handshake_s=0.5)
            server.close()

        ending = asyncio.create_task(end())
        for _ in range(TURNS):
            await asyncio.sleep(0)
        late = begun(queue.getsockname())
        late_is_connected = select.select([], [late], [], 0)[1]
        caller.send(GET)
        await ending
        assert not late_is_connected
        assert len(known) == 1
        await until(lambda: known[0].received == GET)
        assert await asyncio.get_running_loop().sock_recv(caller, 10) == b"heard"
        for each in (caller, late):
            each.close()
