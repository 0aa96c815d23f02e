"""`GET /`: the list of the admin listener's paths, for people and for programs."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from aiohttp import web

from gateway.admin.status.page import HEADERS, prefers_html


class Entry(NamedTuple):
    """One path of the admin listener."""

    method: str
    path: str
    """With a query, where there must be one."""
    what: str


def add_index(router: web.UrlDispatcher, entries: Sequence[Entry]) -> None:
    """Serve `/`: a page with links for browsers, plain text for everybody else."""

    async def index(request: web.Request) -> web.Response:
        headers = {**HEADERS, "Vary": "Accept"}
        if prefers_html(request.headers.get("Accept", "")):
            page = _page(entries)
            return web.Response(text=page, content_type="text/html", headers=headers)
        lines = [f"{method:4}  {path:24}  {what}\n" for method, path, what in entries]
        return web.Response(text="".join(["modelarts-gateway\n\n", *lines]), headers=headers)

    router.add_get("/", index)


def _page(entries: Sequence[Entry]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_shown(entry)}</th><td class="wrap">{escape(entry.what)}</td></tr>\n'
        for entry in entries
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>modelarts-gateway</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" type="image/svg+xml" href="status/icon.svg">
<link rel="stylesheet" href="status/page.css">
</head>
<body>
<header><img src="status/icon.svg" alt="" width="32" height="32">
<div class="name"><h1>modelarts-gateway</h1><p>Admin listener</p></div></header>
<main><section aria-labelledby="paths"><div class="title"><h2 id="paths">Paths</h2></div>
<div class="scroll"><table class="stacking">
<tbody>
{rows}</tbody></table></div></section></main>
</body>
</html>
"""


def _shown(entry: Entry) -> str:
    """Return a link for a GET; only text for a POST, which browsers may not send."""
    path = escape(entry.path)
    if entry.method == "GET":
        return f'<a href="{escape(entry.path.removeprefix("/"))}">{path}</a>'
    return f"<code>{entry.method} {path}</code>"
