"""Scenarios on a network of their own: `unshare -rmn python -m tests.life.network NAME FOLDER`.

In there the test is root: it writes the names that are resolved, and drops packets.
"""

import asyncio
import fcntl
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from tests.support.client import Caller, Reply, connect
from tests.support.gateway import POST
from tests.support.served import Served, served, settings_of
from tests.support.until import until
from tests.support.upstream import Link, Upstream, answer

PORT = 8443
NAME = "service.test"
_NXDOMAIN = 3


class Names:
    """What NAME stands for: the hosts file, and a name server that knows nothing."""

    def __init__(self, folder: Path, options: str = "options timeout:1 attempts:1") -> None:
        self._hosts = folder / "hosts"
        self._hosts.touch()
        servers = folder / "resolv.conf"
        servers.write_text(f"nameserver 127.0.0.1\n{options}\n")
        for file, place in ((self._hosts, "/etc/hosts"), (servers, "/etc/resolv.conf")):
            run("mount", "--bind", str(file), place)

    def point_to(self, *addresses: str) -> None:
        """Let NAME have these addresses; without any, only the name server could know it."""
        self._hosts.write_text("".join(f"{address} {NAME}\n" for address in addresses))


LOOK_UP_S = 1.1
"""Longer than a look-up is used for further connections."""


class NameServer(asyncio.DatagramProtocol):
    """Says of every name that there is no such name."""

    def connection_made(self, transport: Any) -> None:  # uvloop's is no DatagramTransport
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        flags = struct.pack(">H", 0x8180 | _NXDOMAIN)
        self._transport.sendto(data[:2] + flags + data[4:6] + bytes(6) + data[12:], addr)


class Echo:
    """A service with a name of its own that remembers each body."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.bodies: Counter[bytes] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, link: Link) -> None:
        while True:
            request = await link.request()
            self.bodies[request.content] += 1
            await self.gate.wait()
            link.send(answer(200, self.name))


def service(address: str, script: Echo) -> Upstream:
    """Make a service at an address, always at the same port."""
    return Upstream(script, address=(address, PORT))


@asynccontextmanager
async def gateway(folder: Path, **service_settings: Any) -> AsyncIterator[Served]:
    """Run a gateway in front of NAME."""
    settings = settings_of(0)
    settings["services"]["iris"] = {"url": f"http://{NAME}:{PORT}/x", **service_settings}
    async with served(folder, 0, settings) as process:
        yield process


async def ask(process: Served, body: bytes = b"{}", service_name: bytes = b"iris") -> Reply:
    """Send one request on a connection of its own."""
    caller: Caller = await connect(process.port)
    head = POST.removesuffix(b"2\r\n\r\n{}")  # ends with `Content-Length: `
    head = head.replace(b"/iris/", b"/%b/" % service_name)
    caller.send(head + b"%d\r\n\r\n%b" % (len(body), body))
    reply = await caller.reply()
    caller.leave()
    return reply


async def address_changes(folder: Path) -> None:
    """New connections follow the name, those there are go on, also while no name server answers;
    a name that has ceased to be is 502, and one that is back is served."""
    names = Names(folder)
    names.point_to("127.0.0.1")
    first, second = Echo(b"first"), Echo(b"second")
    async with (
        service("127.0.0.1", first) as at_first,
        service("127.0.0.2", second) as at_second,
        gateway(folder) as process,
    ):

        async def ask_together() -> list[Reply]:
            """Ask so often at once that there are not connections enough, and look up again."""
            await asyncio.sleep(LOOK_UP_S)
            first.gate.clear()
            second.gate.clear()
            count = len(at_first.links) + len(at_second.links) + 3
            before = first.bodies.total() + second.bodies.total()
            asking = [asyncio.create_task(ask(process)) for _ in range(count)]
            await until(
                lambda: (
                    first.bodies.total()
                    + second.bodies.total()
                    - before
                    + sum(task.done() for task in asking)
                    == count
                )
            )  # so that no answer has freed a connection for another request
            first.gate.set()
            second.gate.set()
            return await asyncio.gather(*asking)

        assert {reply.body for reply in await ask_together()} == {b"first"}
        names.point_to("127.0.0.2")
        assert {reply.body for reply in await ask_together()} == {b"first", b"second"}
        assert (len(at_first.links), len(at_second.links)) == (3, 3)

        names.point_to()  # and no name server listens
        assert {reply.status for reply in await ask_together()} == {200}
        assert (len(at_first.links), len(at_second.links)) == (3, 6)

        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 53))
        replies = await ask_together()
        gone = [reply for reply in replies if reply.status == 502]
        assert len(gone) == 3, "there are connections for all but three"
        assert all(b"Gateway.DnsError" in reply.body for reply in gone)
        assert await process.sample("gateway_errors_total", error="dns_error") == 3

        names.point_to("127.0.0.1")
        assert {reply.status for reply in await ask_together()} == {200}
        assert (len(at_first.links), len(at_second.links)) == (6, 6)
        transport.close()


class Silence(asyncio.DatagramProtocol):
    """A name server that takes questions and never answers."""


async def name_server_hangs(folder: Path) -> None:
    """Callers of a service whose name cannot be looked up have their 504 in time, and take no other
    service's look-ups away. One that is waited for takes a minute."""
    names = Names(folder, "options timeout:30 attempts:2")
    names.point_to("127.0.0.1")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Silence, local_addr=("127.0.0.1", 53))
    settings = settings_of(0)
    settings["services"] = {
        "iris": {"url": f"http://unknown.test:{PORT}/x", "timeouts": {"connect": "1s"}},
        "other": {"url": f"http://{NAME}:{PORT}/x"},
    }
    async with (
        service("127.0.0.1", Echo(b"alive")),
        served(folder, 0, settings) as process,
    ):
        for _ in range(2):
            began = time.monotonic()
            replies = await asyncio.gather(*(ask(process) for _ in range(10)))
            assert {reply.status for reply in replies} == {504}
            assert time.monotonic() - began < 25
        began = time.monotonic()
        assert (await ask(process, service_name=b"other")).body == b"alive"
        assert time.monotonic() - began < 25
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert time.monotonic() - began < 50, "the look-up is not waited for"
    transport.close()


async def dead_address(folder: Path) -> None:
    """An IPv6 address that swallows everything costs a quarter of a second, no timeout."""
    names = Names(folder)
    run("ip", "-6", "addr", "add", "fd00::1/128", "dev", "lo")
    drop("ip6 daddr fd00::1 drop")
    names.point_to("fd00::1", "127.0.0.1")
    addresses = await asyncio.get_running_loop().getaddrinfo(NAME, PORT, type=socket.SOCK_STREAM)
    assert addresses[0][4][0] == "fd00::1", "the dead one comes first"
    timeouts = {"connect": "60s"}
    async with (
        service("127.0.0.1", Echo(b"alive")),
        gateway(folder, timeouts=timeouts) as process,
    ):
        began = time.monotonic()
        assert (await ask(process)).body == b"alive"
        assert 0.2 < time.monotonic() - began < 50


async def packets_are_lost(folder: Path) -> None:
    """One packet in five is lost: deadlines hold, and no request is sent twice."""
    names = Names(folder)
    names.point_to("127.0.0.1")
    script = Echo(b"alive")
    timeouts = {"connect": "2s", "first_byte": "3s", "idle": "3s"}
    async with service("127.0.0.1", script), gateway(folder, timeouts=timeouts) as process:
        drop(f"tcp dport {PORT} numgen random mod 100 < 20 drop")
        drop(f"tcp sport {PORT} numgen random mod 100 < 20 drop")
        loop = asyncio.get_running_loop()
        times: list[float] = []
        statuses: Counter[int] = Counter()

        async def one(number: int) -> None:
            await asyncio.sleep(random.random())
            began = loop.time()
            statuses[(await ask(process, b"%d" % number)).status] += 1
            times.append(loop.time() - began)

        await asyncio.gather(*(one(number) for number in range(60)))

        assert statuses.keys() <= {200, 502, 504}, statuses
        assert statuses[200] > 30, statuses
        assert max(times) < 2 + 3 + 3 + 20, max(times)  # each deadline, and a busy machine
        assert max(script.bodies.values()) == 1
        assert script.bodies.total() >= statuses[200]


def drop(rule: str) -> None:
    """Add a rule for packets that come in."""
    for line in (
        "add table inet test",
        "add chain inet test in { type filter hook input priority 0; }",
        f"add rule inet test in {rule}",
    ):
        run("nft", line)


def run(*words: str) -> None:
    """Run a command; fail if it does."""
    subprocess.run(words, check=True)


def loopback_up() -> None:
    """Do what `ip link set lo up` does."""
    up, set_flags = 1, 0x8914  # IFF_UP, SIOCSIFFLAGS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14x", b"lo", up))


SCENARIOS: dict[str, Callable[[Path], Awaitable[None]]] = {
    scenario.__name__: scenario
    for scenario in (address_changes, name_server_hangs, dead_address, packets_are_lost)
}


async def _main() -> None:
    async with asyncio.timeout(100):
        await SCENARIOS[sys.argv[1]](Path(sys.argv[2]))


if __name__ == "__main__":
    assert os.getuid() == 0, "run me by unshare -rmn"
    loopback_up()
    uvloop.run(_main())
