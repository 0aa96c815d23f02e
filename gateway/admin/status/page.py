"""`GET /status`: a page for browsers, JSON for everybody else, and what the page is made of."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

_FOLDER = Path(__file__).parent
_ASSETS = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
HEADERS = {
    # Nothing but the page's own files, which hold all its style and script; nobody may frame it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def add_status_page(
    router: web.UrlDispatcher,
    document: Callable[[], dict[str, Any]],
    history: Callable[[], str],
) -> None:
    """Serve `/status` and the page's files below it.

    Args:
        router: gets the routes.
        document: makes the JSON document; called only when somebody asks.
        history: makes that of the last ten minutes.
    """

    async def status(request: web.Request) -> web.Response:
        headers = {**HEADERS, "Vary": "Accept"}
        if prefers_html(request.headers.get("Accept", "")):
            return await _file("page.html", "text/html", headers)
        return web.json_response(document(), headers=headers)

    async def past(_request: web.Request) -> web.Response:
        return web.Response(text=history(), content_type="application/json", headers=HEADERS)

    def asset(name: str, content_type: str) -> Handler:
        async def send(_request: web.Request) -> web.Response:
            return await _file(name, content_type, HEADERS)

        return send

    router.add_get("/status", status)
    router.add_get("/status/history", past)
    for name, content_type in _ASSETS.items():
        router.add_get(f"/status/{name}", asset(name, content_type))


def prefers_html(accept: str) -> bool:
    """Return whether an Accept value prefers HTML to JSON.

    Browsers name HTML. Wildcards do not count: curl sends `*/*`, and wants JSON.
    """
    weights = {"text/html": 0.0, "application/json": 0.0}
    for offer in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in offer.split(";"))
        if kind in weights:
            weights[kind] = max([_weight(p) for p in parameters if p.startswith("q=")] or [1.0])
    return weights["text/html"] > weights["application/json"]


def _weight(parameter: str) -> float:
    try:
        return float(parameter.removeprefix("q="))
    except ValueError:
        return 0.0


async def _file(name: str, content_type: str, headers: dict[str, str]) -> web.Response:
    """Return a file's content. It is read each time, in a thread, so it takes no memory."""
    body = await asyncio.to_thread((_FOLDER / name).read_bytes)
    return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)
