"""Who gets the page, who gets JSON, and what browsers are told to forbid."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from gateway.admin.status import page
from gateway.admin.status.page import add_status_page, prefers_html

FOLDER = Path(page.__file__).parent
CHROMIUM = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (CHROMIUM, True),
        (FIREFOX, True),
        ("TEXT/HTML", True),
        ("application/json;q=0.5, text/html", True),
        ("text/html;level=1;q=0.4, application/json;q=0.3", True),
        ("", False),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        ("application/json, text/html", False),
        ("application/json, text/html;q=0.9, */*;q=0.1", False),
        ("text/html;q=0", False),
        ("text/html;q=nonsense", False),
        ("text/plain", False),
        (",;,", False),
    ],
)
def test_only_browsers_get_html(accept: str, html: bool) -> None:
    """They name it, and JSON not as gladly; curl and everything in doubt gets JSON."""
    assert prefers_html(accept) is html


@asynccontextmanager
async def status_page() -> AsyncIterator[str]:
    """Run the page alone; yields its URL."""
    application = web.Application()
    add_status_page(application.router, lambda: {"ready": True}, lambda: "{}")
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/status"
    finally:
        await runner.cleanup()


async def fetch(url: str, accept: str = "*/*") -> tuple[Mapping[str, str], str]:
    """Return the header and the body of a good answer."""
    async with ClientSession() as session, session.get(url, headers={"Accept": accept}) as answer:
        assert answer.status == 200
        return answer.headers, await answer.text()


async def test_both_forms_are_at_one_address() -> None:
    """A cache between cannot mix them up, and neither is kept."""
    async with status_page() as url:
        head, text = await fetch(url)
        html_head, html = await fetch(url, FIREFOX)

    assert json.loads(text) == {"ready": True}
    assert head["Content-Type"].startswith("application/json")
    assert html_head["Content-Type"] == "text/html; charset=utf-8"
    assert html.startswith("<!doctype html>")
    for headers in (head, html_head):
        assert headers["Vary"] == "Accept"
        assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
async def test_everything_is_sent_under_a_strict_policy(path: str, content_type: str) -> None:
    """Nothing from elsewhere, nothing inline, no frame, no guessing of types."""
    async with status_page() as url:
        headers, _ = await fetch(url + path, "text/html" if not path else "*/*")

    policy = dict(
        directive.strip().split(" ", 1)
        for directive in headers["Content-Security-Policy"].split(";")
    )
    assert headers["Content-Type"] == f"{content_type}; charset=utf-8"
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert {*policy.values()} == {"'none'", "'self'", "'script'"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline() -> None:
    """It works offline, and under its policy."""
    sources = {name: (FOLDER / name).read_text() for name in ("page.html", "page.css", "page.js")}
    html = sources["page.html"]

    for name, text in sources.items():
        links = set(re.findall(r"https?://[^\s\"']+", text)) - {"http://www.w3.org/2000/svg"}
        assert not links, name
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", html)
    assert "@import" not in sources["page.css"]
    assert "url(" not in sources["page.css"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|eval\(", sources["page.js"])
