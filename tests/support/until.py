"""Waiting for what no event tells: the state of the gateway's own objects."""

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 100.0
"""How long a test waits for what must happen: reached only when it does not happen at all."""


async def until(is_so: Callable[[], object], *, within_s: float = PATIENCE_S) -> None:
    """Return as soon as `is_so` is true; fail when it is not in time."""
    async with asyncio.timeout(within_s):
        while not is_so():  # noqa: ASYNC110  # the state belongs to code that knows no events
            await asyncio.sleep(0.001)
