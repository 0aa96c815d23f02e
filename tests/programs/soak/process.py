"""A running gateway, looked at from outside: /proc, its window, its metrics."""

import asyncio
import json
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.served import Served

_WAIT_S = 20


@dataclass(frozen=True)
class Reading:
    """What a gateway holds at an instant, in seconds since the soak began."""

    at: float
    rss_mib: float
    descriptors: int
    """Open files and sockets but those that the pools keep for the next request."""
    threads: int
    tasks: int
    objects: int
    """Containers that the garbage collector knows of, garbage collected."""
    series: int
    """Lines of `/metrics` with a value."""
    requests: int
    """So far, of all services."""


@dataclass(frozen=True)
class Page:
    """What `/metrics` says."""

    series: int
    requests: Counter[str]
    """By service."""
    in_flight: int
    pooled: int
    usable: frozenset[str]
    """Identities with a token."""


def rss_mib(pid: int) -> float:
    """Return resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


async def page_of(gateway: Served) -> Page:
    """Ask for the metrics."""
    text = (await gateway.ask_admin("/metrics")).body.decode()
    series = in_flight = pooled = 0
    requests: Counter[str] = Counter()
    usable = set()
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            series += 1
            if name == "gateway_requests_total":
                requests[labels["service"]] += int(value)
            elif name == "gateway_requests_in_flight":
                in_flight += int(value)
            elif name == "gateway_upstream_connections":
                pooled += int(value)
            elif name == "gateway_token_expiry_timestamp_seconds" and value:
                usable.add(labels["identity"])
    return Page(series, requests, in_flight, pooled, frozenset(usable))


async def read(gateway: Served, window: Path, at: float) -> tuple[Reading, Page]:
    """Read all gauges of a gateway that nobody calls just now.

    Raises:
        TimeoutError: requests are still in flight, or the process does not answer.
    """
    async with asyncio.timeout(_WAIT_S):
        while (page := await page_of(gateway)).in_flight:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)
        _forget(window)
        gateway.signal(signal.SIGUSR1)
        while not (told := _told(window)):  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.01)
    return _reading(gateway.process.pid, page, told, at), page


def _forget(window: Path) -> None:
    window.unlink(missing_ok=True)


def _told(window: Path) -> dict[str, int]:
    try:
        told: dict[str, int] = json.loads(window.read_text())
    except FileNotFoundError:
        return {}
    return told


def _reading(pid: int, page: Page, told: dict[str, int], at: float) -> Reading:
    return Reading(
        at=at,
        rss_mib=rss_mib(pid),
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())) - page.pooled,
        threads=len(list(Path(f"/proc/{pid}/task").iterdir())),
        tasks=told["tasks"],
        objects=told["objects"],
        series=page.series,
        requests=page.requests.total(),
    )
