"""A stand-in cloud whose clocks the test moves."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.twin import Twin
from tests.cloud.twin.given import MovableTime
from tests.support.twin import running_twin


@pytest.fixture
def time_of_twin() -> MovableTime:
    return MovableTime()


@pytest.fixture
async def twin(time_of_twin: MovableTime) -> AsyncIterator[Twin]:
    async with running_twin(clock=time_of_twin.clock()) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(max_field_size=1 << 18) as session:
        yield session
