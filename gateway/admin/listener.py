"""The admin listener: probes, metrics, status. It reads our own state and never calls upstream."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.admin.health import Health, readiness
from gateway.admin.index import Entry, add_index
from gateway.admin.log_level import change_log_level
from gateway.admin.status.document import status_document
from gateway.admin.status.history import History
from gateway.admin.status.page import add_status_page
from gateway.errors import DownstreamError
from gateway.observe.metrics import Metrics
from gateway.settings.environment import LOG_LEVELS

_ANY_HOST = frozenset({"/livez", "/readyz", "/startupz", "/metrics"})
"""Paths for machines, answered under any Host name; they are of no use to a web page."""


@dataclass(frozen=True, slots=True)
class Reload:
    """The result of a reload."""

    problems: tuple[str, ...]
    """Why the old configuration is kept; empty if the new one is used."""
    warnings: tuple[str, ...]


def admin_application(
    health: Health,
    metrics: Metrics,
    history: History,
    *,
    quit_requested: Callable[[], None] | None,
    reload: Callable[[], Awaitable[Reload]] | None = None,
) -> web.Application:
    """Build the application of the admin listener.

    Args:
        health: asked at every probe.
        metrics: exported at `/metrics`.
        history: shown by the status page.
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
        page, content_type = await _scraped(metrics, request.headers.get("Accept", ""))
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def set_log_level(request: web.Request) -> web.Response:
        _refuse_browsers(request)
        return change_log_level(request)

    application = web.Application(middlewares=[_host_guard(health)])
    application.router.add_get("/livez", livez)
    application.router.add_get("/startupz", startupz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", show_metrics)
    application.router.add_post("/log-level", set_log_level)
    add_status_page(application.router, partial(status_document, health, metrics), history.text)
    entries = [*_ENTRIES, Entry("POST", "/log-level?level=debug", _LOG_LEVEL)]
    if reload is not None:
        application.router.add_post("/reload", _reload_by(reload, health))
        entries.append(Entry("POST", "/reload", "read the configuration again and use it"))
    if quit_requested is not None:
        application.router.add_post("/quitquitquit", _quit_by(quit_requested))
        entries.append(Entry("POST", "/quitquitquit", "drain, and end"))
    add_index(application.router, entries)
    return application


async def _scraped(metrics: Metrics, accept: str) -> tuple[bytes, str]:
    """Return the page for Prometheus; requests go on while it is written."""
    writing = metrics.write_exposition(accept)
    while True:
        try:
            next(writing)
        except StopIteration as end:
            page: tuple[bytes, str] = end.value
            return page
        await asyncio.sleep(0)


_LOG_LEVEL = f"change the log level: {', '.join(LOG_LEVELS).lower()}"
_ENTRIES = (
    Entry("GET", "/status", "traffic, services, identities, last requests, configuration"),
    Entry("GET", "/status/history", "counters of the last ten minutes, as JSON"),
    Entry("GET", "/metrics", "for Prometheus"),
    Entry("GET", "/livez", "200 while the process works"),
    Entry("GET", "/readyz?verbose", "200 when requests may be sent here, else 503 and the reason"),
    Entry("GET", "/startupz", "200 once both listeners are open"),
)


def _host_guard(health: Health) -> Middleware:
    """Return the middleware that rejects web pages which have rebound a name to this address."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host")
        if host is not None and request.path not in _ANY_HOST:
            try:
                health.admin_hosts.admit(host.encode("utf-8", "surrogateescape"))
            except DownstreamError as error:
                answer = error.code.value
                return web.Response(text=answer.sentence + "\n", status=answer.status)
        return await handler(request)

    return guard


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
    """Reject requests with the header fields that browsers add and no program sets."""
    if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
        raise web.HTTPForbidden(text="web pages may not do this\n")


def _verdict(
    request: web.Request, what: str, is_so: bool, reason: str, **more: Any
) -> web.Response:
    """Return the response to a probe: one word, or JSON with `?verbose`."""
    status = 200 if is_so else 503
    if "verbose" in request.query:
        return web.json_response({what: is_so, "reason": reason, **more}, status=status)
    return web.Response(text=reason + "\n", status=status)
