"""Sends responses, whole or broken on purpose. No other module of the twin uses transports."""

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import Iterator

from aiohttp import HttpVersion11, web

from gateway.twin.faults import Faults
from gateway.twin.reply import Reply

REQUEST_ID = "X-Request-Id"
_PIECE = 65536


def new_request_id() -> str:
    """32 hexadecimal digits, as the vendor's are."""
    return secrets.token_hex(16)


def whole(reply: Reply, request_id: str) -> web.Response:
    """Return the response without faults."""
    response = web.Response(status=reply.status, body=reply.body)
    _set_head(response, reply, request_id)
    return response


def _set_head(response: web.StreamResponse, reply: Reply, request_id: str) -> None:
    fields = response.headers
    fields["Content-Type"] = reply.content_type
    fields["Server"] = reply.server
    fields[REQUEST_ID] = request_id
    for name, value in reply.headers:
        fields[name] = value


async def hang() -> None:
    """Wait until the caller goes away.

    Cancellation: the only end; aiohttp cancels handlers when their connection is lost.
    """
    await asyncio.Event().wait()


def reset(request: web.Request) -> web.Response:
    """Reset the TCP connection; return a response only because aiohttp requires one."""
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        # Some event loops lend only part of a socket; the option belongs to what lies beneath.
        with socket.socket(fileno=os.dup(sock.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def deliver(
    request: web.Request, reply: Reply, faults: Faults, request_id: str
) -> web.StreamResponse:
    """Send `reply` with the given faults.

    Cancellation: the caller has gone away; nothing is left to clean up.
    """
    if faults.delay_s:
        await asyncio.sleep(faults.delay_s)
    if faults.hang:
        await hang()
    if faults.reset == "head":
        return reset(request)
    is_event_stream = reply.content_type == "text/event-stream"
    is_broken = faults.reset or faults.cut >= 0
    in_pieces = faults.chunked or faults.slow_bytes or faults.first_token_s
    if not (in_pieces or is_event_stream or is_broken):
        return whole(reply, request_id)
    return await _deliver_in_pieces(request, reply, faults, request_id)


async def _deliver_in_pieces(
    request: web.Request, reply: Reply, faults: Faults, request_id: str
) -> web.StreamResponse:
    is_event_stream = reply.content_type == "text/event-stream"
    response = web.StreamResponse(status=reply.status)
    _set_head(response, reply, request_id)
    if (faults.chunked or is_event_stream) and request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    else:
        response.content_length = len(reply.body)
    await response.prepare(request)
    if faults.first_token_s:
        await asyncio.sleep(faults.first_token_s)
    pause_s = faults.gap_s if is_event_stream else faults.slow_pause_s
    for i, piece in enumerate(_pieces(_sent_part(reply.body, faults), faults, is_event_stream)):
        if i and pause_s:
            await asyncio.sleep(pause_s)
        await response.write(piece)
    await _end(request, response, faults)
    return response


def _sent_part(body: bytes, faults: Faults) -> bytes:
    if faults.reset:
        return body[: len(body) // 2]
    return body[: faults.cut] if faults.cut >= 0 else body


async def _end(request: web.Request, response: web.StreamResponse, faults: Faults) -> None:
    transport = request.transport
    if transport is not None and faults.reset:
        # A reset throws away what the kernel does not have yet.
        transport.set_write_buffer_limits(0)
        await request.writer.drain()
        reset(request)
    elif transport is not None and faults.cut >= 0:
        transport.close()
    else:
        await response.write_eof()


def _pieces(body: bytes, faults: Faults, is_event_stream: bool) -> Iterator[bytes]:
    if is_event_stream:
        yield from (event + b"\n\n" for event in body.split(b"\n\n") if event)
        return
    size = faults.slow_bytes or _PIECE
    for start in range(0, len(body), size):
        yield body[start : start + size]
