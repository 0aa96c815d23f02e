"""One harmless request to a service, sent the way the gateway sends its own.

Harmless: a GET without body and query is safe by definition (RFC 9110 section 9.2.1), and no
prediction, which is a POST with data. A model that is reached responds with 405, 404 or the like.
An API gateway that has published POST only may respond to a GET as to an unknown address; only
then an empty POST is sent, from which no model can make a prediction.
"""

import asyncio
import re

from gateway.assembly.services import build_origin
from gateway.clock import boottime
from gateway.diagnose.vendor_codes import Visited
from gateway.errors import ErrorCode, UpstreamError
from gateway.http.response_head import ResponseHead
from gateway.identity.answer import instant_of_date
from gateway.identity.credential import Credential
from gateway.proxy.rejection import PEEK_BYTES, vendor_code
from gateway.settings import Service
from gateway.upstream.connection import ResponseListener
from gateway.upstream.pool import Pool

LONGEST_WAIT_S = 10.0
"""Seconds until the response must begin; less if `timeouts.first_byte` is less."""
_BODY_S = 2.0
_CODE = re.compile(r"(?:APIG|ModelArts|MR)\.[0-9]{1,8}")
_REQUEST_ID = re.compile(r"[0-9A-Fa-f-]{8,40}")


async def visit(name: str, service: Service, credential: Credential) -> Visited:
    """Send the request, at most twice, and return the response.

    Raises:
        UpstreamError: there is no whole answer.
        ConfigError: a certificate or key cannot be used.

    Cancellation: safe; leaves no connection behind.
    """
    visited = await _ask(name, service, credential, "GET")
    if visited.status == 401 and visited.date is not None and credential.signs:
        now = boottime()
        credential.note_date(_host_line(service), visited.date, now)
        if credential.is_cured(now):  # the signature was made with a wrong clock
            visited = await _ask(name, service, credential, "GET")
    if visited.status == 404 and visited.code and "POST" in service.methods:
        return await _ask(name, service, credential, "POST")
    return visited


class _Collector(ResponseListener):
    """Collects as much of a response as shows who sent it."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = b""
        self.complete = False
        self.error: UpstreamError | None = None
        self.news = asyncio.Event()

    def on_response(self, head: ResponseHead, body: list[bytes], complete: bool) -> None:
        """See `ResponseListener`."""
        self.head = self.head or head
        self.body += b"".join(body)
        self.complete = complete or len(self.body) >= PEEK_BYTES
        self.news.set()

    def on_failure(self, error: UpstreamError) -> None:
        """See `ResponseListener`."""
        self.error = error
        self.news.set()

    def on_writable(self) -> None:
        """See `ResponseListener`; nothing more is written."""

    async def wait_for_head(self) -> ResponseHead:
        """Wait until the response has begun.

        Raises:
            UpstreamError: there is no response.
        """
        while self.head is None:
            if self.error is not None:
                raise self.error
            await self._wait()
        return self.head

    async def wait_for_body(self) -> None:
        """Wait until there is enough of the body.

        Raises:
            UpstreamError: it breaks off.
        """
        while not self.complete:
            if self.error is not None:
                raise self.error
            await self._wait()

    async def _wait(self) -> None:
        await self.news.wait()
        self.news.clear()


async def _ask(name: str, service: Service, credential: Credential, method: str) -> Visited:
    limit_s = min(service.timeouts.first_byte, LONGEST_WAIT_S)
    connection = await Pool(build_origin(name, service), clock=boottime).connect()
    collector = _Collector()
    asked_at = boottime()
    try:
        path = (service.path or "/").encode("ascii")
        lines = credential.lines_for(method, _host_line(service), path, b"", asked_at)
        connection.start(
            collector, [_request(service, lines, method)], head_request=False, sent=True
        )
        try:
            async with asyncio.timeout(limit_s):
                head = await collector.wait_for_head()
        except TimeoutError as cause:
            text = f"no answer within {limit_s:g} s"
            raise UpstreamError(ErrorCode.HTTP_RESPONSE_TIMEOUT, text) from cause
        took_s = boottime() - asked_at
        try:
            async with asyncio.timeout(_BODY_S):
                await collector.wait_for_body()
        except TimeoutError:
            pass  # an endless stream: its head is enough
    finally:
        connection.abort()
    code = vendor_code(collector.body[:PEEK_BYTES])
    request_id = head.request_id.decode("latin-1")
    is_token = request_id.encode("latin-1") in lines  # a mirror's idea of an id
    return Visited(
        method=method,
        status=head.status,
        code=code if _CODE.fullmatch(code) else "",
        server=head.server,
        keystone=head.challenges_for_keystone,
        request_id=request_id if _REQUEST_ID.fullmatch(request_id) and not is_token else "",
        date=instant_of_date(head.value_of(b"date").decode("latin-1")),
        took_s=took_s,
    )


def _host_line(service: Service) -> bytes:
    return f"Host: {service.authority}".encode("ascii")


def _request(service: Service, credential_lines: bytes, method: str) -> bytes:
    lines = (
        f"{method} {service.path or '/'} HTTP/1.1\r\n"
        f"Host: {service.authority}\r\n"
        "Accept: application/json\r\n"
        "User-Agent: modelarts-gateway\r\n"
    )
    if method == "POST":
        lines += "Content-Type: application/json\r\nContent-Length: 0\r\n"
    return lines.encode("ascii") + credential_lines + b"Connection: close\r\n\r\n"
