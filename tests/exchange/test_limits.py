"""Limits on real sockets: who waits, who has left, and what a reload changes."""

import asyncio
import json

from gateway.errors import ErrorCode
from tests.exchange.test_errors import assert_ours
from tests.support.gateway import POST, running_gateway
from tests.support.until import until
from tests.support.upstream import Link, scripted_upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Slots:
    """A service that answers when it is told to, and counts."""

    def __init__(self) -> None:
        self.release = asyncio.Semaphore(0)
        self.under_way = 0
        self.most = 0

    async def script(self, link: Link) -> None:
        """Serve one connection."""
        while True:
            await link.request()
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await self.release.acquire()
            self.under_way -= 1
            link.send(OK)


async def test_never_more_in_flight_than_the_limit() -> None:
    """Twenty callers, two places: all are served in the end, two at a time."""
    slots = Slots()
    async with (
        scripted_upstream(slots.script) as upstream,
        running_gateway(
            upstream.port, service={"max_in_flight": 2, "queue": {"wait": "30s"}}
        ) as gateway,
    ):
        callers = [await gateway.connect() for _ in range(20)]
        for caller in callers:
            caller.send(POST)
        await until(lambda: gateway.sample("gateway_requests_queued", service="iris") == 18)
        await until(lambda: slots.under_way == 2)
        for _ in callers:
            slots.release.release()
        replies = [await caller.reply() for caller in callers]

        assert [reply.status for reply in replies] == [200] * 20
        assert slots.most == 2
        assert len(upstream.requests) == 20
        assert gateway.sample("gateway_queue_wait_seconds_count", service="iris") == 20


async def test_service_sees_nothing_of_callers_that_left() -> None:
    """They leave while they wait, some with half an upload: their places go to who is there."""
    slots = Slots()
    async with (
        scripted_upstream(slots.script) as upstream,
        running_gateway(
            upstream.port, service={"max_in_flight": 1, "queue": {"wait": "30s"}}
        ) as gateway,
    ):
        first = await gateway.connect()
        first.send(POST)
        await until(lambda: upstream.requests)
        leaving = [await gateway.connect() for _ in range(6)]
        for number, caller in enumerate(leaving):
            caller.send(POST if number % 2 else POST.replace(b"Length: 2", b"Length: 9"))
        await until(lambda: gateway.sample("gateway_requests_queued", service="iris") == 6)
        last = await gateway.connect()
        last.send(POST)
        await until(lambda: gateway.sample("gateway_requests_queued", service="iris") == 7)
        for caller in leaving:
            caller.leave()
        for _ in range(2):
            slots.release.release()

        assert (await first.reply()).status == 200
        assert (await last.reply()).status == 200
        await gateway.settled()
        assert len(upstream.requests) == 2


async def test_caller_that_waits_too_long_is_told() -> None:
    """503 in the vendor's shape with a time to try again; `/status` says why."""
    slots = Slots()
    async with (
        scripted_upstream(slots.script) as upstream,
        running_gateway(
            upstream.port, service={"max_in_flight": 1, "queue": {"wait": "50ms"}}
        ) as gateway,
    ):
        first, second = await gateway.connect(), await gateway.connect()
        first.send(POST)
        await until(lambda: upstream.requests)
        second.send(POST)
        reply = await second.reply()

        assert_ours(reply, ErrorCode.OVERLOADED, gateway, upstream.port)
        assert int(reply.values(b"retry-after")[0]) in {1, 2}
        record = await gateway.next_record()
        assert record["rejection"] == "queue_timeout"
        assert record["queue_us"] >= 50_000
        slots.release.release()
        assert (await first.reply()).status == 200


async def test_limit_that_is_raised_lets_those_who_wait_go_on() -> None:
    """Their places are counted on; nobody is lost or served twice."""
    slots = Slots()
    async with (
        scripted_upstream(slots.script) as upstream,
        running_gateway(
            upstream.port, service={"max_in_flight": 1, "queue": {"wait": "30s"}}
        ) as gateway,
    ):
        gate, limits = gateway.services[0].gate, gateway.services[0].limits
        assert gate is not None
        assert limits is not None
        callers = [await gateway.connect() for _ in range(4)]
        for caller in callers:
            caller.send(POST)
        await until(lambda: gateway.sample("gateway_requests_queued", service="iris") == 3)
        gate.adopt(type(limits)(max_in_flight=3, queue_depth=None, queue_wait_s=30.0))
        await until(lambda: slots.under_way == 3)
        assert gateway.sample("gateway_in_flight_limit", service="iris") == 3
        for _ in callers:
            slots.release.release()

        assert [(await caller.reply()).status for caller in callers] == [200] * 4
        assert slots.most == 3


async def test_status_tells_limits_and_reasons() -> None:
    """In its JSON, which programs read."""
    slots = Slots()
    async with (
        scripted_upstream(slots.script) as upstream,
        running_gateway(
            upstream.port,
            service={"max_in_flight": 1, "queue": {"depth": 1, "wait": "30s"}},
        ) as gateway,
    ):
        callers = [await gateway.connect() for _ in range(3)]
        for caller in callers:
            caller.send(POST)
        await callers[2].reply()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.admin_port)
        writer.write(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        page = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        service = json.loads(page)["services"]["iris"]

        assert service["limits"] == {
            "in_flight": 1,
            "limit": 1,
            "queued": 1,
            "breaker": "off",
            "per_s": None,
        }
        assert service["rejected"] == {"queue_full": 1}
        slots.release.release()
        slots.release.release()
        assert [(await caller.reply()).status for caller in callers[:2]] == [200, 200]
