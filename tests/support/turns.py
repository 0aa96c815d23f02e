"""A clock that shows how long something takes, whatever the machine does beside it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """A clock that counts turns of the event loop, which never sleeps meanwhile.

    Who waits for a timer, or for an acknowledgement, waits for many turns; a busy machine makes
    turns long, but not many.
    """

    def __init__(self) -> None:
        self._count = 0
        self._counting = asyncio.create_task(self._go_on(), name="turns")

    def now(self) -> int:
        """Return how many there were."""
        return self._count

    def end(self) -> None:
        """Count no more."""
        self._counting.cancel()

    async def _go_on(self) -> None:
        while True:
            self._count += 1
            await asyncio.sleep(0)


@asynccontextmanager
async def turns_counted() -> AsyncIterator[Turns]:
    """Count turns until the block ends."""
    turns = Turns()
    try:
        yield turns
    finally:
        turns.end()
