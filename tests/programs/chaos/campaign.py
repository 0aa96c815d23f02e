"""One campaign: a gateway of its own, the service and the callers in this process."""

import asyncio
from pathlib import Path
from random import Random

from tests.programs.chaos.books import Books
from tests.programs.chaos.callers import call_again_and_again
from tests.programs.chaos.service import Service
from tests.support.served import served

_CONNECTIONS = 48


async def campaign(exchanges: int, seed: int, folder: Path) -> Books:
    """Make that many exchanges, and return what was seen."""
    books = Books()
    random = Random(seed)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Service(books, random), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1/infers/chaos"
    settings = {"services": {"iris": {"url": url, "methods": ["GET", "POST"]}}}
    numbers = iter(range(1, exchanges + 1))
    try:
        async with served(folder, port, settings) as gateway:
            address = ("127.0.0.1", gateway.port)
            callers = (
                call_again_and_again(address, books, random, numbers) for _ in range(_CONNECTIONS)
            )
            await asyncio.gather(*callers)
            in_flight = await gateway.sample("gateway_requests_in_flight", service="iris")
            if in_flight:
                books.wrong.append(f"{in_flight:g} requests are in flight after the end")
    finally:
        server.close()
    return books
