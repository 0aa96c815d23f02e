"""A service as the overload shapes need it: 4 slots of 50 ms, first come, first served.

It does not notice that a caller has left, as most model servers do not: what it has accepted, it
works off. A process of its own; it prints its port.
"""

import asyncio
import sys

SLOTS = 4
SERVICE_TIME_S = 0.05
CAPACITY = SLOTS / SERVICE_TIME_S
"""Requests per second."""
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def serve() -> None:
    """Serve on a free port of loopback until the process is ended."""
    free = asyncio.Semaphore(SLOTS)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                at = head.lower().find(b"content-length:")
                if at >= 0:
                    await reader.readexactly(int(head[at + 15 : head.index(b"\r", at)]))
                async with free:
                    await asyncio.sleep(SERVICE_TIME_S)
                writer.write(_OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
