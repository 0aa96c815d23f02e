"""The admin listener: probes, metrics, status. It reads our own state and never calls upstream."""

import math
from collections.abc import Awaitable, Callable
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


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload has come to."""

    problems: tuple[str, ...]
    """Why the old configuration stays; none: the new one is in force."""
    warnings: tuple[str, ...]


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
    health: Health,
    metrics: Metrics,
    *,
    quit_requested: Callable[[], None] | None,
    reload: Callable[[], Awaitable[Reload]] | None = None,
) -> web.Application:
    """Build the application of the admin listener.

    Args:
        health: asked at every probe.
        metrics: exported at `/metrics`.
        quit_requested: called by POST `/quitquitquit`; None leaves that path out.
        reload: called by POST `/reload`; None leaves that path out.
    """

    async def livez(request: web.Request) -> web.Response:
        return _verdict(request, "live", True, "ok", uptime_s=round(health.uptime_s(), 3))

    async def startupz(request: web.Request) -> web.Response:
        started = health.started
        return _verdict(request, "started", started, "ok" if started else "starting")

    async def readyz(request: web.Request) -> web.Response:
        state = readiness(health)
        return _verdict(request, "ready", state.ready, state.reason, services=state.services)

    async def show_metrics(request: web.Request) -> web.Response:
        page, content_type = metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def status(_request: web.Request) -> web.Response:
        return web.json_response(_status_of(health), headers={"Cache-Control": "no-store"})

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/startupz", startupz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", show_metrics)
    application.router.add_get("/status", status)
    if quit_requested is not None:
        application.router.add_post("/quitquitquit", _quit_by(quit_requested))
    if reload is not None:
        application.router.add_post("/reload", _reload_by(reload, health))
    return application


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _quit_by(quit_requested: Callable[[], None]) -> Handler:
    async def quitquitquit(request: web.Request) -> web.Response:
        _refuse_browsers(request)
        quit_requested()
        return web.Response(text="draining\n")

    return quitquitquit


def _reload_by(reload: Callable[[], Awaitable[Reload]], health: Health) -> Handler:
    async def read_again(request: web.Request) -> web.Response:
        _refuse_browsers(request)
        done = await reload()
        busy = health.draining or not health.started
        return web.json_response(
            {"reloaded": not done.problems, **asdict(done)},
            status=200 if not done.problems else 409 if busy else 422,
            headers={"Cache-Control": "no-store"},
        )

    return read_again


def _refuse_browsers(request: web.Request) -> None:
    """Refuse what a web page on this machine may send without asking; no program sets these."""
    if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
        raise web.HTTPForbidden(text="web pages may not do this\n")


def _verdict(
    request: web.Request, what: str, is_so: bool, reason: str, **more: Any
) -> web.Response:
    """Answer a probe: in a word, or with `?verbose` as JSON."""
    status = 200 if is_so else 503
    if "verbose" in request.query:
        return web.json_response({what: is_so, "reason": reason, **more}, status=status)
    return web.Response(text=reason + "\n", status=status)


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
