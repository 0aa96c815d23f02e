"""A real gateway in this process, built as `serve` builds it, on ports of the kernel's choice."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

from gateway.assembly.gateway import build_gateway
from gateway.identity.credential import Credential
from gateway.lifecycle.gateway import Gateway
from gateway.observe.access_log import AccessLog
from gateway.proxy.service import Credentials, RouteTable, Service
from gateway.settings import load
from gateway.settings.effective import effective
from tests.support.client import Caller, Reply, connect
from tests.support.until import PATIENCE_S

TOKEN = b"token-%d"
POST = (
    b"POST /iris/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)
GET = b"GET /iris HTTP/1.1\r\nHost: localhost\r\n\r\n"


class FakeCredentials:
    """Implements `Credentials`: token-1, and the next after every rejection that counts."""

    def __init__(self) -> None:
        self.number = 1
        self.at_hand = True
        """Whether `usable` has one, so that nobody waits in `obtain`."""
        self.renews = True
        """What `reject` says of a request's first rejection."""
        self.are_born_dead = False
        """Whether it says the same of further ones."""
        self.pause_s = 0.0
        self.gate = asyncio.Event()
        """While clear, `obtain` waits."""
        self.gate.set()
        self.failure: Exception | None = None
        """What `obtain` raises."""
        self.rejected: list[bytes] = []
        self.healed: list[bytes] = []
        self._current = self._make()

    def _make(self) -> Credential:
        line = b"X-Auth-Token: " + TOKEN % self.number + b"\r\n"
        return Credential(line, stale_at=float("inf"), expires_at=float("inf"))

    def usable(self, now: float) -> Credential | None:  # noqa: ARG002  # it never expires
        return self._current if self.at_hand else None

    async def obtain(self) -> Credential:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self._current

    def reject(self, credential: Credential, *, again: bool = False) -> bool:
        self.rejected.append(credential.field_lines)
        if self.renews and credential is self._current:
            self.number += 1
            self._current = self._make()
        return self.renews and (self.are_born_dead or not again)

    def renewal_pause_s(self) -> float:
        return self.pause_s

    def locked_out(self, credential: Credential) -> None:
        self.rejected.append(credential.field_lines)

    def accepted(self, credential: Credential) -> None:
        self.healed.append(credential.field_lines)


class RunningGateway:
    """A gateway and what a test wants of it."""

    def __init__(self, gateway: Gateway, credentials: FakeCredentials) -> None:
        self.gateway = gateway
        self.credentials = credentials
        self.port = 0
        self.admin_port = 0
        self._callers: list[Caller] = []
        self._lines: asyncio.StreamReader

    @property
    def services(self) -> list[Service]:
        return list(self.gateway._parts.services)

    async def connect(self, *, read_buffer: int = 256 * 1024) -> Caller:
        """Open a connection, closed at the end."""
        caller = await connect(self.port, read_buffer=read_buffer)
        self._callers.append(caller)
        return caller

    async def ask(self, request: bytes) -> Reply:
        """Send one request on a connection of its own."""
        caller = await self.connect()
        caller.send(request)
        reply = await caller.reply(to_head=request.startswith(b"HEAD "))
        caller.leave()
        return reply

    async def next_record(self) -> dict[str, Any]:
        """Return the next line of the access log that has not been returned yet."""
        self.gateway._parts.data.context.observer.settle()
        line = await self._lines.readline()
        record = json.loads(line)
        assert isinstance(record, dict)
        return record

    async def settled(self) -> None:
        """Wait until no request is in flight."""
        async with asyncio.timeout(PATIENCE_S):
            while self.sample("gateway_requests_in_flight"):  # noqa: ASYNC110  # nobody signals it
                await asyncio.sleep(0.01)

    def sample(self, name: str, **labels: str) -> float:
        """Return the sum of the samples called `name` that have these labels."""
        page, _ = self.gateway._parts.metrics.exposition("")
        lines = [line for line in page.decode().splitlines() if line.startswith(name)]
        return sum(
            sample.value
            for family in text_string_to_metric_families("\n".join(lines) + "\n")
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def exemplars(self) -> dict[str, Exemplar]:
        """Return the exemplars by name of sample; a further one of the same name is left out."""
        page, _ = self.gateway._parts.metrics.exposition("application/openmetrics-text")
        return {
            sample.name: sample.exemplar
            for family in open_metrics_families(page.decode())  # type: ignore[no-untyped-call]
            for sample in family.samples
            if sample.exemplar
        }

    def series(self) -> list[str]:
        """Return every series' name and labels, without those of the process."""
        page, _ = self.gateway._parts.metrics.exposition("")
        return [
            line.rpartition(" ")[0]
            for line in page.decode().splitlines()
            if line.startswith("gateway_")
        ]


@asynccontextmanager
async def running_gateway(
    upstream_port: int,
    *,
    scheme: str = "http",
    path: str = "/v1/infers/abc",
    service: Mapping[str, Any] | None = None,
    services: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    anonymous: bool = False,
) -> AsyncIterator[RunningGateway]:
    """Run a gateway with service `iris`.

    Args:
        upstream_port: where the service is, on loopback.
        scheme: `http` or `https`.
        path: of the service's URL.
        service: further keys of the service.
        services: further services.
        settings: further keys of the whole.
        anonymous: send no token; otherwise fake credentials take the keeper's place.
    """
    iris: dict[str, Any] = {
        "url": f"{scheme}://127.0.0.1:{upstream_port}{path}",
        "methods": "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS",
    }
    flags = {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "identities": {"default": {"method": "none"}},
        "services": {"iris": iris | dict(service or {}), **(services or {})},
        **(settings or {}),
    }
    loaded = load(file=None, environ={}, flags=flags)
    read_fd, write_fd = os.pipe()
    gateway = build_gateway(loaded.settings, AccessLog(write_fd), configuration=effective(loaded))
    running = RunningGateway(gateway, FakeCredentials())
    if not anonymous:
        _give_credentials(gateway, running.credentials)
    lines = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(read_fd, "rb", 0)
    )
    running._lines = lines
    data_url, admin_url = await gateway.start()
    running.port = int(data_url.rpartition(":")[2])
    running.admin_port = int(admin_url.rpartition(":")[2])
    try:
        yield running
    finally:
        for caller in running._callers:
            with suppress(RuntimeError):
                caller.leave()
        await gateway.stop(drain=False)
        os.close(write_fd)
        pipe.close()


def _give_credentials(gateway: Gateway, credentials: Credentials) -> None:
    proxy = gateway._parts.data.context
    services = tuple(
        replace(service, credentials=credentials) for service in gateway._parts.services
    )
    proxy.rules = replace(proxy.rules, routes=RouteTable(services))
