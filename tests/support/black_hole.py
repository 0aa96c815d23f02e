"""An address that takes no connection and refuses none: packets to a full queue are dropped."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield `host:port` on loopback that nobody can connect to, and that refuses nobody."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(full.getsockname())
        yield f"127.0.0.1:{full.getsockname()[1]}"
