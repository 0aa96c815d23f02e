"""A tunnel through an egress proxy: what TLS to the service is then spoken in."""

import asyncio
import socket
from typing import Final

from gateway.http.connect import (
    EgressProxy,
    connect_request,
    connect_status,
    refusal_of,
    tunnel_error,
)

_READ_BYTES: Final = 4096


async def open_tunnel(sock: socket.socket, proxy: EgressProxy, host: str, port: int) -> None:
    """Make a connection to `proxy` one to `host` and `port`.

    Args:
        sock: connected to the proxy, not blocking; the caller's to close.
        proxy: who is asked.
        host: the other end.
        port: 1 to 65535.

    Raises:
        UpstreamError: the proxy opens no tunnel; nothing has been sent through it.

    Cancellation: safe; the socket can only be closed then.
    """
    loop = asyncio.get_running_loop()
    received = b""
    try:
        await loop.sock_sendall(sock, connect_request(host, port, proxy.authorization))
        while (status := connect_status(received)) is None:
            data = await loop.sock_recv(sock, _READ_BYTES)
            if not data:
                raise tunnel_error("it closed the connection without a response")
            received += data
    except OSError as cause:
        raise tunnel_error(type(cause).__name__) from cause
    if refusal := refusal_of(status):
        raise tunnel_error(refusal)
