"""Tasks that nobody waits for: their end is noticed."""

import asyncio

import pytest

from gateway.lifecycle.background import in_background


async def _fails() -> None:
    raise ValueError("sesame")


async def test_a_defect_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """While the task is kept, so that Python says nothing of it."""
    task = in_background(_fails(), "secret-watch")
    await asyncio.wait([task])
    await asyncio.sleep(0)

    [line] = caplog.messages
    assert line.startswith("secret-watch has ended because of a defect")


async def test_an_end_in_order_is_not(caplog: pytest.LogCaptureFixture) -> None:
    """Nor one that is asked for."""
    cancelled = in_background(asyncio.sleep(1000), "heartbeat")
    cancelled.cancel()
    done = in_background(asyncio.sleep(0), "history")
    await asyncio.wait([cancelled, done])
    await asyncio.sleep(0)

    assert not caplog.messages
