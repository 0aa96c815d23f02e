"""Waiting for what no event tells: the state of the gateway's own objects."""

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 100.0
"""How long a test waits for what must happen: reached only when it does not happen at all."""

_LONGEST_PAUSE_S: Final = 0.05


async def until(is_so: Callable[[], object], *, within_s: float = PATIENCE_S) -> None:
    """Return soon after `is_so` has become true; fail when it is not in time.

    It looks again after a millisecond, then less and less often: looking may cost more than what is
    waited for, as when all metrics are written out for it.
    """
    pause_s = 0.001
    async with asyncio.timeout(within_s):
        while not is_so():
            await asyncio.sleep(pause_s)
            pause_s = min(1.3 * pause_s, _LONGEST_PAUSE_S)
