"""A soak: callers of every kind, faults that come and go, and rests at which gauges are read."""

import asyncio
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gateway.twin import ECHO_ID, IMAGE_ID, IRIS_ID, Account, Twin
from tests.programs.soak.callers import PATIENCE_S, Clock, Light, Ways, crowd, run
from tests.programs.soak.faults import (
    BRIEF_S,
    FLAKY,
    LOST,
    Breakage,
    identity_faults,
    service_faults,
)
from tests.programs.soak.ledger import Episode, Firing, Ledger
from tests.programs.soak.pager import Pager
from tests.programs.soak.process import Page, Reading, page_of, read, rss_mib
from tests.programs.soak.verdict import leaks, lost, unmatched, unnoticed
from tests.programs.watch.stack import running_stack
from tests.support.served import served
from tests.support.twin import running_twin
from tests.support.web_server import web_server

TOOLS = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}
"""Programs that alerts are judged with, and Debian's packages."""

_WARM_UP_S = 8.0
_CALM_S = 3.0
_UNWATCHED_S = 15.0
"""How long a fault lasts when nobody is there to give the alarm: longer than a token lives."""
_HEAR_S = 45.0
"""By then an alert must have been heard, a service be well again, and the alert be over."""
_EPISODES_S = 35.0
"""Two faults side by side, from the first to the end of the alerts; no more begin after that."""
_DEATHS, _DEATH_S, _FORGOTTEN_S = 3, 100.0, 700.0
"""Of tokens that a service has accepted: so many so often, then so seldom that they count anew."""
_SAMPLE_S = 0.5
_WINDOW = Path(__file__).parent / "window"


@dataclass
class Soak:
    """What there was."""

    seconds: float
    watched: bool
    """Whether a Prometheus was there, so that alerts can be judged."""
    ledger: Ledger = field(default_factory=Ledger)
    episodes: list[Episode] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    """At rest: after the warm-up, and after each pair of faults."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Instant and MiB, all the time."""
    firings: list[Firing] = field(default_factory=list)
    page: Page | None = None
    """After everything."""
    broken: list[str] = field(default_factory=list)
    """What kept the soak from going on as planned."""
    exit_code: int | None = None

    def problems(self) -> list[str]:
        """Return all that is wrong, alerts aside."""
        counted = {} if self.page is None else self.page.requests
        ended = [] if self.exit_code == 0 else [f"the gateway ended with {self.exit_code}"]
        return [
            *self.broken,
            *ended,
            *leaks(self.readings),
            *lost(self.ledger, counted, self.episodes),
            *unnoticed(self.ledger, self.episodes),
        ]

    def alert_problems(self) -> list[str]:
        """Return which alerts do not match the faults; nothing when nobody was there to tell."""
        return unmatched(self.firings, self.episodes) if self.watched else []


def missing_tools() -> list[str]:
    """Return Debian packages without which alerts cannot be judged."""
    return [package for tool, package in TOOLS.items() if shutil.which(tool) is None]


async def soak(folder: Path, seconds: float, *, rate: float = 1.0, seed: int = 1) -> Soak:
    """Run a soak of about so many seconds; what is wrong with it is told by the result.

    Args:
        folder: empty, for configurations and logs.
        seconds: two faults and what they lead to fit into 45.
        rate: of calls, 1 for about 100 a second.
        seed: of what callers send.
    """
    done = Soak(seconds, watched=not missing_tools())
    async with AsyncExitStack() as open_:
        site = _Site(folder, done, open_)
        await site.prepare(random.Random(seed), rate)
        await site.work()
    return done


class _Site:
    """Everything that takes part."""

    def __init__(self, folder: Path, done: Soak, open_: AsyncExitStack) -> None:
        self._folder = folder
        self._done = done
        self._open = open_
        self._window = folder / "window.json"
        self._light = Light()
        self._pager: Pager | None = None
        began = time.monotonic()
        self._clock: Clock = lambda: time.monotonic() - began

    async def prepare(self, chance: random.Random, rate: float) -> None:
        """Start stand-in clouds, the gateway, Prometheus and the callers, who wait."""
        enter = self._open.enter_async_context
        self._good = await enter(running_twin())
        flaky = await enter(running_twin())
        lost_ = await enter(running_twin(token_ttl_s=BRIEF_S))
        password = self._password("lost")
        self._gateway = await enter(
            served(self._folder, 0, self._settings(flaky, lost_, password, await self._chat()),
                   environ={"PYTHONPATH": str(_WINDOW), "SOAK_WINDOW": str(self._window)})
        )  # fmt: skip
        self._service_faults = service_faults(flaky)
        self._identity_faults = identity_faults(lost_, password)
        tasks = []
        if self._done.watched:
            stack_folder = self._folder / "watch"
            stack_folder.mkdir()
            running = running_stack(
                stack_folder, [self._gateway.admin_port], await self._receiver()
            )
            stack = await asyncio.to_thread(running.__enter__)
            self._open.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
            self._pager = Pager(stack, self._now)
            tasks.append(self._pager.run())
        began = time.monotonic()
        self._clock = lambda: time.monotonic() - began
        kept = await enter(aiohttp.ClientSession(trust_env=False))
        single = aiohttp.TCPConnector(force_close=True)
        ways = Ways(
            f"http://127.0.0.1:{self._gateway.port}",
            kept,
            await enter(aiohttp.ClientSession(connector=single, trust_env=False)),
            chance,
        )
        for caller in crowd(rate):
            self._done.ledger.calls[caller.kind] = 0
            tasks += [
                run(caller, ways, self._light, self._done.ledger, self._clock)
                for _ in range(caller.count)
            ]
        self._sampling = asyncio.create_task(self._sample())
        self._tasks = [self._sampling, *(asyncio.create_task(task) for task in tasks)]
        self._open.push_async_callback(self._stop)

    async def work(self) -> None:
        """Warm up; break and repair two things at a time until the time is over; rest between."""
        done = self._done
        await self._rest(_WARM_UP_S)
        *lasting, once = self._identity_faults
        identity = chain([lasting[0], once], cycle(lasting))
        service = cycle(self._service_faults)
        deaths: list[float] = []
        while True:
            self._light.switch(green=True)
            deaths = self._kill_token(deaths)
            await asyncio.gather(
                self._episode(next(service), ready=None), self._episode(next(identity), ready=LOST)
            )
            self._gateway.signal(signal.SIGHUP)
            await self._rest(_CALM_S)
            if done.broken or self._clock() > done.seconds - _EPISODES_S:
                break
        while not done.broken and self._clock() < done.seconds:
            await self._rest(min(_EPISODES_S / 3, done.seconds - self._clock() + 0.1))
        done.seconds = self._clock()
        try:
            done.page = await page_of(self._gateway)
            self._sampling.cancel()  # a process that has ended has no memory to read
            self._gateway.signal(signal.SIGTERM)
            done.exit_code = await self._gateway.ended()
        except (TimeoutError, OSError, EOFError) as error:
            done.broken.append(f"the gateway did not end: {type(error).__name__}")
        if self._pager is not None:
            done.firings = [one for one in self._pager.firings if one.began <= done.seconds]

    # What happens.

    def _now(self) -> float:
        """Return the time since the callers began; the clock is set to zero just before."""
        return self._clock()

    async def _rest(self, after_s: float) -> None:
        """Let callers call for so long, then rest, and read the gauges."""
        self._light.switch(green=True)
        await asyncio.sleep(after_s)
        self._light.switch(green=False)
        try:
            async with asyncio.timeout(PATIENCE_S + 5):
                await self._light.dark()
            reading, self._done.page = await read(self._gateway, self._window, self._clock())
            self._done.readings.append(reading)
        except TimeoutError:
            self._done.broken.append(
                f"{self._clock():.0f} s: requests are still in flight though nobody calls"
            )
        except (OSError, EOFError) as error:
            self._done.broken.append(
                f"{self._clock():.0f} s: the gateway is gone ({type(error).__name__}): "
                f"{self._gateway.log[-3:]}"
            )

    def _kill_token(self, deaths: list[float]) -> list[float]:
        """Let the good services' token die, if enough time has passed since it last did.

        It costs nobody anything, since their requests are sent again; unless it happens again and
        again, when the gateway would not believe that another login helps.
        """
        now = self._clock()
        gap_s = _DEATH_S if len(deaths) < _DEATHS else _FORGOTTEN_S
        if deaths and now < deaths[-1] + gap_s:
            return deaths
        kill = self._good.expire_tokens if len(deaths) % 2 else self._good.revoke_tokens
        kill()
        return [*deaths, now]

    async def _episode(self, breakage: Breakage, *, ready: str | None) -> None:
        """Break something until its alerts are heard; repair it and wait until they are over."""
        episode = Episode(breakage.fault, self._clock())
        self._done.episodes.append(episode)
        pager, alerts = self._pager, breakage.fault.alerts
        breakage.begin()
        if pager is None:
            await asyncio.sleep(_UNWATCHED_S)
        else:
            heard: set[object] = set()

            def all_heard() -> bool:
                heard.update(alert for alert in alerts if pager.hears(alert))
                return len(heard) == len(alerts)

            await self._wait(all_heard)
        breakage.end()
        if ready is not None and not await self._usable(ready):
            self._done.broken.append(f"{breakage.fault.name}: no token {_HEAR_S} s after repair")
        episode.ended = self._clock()
        if pager is None or await self._wait(lambda: not any(map(pager.hears, alerts))):
            episode.cleared = self._clock()

    async def _wait(self, is_so: Callable[[], bool]) -> bool:
        try:
            async with asyncio.timeout(_HEAR_S):
                while not is_so():  # noqa: ASYNC110  # comes from outside
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return False
        return True

    async def _usable(self, identity: str) -> bool:
        deadline = self._clock() + _HEAR_S
        while self._clock() < deadline:
            if identity in (await page_of(self._gateway)).usable:
                return True
            await asyncio.sleep(0.3)
        return False

    async def _sample(self) -> None:
        while True:
            self._done.memory.append((self._clock(), rss_mib(self._gateway.process.pid)))
            await asyncio.sleep(_SAMPLE_S)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    # Who takes part.

    async def _chat(self) -> int:
        """Run a service that says over WebSocket what it is told; return its port."""

        async def echo(connection: ServerConnection) -> None:
            try:
                async for message in connection:
                    await connection.send(message)
            except ConnectionClosed:
                return

        server = await self._open.enter_async_context(serve(echo, "127.0.0.1", 0))
        port = next(iter(server.sockets)).getsockname()[1]
        assert isinstance(port, int)
        return port

    async def _receiver(self) -> int:
        """Take what Alertmanager sends; return the port."""

        async def take(_request: web.Request) -> web.Response:
            return web.Response()

        application = web.Application()
        application.router.add_post("/{receiver}", take)
        return await self._open.enter_async_context(web_server(application))

    def _password(self, identity: str) -> Path:
        file = self._folder / f"password-{identity}"
        file.write_text(Account().password)
        return file

    def _settings(self, flaky: Twin, lost_: Twin, password: Path, chat: int) -> dict[str, Any]:
        def identity(twin: Twin, file: Path) -> dict[str, str]:
            account = Account()
            return {
                "auth_url": twin.auth_url,
                "username": account.user,
                "user_domain": account.domain,
                "password_file": str(file),
                "project": account.project,
            }

        good = self._good
        echo = {"url": good.service_url(ECHO_ID), "replay_buffer": "4MiB"}
        broken = {"first_byte": "2s"}
        return {
            "identities": {
                "default": identity(good, self._password("default")),
                FLAKY: identity(flaky, self._password(FLAKY)),
                LOST: identity(lost_, password),
            },
            "services": {
                "iris": {"url": good.service_url(IRIS_ID)},
                "image": {"url": good.service_url(IMAGE_ID)},
                "echo": echo,
                "chat": {"url": f"http://127.0.0.1:{chat}/chat", "websocket": True},
                FLAKY: {"url": flaky.service_url(ECHO_ID), "identity": FLAKY, "timeouts": broken},
                LOST: {"url": lost_.service_url(ECHO_ID), "identity": LOST},
            },
        }
