"""Many large uploads at once to an upstream that does not read: what the contestant keeps of them
shows in its memory. A process of its own that prints JSON.
"""

import asyncio
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass

import uvloop

_PIECE = bytes(range(256)) * 256


@dataclass(frozen=True)
class Order:
    """What to send."""

    port: int
    path: str
    uploads: int
    body_bytes: int


async def upload(order: Order) -> str:
    """Send one body; return "200" or what came instead."""
    reader, writer = await asyncio.open_connection("127.0.0.1", order.port)
    try:
        writer.write(
            f"POST {order.path} HTTP/1.1\r\nHost: 127.0.0.1:{order.port}\r\n"
            "Content-Type: application/octet-stream\r\n"
            f"Content-Length: {order.body_bytes}\r\n\r\n".encode()
        )
        for _ in range(order.body_bytes // len(_PIECE)):
            writer.write(_PIECE)
            await writer.drain()
        status = (await reader.readuntil(b"\r\n")).split(b" ")[1].decode()
        await reader.readuntil(b"\r\n\r\n")
    except (OSError, EOFError, asyncio.LimitOverrunError) as error:
        return type(error).__name__
    finally:
        writer.close()
    return status


async def run(order: Order) -> dict[str, int]:
    """Return how many uploads ended how."""
    async with asyncio.timeout(60):
        return Counter(await asyncio.gather(*(upload(order) for _ in range(order.uploads))))


def ask_for(order: Order) -> list[str]:
    """Return the command that runs `order`."""
    return [sys.executable, "-m", "tests.programs.bench.uploads", json.dumps(asdict(order))]


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(Order(**json.loads(sys.argv[1]))))))
