"""The twin's service `slow`: a few slots, a time for each request, and throttling before it."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.twin import SLOW_ID, FaultError, Twin
from gateway.twin.capacity import Capacity, FullError, Slots, parse_capacity
from tests.support.twin import login_body, running_twin


@pytest.fixture
async def twin() -> AsyncIterator[Twin]:
    async with running_twin() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def calls(http: aiohttp.ClientSession, twin: Twin, count: int) -> list[tuple[int, Any]]:
    """Statuses and bodies of so many calls at the same time."""
    async with http.post(f"{twin.auth_url}/auth/tokens", json=login_body()) as login:
        token = login.headers["X-Subject-Token"]

    async def call() -> tuple[int, Any]:
        fields = {"X-Auth-Token": token}
        async with http.post(twin.service_url(SLOW_ID), data=b"{}", headers=fields) as reply:
            return reply.status, json.loads(await reply.read())

    return await asyncio.gather(*(call() for _ in range(count)))


async def test_a_few_at_a_time_and_the_rest_waits() -> None:
    """
    Never more than the slots; what waits is served in order; one too many is refused.
    """
    slots = Slots(Capacity(slots=2, service_time_s=0.0, waiting=3))
    done: list[int] = []

    async def work(number: int) -> None:
        await slots.work()
        done.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(FullError):
        await slots.work()
    await asyncio.gather(*tasks)

    assert done == [0, 1, 2, 3, 4]


async def test_caller_that_leaves_frees_its_slot() -> None:
    """
    Whether it was worked on, or waited.
    """
    slots = Slots(Capacity(slots=1, service_time_s=3600.0, waiting=1))
    worked_on, waiting = (asyncio.create_task(slots.work()) for _ in range(2))
    await asyncio.sleep(0)
    for task in (waiting, worked_on):
        task.cancel()
    await asyncio.gather(worked_on, waiting, return_exceptions=True)
    slots.capacity = Capacity(service_time_s=0.0)
    await slots.work()


def test_throttling_lets_so_many_through_in_any_second() -> None:
    """
    Both sides of the rate, and of the second.
    """
    slots = Slots(Capacity(rate=2))
    instants = (0.0, 0.5, 0.9, 1.0, 1.4, 1.5)

    assert [slots.throttles(at) for at in instants] == [False, False, True, False, True, False]
    assert not any(Slots(Capacity()).throttles(0.0) for _ in range(1000))


async def test_full_service_answers_as_the_cloud_does(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """
    500 ModelArts.4302 with the sentence of its own breaker.
    """
    twin.set_capacity({"slots": 1, "service_time": "200ms", "waiting": 1})
    replies = await calls(http, twin, 5)

    assert Counter(status for status, _ in replies) == {200: 2, 500: 3}
    refused = next(body for status, body in replies if status == 500)
    assert refused["error_code"] == "ModelArts.4302"
    assert "self protection" in refused["error_msg"]


async def test_throttled_service_answers_as_the_cloud_does(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """
    429 APIG.0308 with the limit in its text; nothing of it reaches the model.
    """
    twin.set_capacity({"rate": 2, "service_time": 0})
    replies = await calls(http, twin, 4)

    refused = [body for status, body in replies if status == 429]
    assert refused
    assert refused[0]["error_code"] == "APIG.0308"
    assert refused[0]["error_msg"] == "policy user over ratelimit,limit:2,time:1 second"
    assert twin.stats.services["slow"].predictions == 4 - len(refused)


async def test_capacity_is_set_over_http(http: aiohttp.ClientSession, twin: Twin) -> None:
    """
    What is not named stays; what does not fit is refused as a whole.
    """
    url = f"{twin.url}/twin/capacity"
    async with http.put(url, data=b'{"slots": 8, "service_time": "1s"}') as reply:
        assert reply.status == 200
    for body in (b'{"slots": 0}', b'{"speed": 1}', b"[]", b"{"):
        async with http.put(url, data=body) as reply:
            assert reply.status == 400
    async with http.get(url) as reply:
        assert await reply.json() == {
            "slots": 8, "service_time": "1000ms", "waiting": 100, "rate": 0,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ({"slots": 0}, "1 to 100000"),
        ({"slots": True}, "1 to 100000"),
        ({"rate": -1}, "0 to 100000"),
        ({"service_time": "soon"}, "500ms"),
        ({"cores": 1}, "slots, service_time, waiting, rate"),
    ],
)
def test_what_does_not_fit_is_refused(wanted: dict[str, Any], hint: str) -> None:
    """
    With what would.
    """
    with pytest.raises(FaultError, match=hint):
        parse_capacity(wanted, Capacity())
