"""The admin listener: probes, metrics, status. It reads our own state and never calls upstream."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from aiohttp import web

from gateway import __version__
from gateway.identity.report import KeeperStatus
from gateway.observe.metrics import Metrics


class Health(Protocol):
    """What the probes ask of the gateway."""

    @property
    def started(self) -> bool:
        """Whether both listeners are open."""
        ...

    @property
    def draining(self) -> bool:
        """Whether the gateway is on its way out."""
        ...

    def services(self) -> dict[str, str]:
        """Return the identity of each service."""
        ...

    def identities(self) -> dict[str, KeeperStatus]:
        """Return the present state of each identity."""
        ...

    def uptime_s(self) -> float:
        """Return for how long the gateway has been running, in seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests should be sent here, and for each service why not."""

    ready: bool
    reason: str
    services: dict[str, str]
    """`ok`, or why the service cannot be served."""


def readiness(health: Health) -> Readiness:
    """Judge readiness: at least one service can be served, and we are not draining."""
    identities = health.identities()
    services = {
        name: "ok" if (status := identities[identity]).usable else f"{identity}: {status.reason}"
        for name, identity in health.services().items()
    }
    if health.draining:
        return Readiness(ready=False, reason="draining", services=services)
    if not health.started:
        return Readiness(ready=False, reason="starting", services=services)
    if "ok" not in services.values():
        return Readiness(ready=False, reason="no service has a usable token", services=services)
    return Readiness(ready=True, reason="ok", services=services)


def admin_application(
    health: Health, metrics: Metrics, *, quit_requested: Callable[[], None] | None
) -> web.Application:
    """Build the application of the admin listener.

    Args:
        health: asked at every probe.
        metrics: exported at `/metrics`.
        quit_requested: called by POST `/quitquitquit`; None leaves that path out.
    """

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def startupz(_request: web.Request) -> web.Response:
        return _verdict(health.started, "ok" if health.started else "starting")

    async def readyz(request: web.Request) -> web.Response:
        state = readiness(health)
        if "verbose" in request.query:
            return web.json_response(asdict(state), status=200 if state.ready else 503)
        return _verdict(state.ready, state.reason)

    async def show_metrics(request: web.Request) -> web.Response:
        page, content_type = metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def status(_request: web.Request) -> web.Response:
        return web.json_response(_status_of(health), headers={"Cache-Control": "no-store"})

    async def quitquitquit(_request: web.Request) -> web.Response:
        if quit_requested is not None:
            quit_requested()
        return web.Response(text="draining\n")

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/startupz", startupz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", show_metrics)
    application.router.add_get("/status", status)
    if quit_requested is not None:
        application.router.add_post("/quitquitquit", quitquitquit)
    return application


def _verdict(good: bool, text: str) -> web.Response:
    return web.Response(text=text + "\n", status=200 if good else 503)


def _status_of(health: Health) -> dict[str, Any]:
    state = readiness(health)
    return {
        "version": __version__,
        "uptime_s": round(health.uptime_s(), 3),
        "ready": state.ready,
        "reason": state.reason,
        "services": {
            name: {"identity": identity, "state": state.services[name]}
            for name, identity in health.services().items()
        },
        "identities": {name: _identity_of(status) for name, status in health.identities().items()},
    }


def _identity_of(status: KeeperStatus) -> dict[str, Any]:
    facts = status.facts
    return {
        "usable": status.usable,
        "reason": status.reason,
        "locked": status.locked,
        "expires_at": _finite(status.wall_expires_at),
        "next_login_s": _finite(status.next_login_s),
        "last_result": status.last_result,
        "clock_skew_s": status.skew_s,
        "token": None
        if facts is None
        else {
            "fingerprint": facts.fingerprint,
            "length": facts.length,
            "user": facts.user,
            "project": facts.project,
        },
    }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity; what never ends has no end to show."""
    return None if value is None or math.isinf(value) else round(value, 3)
