"""What the tests of the stand-in cloud share."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from yarl import URL

from gateway.twin import ECHO_ID, Clock, Twin
from tests.support.twin import login_body


class MovableTime:
    """Both clocks of a twin, moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
        self.uptime = 1000.0

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.uptime += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.uptime)


class Answer:
    """A complete answer."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def send(http: aiohttp.ClientSession, method: str, url: str | URL, **kwargs: Any) -> Answer:
    async with http.request(method, url, **kwargs) as response:
        return Answer(response, await response.read())


async def log_in(http: aiohttp.ClientSession, twin: Twin, body: Any = None) -> Answer:
    url = twin.auth_url + "/auth/tokens?nocatalog=true"
    return await send(http, "POST", url, json=login_body() if body is None else body)


async def token_of(http: aiohttp.ClientSession, twin: Twin, body: Any = None) -> str:
    answer = await log_in(http, twin, body)
    assert answer.status == 201, answer.body
    return answer.headers["X-Subject-Token"]


async def predict(
    http: aiohttp.ClientSession, twin: Twin, service: str = ECHO_ID, tail: str = "", **kwargs: Any
) -> Answer:
    headers = {"X-Auth-Token": await token_of(http, twin), **kwargs.pop("headers", {})}
    method = kwargs.pop("method", "POST")
    url = twin.service_url(service) + tail
    return await send(http, method, url, headers=headers, **kwargs)


def _changed(path: str, value: Any) -> dict[str, Any]:
    body = login_body()
    *parents, last = path.split(".")
    at: Any = body
    for parent in parents:
        at = at[parent]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return body


WRONG = _changed("auth.identity.password.user.password", "wrong")


# IAM's faults


async def plan(http: aiohttp.ClientSession, twin: Twin, **wanted: Any) -> Answer:
    return await send(http, "PUT", twin.url + "/twin/faults", json=wanted)


async def _raw_call(twin: Twin, tail: str, announced: int = 3) -> tuple[bytes, bool]:
    """What comes back over the wire for a body of three bytes, and whether a reset ended it.

    Of a longer body nothing is sent, and only the first line of the answer is awaited.
    """
    async with aiohttp.ClientSession() as http:
        token = await token_of(http, twin)
    host, port = twin.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/infers/{ECHO_ID}{tail} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\n"
        f"Content-Length: {announced}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + (b"abc" if announced == 3 else b""))
    got = bytearray()
    was_reset = False
    try:
        while piece := await reader.read(65536):
            got += piece
            if announced != 3 and b"\r\n" in got:
                break
    except ConnectionResetError:
        was_reset = True
    writer.close()
    return bytes(got), was_reset
