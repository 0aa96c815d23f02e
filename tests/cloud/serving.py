"""Gateways for tests of tokens: in this process with their own cache, or as users run them."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from gateway.identity.credential import Credential
from gateway.identity.credential_cache import CredentialCache
from gateway.twin import IRIS_ID, Account, Twin
from tests.support.client import Reply
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.until import PATIENCE_S
from tests.support.until import until as until_so

FLOWER = (
    b'{"data":{"req_data":[{"sepal_length":3,"sepal_width":1,"petal_length":2.2,"petal_width":4}]}}'
)
CALL = (
    b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(FLOWER), FLOWER)
)


def password_identity(auth_url: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings of an identity that logs in as the twin's user, its password in a file.

    `password` among `changes` goes into that file; None takes a key out.
    """
    account = Account()
    keys = {
        "auth_url": auth_url,
        "username": account.user,
        "user_domain": account.domain,
        "project": account.project,
        "password_file": str(folder / "password"),
        "password": account.password,
        **changes,
    }
    (folder / "password").write_text(keys.pop("password"))
    return {key: value for key, value in keys.items() if value is not None}


class TokenGateway:
    """A gateway in this process and the cache of its identity `default`."""

    def __init__(self, running: RunningGateway) -> None:
        self.running = running
        self._calls = 0
        self._records_read = 0

    @property
    def cache(self) -> CredentialCache:
        return self.running.gateway._parts.credential_caches["default"]

    @property
    def credential(self) -> Credential | None:
        """What would be sent at this moment."""
        return self.cache.usable(self.running.gateway._clock())

    @property
    def token(self) -> str:
        """The token that would be sent at this moment; fails without one."""
        credential = self.credential
        assert credential is not None, "there is no token"
        return credential.field_lines.decode().removeprefix("X-Auth-Token: ").strip()

    async def call(self) -> Reply:
        """Call the service once."""
        self._calls += 1
        return await self.running.ask(CALL)

    async def call_and_wait_s(self) -> tuple[Reply, float]:
        """Call the service once; return for how many seconds it waited for a token, too."""
        reply = await self.call()
        for _ in range(self._calls - self._records_read - 1):
            await self.running.next_record()  # of the calls before
        record = await self.running.next_record()
        self._records_read = self._calls
        return reply, record["credential_us"] / 1e6

    async def burst(self, count: int) -> list[Reply]:
        """Call the service from `count` connections at once."""
        return await asyncio.gather(*(self.call() for _ in range(count)))

    async def has_token(self, limit_s: float = PATIENCE_S) -> None:
        """Wait until there is a token."""
        await until(lambda: self.credential is not None, limit_s)

    def logins(self, **labels: str) -> float:
        """Return how many logins were made, by `trigger` and `result`."""
        return self.running.sample("gateway_token_refreshes_total", identity="default", **labels)

    def gauge(self, name: str) -> float:
        """Return a gauge of the identity."""
        return self.running.sample(name, identity="default")


@asynccontextmanager
async def token_gateway(
    service_url: str, identity: Mapping[str, Any], **service: Any
) -> AsyncIterator[TokenGateway]:
    """Run a gateway with service `iris` and identity `default`."""
    address, _, path = service_url.removeprefix("http://").partition("/")
    async with running_gateway(
        int(address.rpartition(":")[2]),
        path=f"/{path}",
        service=service,
        settings={"identities": {"default": identity}},
        anonymous=True,  # the cache's own credentials instead of fake ones
    ) as running:
        yield TokenGateway(running)


@asynccontextmanager
async def twin_gateway(
    twin: Twin, folder: Path, *, auth_url: str = "", **changes: Any
) -> AsyncIterator[TokenGateway]:
    """Run a gateway in front of the twin's `iris`; `changes` are of the identity."""
    identity = password_identity(auth_url or twin.auth_url, folder, **changes)
    async with token_gateway(twin.service_url(IRIS_ID), identity) as gateway:
        yield gateway


async def until(condition: Callable[[], bool], limit_s: float = PATIENCE_S) -> float:
    """Wait until `condition` holds; return for how long. Fails after `limit_s`."""
    began = time.monotonic()
    await until_so(condition, within_s=limit_s)
    return time.monotonic() - began


def error_code(reply: Reply) -> str:
    """Return the `error_code` of an error of ours or the vendor's."""
    return str(json.loads(reply.body)["error_code"])


def retry_after(reply: Reply) -> int:
    """Return the one `Retry-After`, in seconds."""
    [value] = reply.values(b"retry-after")
    return int(value)


class ServedGateway:
    """`python -m gateway serve` in a process of its own, and a client for it."""

    def __init__(self, process: subprocess.Popen[str], url: str, admin_url: str) -> None:
        self.log: list[str] = []
        """Lines of its standard error after the first."""
        self._process = process
        self._url = url
        self._admin_url = admin_url
        self._session = requests.Session()
        self._session.trust_env = False
        self._reader = threading.Thread(target=self._read_log, name="log", daemon=True)
        self._reader.start()

    @property
    def admin(self) -> str:
        """Host and port of the admin listener."""
        return self._admin_url.removeprefix("http://")

    def call(self) -> requests.Response:
        """Call the service once."""
        headers = {"Content-Type": "application/json"}
        return self._session.post(f"{self._url}/iris", FLOWER, headers=headers, timeout=60)

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """Return status and body of `/readyz?verbose`."""
        answer = self._session.get(f"{self._admin_url}/readyz?verbose", timeout=60)
        return answer.status_code, answer.json()

    def sample(self, name: str, **labels: str) -> float:
        """Return the sum of the samples called `name` that have these labels."""
        page = self._session.get(f"{self._admin_url}/metrics", timeout=60).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def until(self, condition: Callable[[], bool], limit_s: float = PATIENCE_S) -> float:
        """Wait until `condition` holds; return for how long. Fails after `limit_s`."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < limit_s, self.log
            time.sleep(0.05)
        return time.monotonic() - began

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()

    def close(self) -> None:
        """End it and wait for it."""
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        self._session.close()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self.log.extend(lines)


@contextmanager
def served_gateway(
    folder: Path, service_url: str, identity: Mapping[str, Any], **settings: Any
) -> Iterator[ServedGateway]:
    """Run `serve` with service `iris` and identity `default`, configured by a file in `folder`.

    `settings` are further keys at the top.
    """
    config = folder / "gateway.yaml"
    settings = {
        **settings,
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "drain": {"timeout": 1},
        "identities": {"default": dict(identity)},
        "services": {"iris": {"url": service_url}},
    }
    config.write_text(json.dumps(settings))  # JSON is YAML
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OS_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=clean,
    )
    assert process.stderr is not None
    before = []
    for line in process.stderr:
        if found := re.search(r"listening on (\S+) .*admin on (\S+)", line):
            break
        before.append(line)
    else:
        process.wait(PATIENCE_S)
        process.stderr.close()
        raise AssertionError(before)
    gateway = ServedGateway(process, *found.groups())
    try:
        yield gateway
    finally:
        gateway.close()
