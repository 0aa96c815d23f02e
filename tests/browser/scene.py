"""A real gateway under live traffic with faults, and a real Chromium to look at it."""

import io
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import requests
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.support.demo import Demo, running_demo
from tests.support.tools import lacking

REBOUND = "rebound.example"
"""A name that the browser resolves to loopback, as after DNS rebinding; all others fail."""
CALLERS_TEXT = "callers-own-text"
"""In paths of requests."""
CALLERS_ID = "callers-own-id"
"""Of every request."""

_FLAGS = (
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_CALLERS = 3
_PACE_S = 0.15
"""Average pause of a caller between two requests."""


def _picture() -> bytes:
    drawn = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(drawn, "PNG")
    return drawn.getvalue()


_PICTURE = _picture()


def _flower(chance: random.Random) -> dict[str, Any]:
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    return {"data": {"req_data": [{name: round(chance.uniform(1, 5), 1) for name in names}]}}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium of the system, headless, with an empty profile, that reaches only loopback."""
    program = shutil.which("chromium")
    if program is None:
        lacking("chromium is not installed, so the status page cannot be looked at")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Traffic:
    """Callers of a demo that never rest until it is left; some of their requests go wrong."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self._over = threading.Event()
        self._callers = [
            threading.Thread(target=self._call, args=(seed,), name=f"caller-{seed}")
            for seed in range(_CALLERS)
        ]

    def __enter__(self) -> Self:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for caller in self._callers:
            caller.join(10)

    def _call(self, seed: int) -> None:
        chance = random.Random(seed)
        with requests.Session() as session:
            session.trust_env = False
            session.headers["X-Request-Id"] = CALLERS_ID
            while not self._over.wait(chance.expovariate(1 / _PACE_S)):
                try:
                    self._one(session, chance)
                except requests.RequestException:
                    self._over.wait(1)  # it has gone; somebody will end this

    def _one(self, session: requests.Session, chance: random.Random) -> None:
        draw = chance.random()
        if draw < 0.01:
            session.get(f"{self._demo.url}/{CALLERS_TEXT}", timeout=60)
            return
        if draw < 0.015:
            fault = "&twin-code=APIG.0203"
        elif draw < 0.02:
            fault = "&twin-reset=head"
        elif draw < 0.035:
            fault = "&twin-status=500"
        else:
            fault = f"&twin-delay={8 + int(chance.lognormvariate(2.3, 0.7))}ms"
        if chance.random() < 0.2:
            files = {"images": _PICTURE}
            session.post(f"{self._demo.url}/image?{fault[1:]}", files=files, timeout=60)
        else:
            session.post(f"{self._demo.url}/iris?{fault[1:]}", json=_flower(chance), timeout=60)


@contextmanager
def live_demo(folder: Path) -> Iterator[Demo]:
    """Run `demo` with callers; its output goes to `folder`."""
    with running_demo(folder) as demo, Traffic(demo):
        yield demo
