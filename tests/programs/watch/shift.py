"""One shift on call, in a minute: traffic, faults, and what the pager said.

Every fault is a story of its own: something breaks, and is repaired as soon as the alert for it has
been heard. So each alert is seen to fire and to clear, and nothing is waited for in vain.
"""

import asyncio
import itertools
import json
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from gateway.twin import ECHO_ID, IRIS_ID, LLM_ID, SLOW_ID, Account, Clock
from tests.programs.watch.stack import Stack, running_stack
from tests.support.served import Served, served
from tests.support.tools import tool
from tests.support.twin import running_twin
from tests.support.web_server import web_server

LIMIT_S = 240
"""By then every story must be over; it takes 50 s when nobody else needs the machine."""

_BRIEF_LIFE_S = 40
"""Of the token that is not renewed: a tenth of it is long enough for the alert to be heard."""
_SKEW_S = 120
_CROWD = 850
_SLOTS = 2
_PER_S = 20
"""What the service takes that is flooded, in requests per second."""
_INPUT = json.dumps({"input": [5.1, 3.5, 1.4, 0.2]})
_FAULTS = {
    "apig": "twin-code=APIG.0308",
    "modelarts": "twin-code=ModelArts.4503&twin-status=500",
    "model": "twin-status=500",
    "network": "twin-reset=head",
}

wall_clock = time.time  # noqa: TID251  # Prometheus asks for instants of the wall clock


@dataclass(frozen=True)
class Notice:
    """One alert in a notification that a receiver got."""

    at: float
    receiver: str
    status: str
    """`firing` or `resolved`."""
    labels: Mapping[str, str]

    def is_about(self, alert: str, labels: Mapping[str, str]) -> bool:
        """Whether it is that alert, with these labels among others."""
        return self.labels["alertname"] == alert and labels.items() <= self.labels.items()


@dataclass
class Shift:
    """What there was, and what was heard of it. Instants are seconds since the epoch."""

    stack: Stack
    began: float
    ended: float = 0.0
    unfinished: tuple[str, ...] = ()
    """Stories that were not over in time."""
    notices: list[Notice] = field(default_factory=list)
    traces: set[str] = field(default_factory=set)
    """Trace ids that callers of `iris` have sent."""
    page: str = ""
    """`/metrics` of the main gateway after everything, in Prometheus' text format."""

    def heard(self, status: str, alert: str, labels: Mapping[str, str]) -> list[Notice]:
        """Return the notifications of that status about an alert."""
        return [n for n in self.notices if n.status == status and n.is_about(alert, labels)]


Alerts = Iterable[tuple[str, dict[str, str]]]


@contextmanager
def worked(folder: Path) -> Iterator[Shift]:
    """Work a shift; Prometheus is there to be asked about it until the end."""
    for name in ("prometheus", "prometheus-alertmanager"):
        tool(name, name)
    with ExitStack() as outlives:
        yield asyncio.run(_work(folder, outlives))


async def _work(folder: Path, outlives: ExitStack) -> Shift:
    async with AsyncExitStack() as open_:
        stations = _Stations(folder, open_)
        own_port = await stations.listen()
        await stations.prepare(own_port)
        admin_ports = [stations.main.admin_port, stations.spare.admin_port]
        running = running_stack(folder, admin_ports, own_port)
        stack = await asyncio.to_thread(outlives.enter_context, running)
        async with asyncio.timeout(LIMIT_S):
            while not await asyncio.to_thread(stack.scraped, 2):  # noqa: ASYNC110  # comes from outside
                await asyncio.sleep(0.2)
        stations.shift = Shift(stack, wall_clock())
        await stations.work()
        stations.shift.ended = wall_clock()
        return stations.shift


class _Stations:
    """What takes part in a shift, and the stories."""

    shift: Shift
    main: Served
    spare: Served

    def __init__(self, folder: Path, open_: AsyncExitStack) -> None:
        self._folder = folder
        self._open = open_
        self._skew_s = _SKEW_S
        self._released = asyncio.Event()
        self._password = folder / "password"

    async def prepare(self, own_port: int) -> None:
        """Start the stand-in clouds and two gateways; `own_port`: from `listen`."""
        enter = self._open.enter_async_context
        self._good = await enter(running_twin())
        self._brief = await enter(running_twin(token_ttl_s=_BRIEF_LIFE_S))
        self._locking = await enter(running_twin())
        self._good.set_capacity({"slots": _SLOTS, "service_time": f"{1000 * _SLOTS // _PER_S}ms"})
        self._skewed = await enter(running_twin(clock=Clock(wall=self._skewed_time)))
        self._lost = await enter(running_twin())
        self._session = await enter(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False)
        )
        self._password.write_text(Account().password)
        echo = self._good.service_url(ECHO_ID)
        config = {
            "identities": {
                "nobody": {"method": "none"},
                "default": self._identity(self._good.auth_url),
                "brief": self._identity(self._brief.auth_url),
                "locking": self._identity(self._locking.auth_url),
                "skewed": self._identity(self._skewed.auth_url),
                "lost": self._identity(self._lost.auth_url),
            },
            "services": {
                "iris": {"url": self._good.service_url(IRIS_ID)},
                "echo": {"url": echo},
                "flaky": {"url": echo, "max_in_flight": 100},  # never reached
                "llm": {"url": self._good.service_url(LLM_ID, version="v2"), "usage": True},
                "slow": {"url": echo},
                "flooded": {"url": self._good.service_url(SLOW_ID), "max_in_flight": _SLOTS + 1},
                "full": {"url": f"http://127.0.0.1:{own_port}/full", "identity": "nobody"},
                "misused": {"url": echo},
                "brief": {"url": self._brief.service_url(ECHO_ID), "identity": "brief"},
                "locking": {"url": self._locking.service_url(ECHO_ID), "identity": "locking"},
                "skewed": {"url": self._skewed.service_url(ECHO_ID), "identity": "skewed"},
                "lost": {"url": self._lost.service_url(ECHO_ID), "identity": "lost"},
            },
        }
        self.main = await enter(served(self._place("main"), 0, config))
        self.spare = await enter(served(self._place("spare"), 1))

    async def listen(self) -> int:
        """Open Alertmanager's receivers, and the service that can be held up; return the port."""
        application = web.Application()
        application.router.add_post("/full", self._answer_when_released)
        application.router.add_post("/{receiver}", self._take_notice)
        return await self._open.enter_async_context(web_server(application))

    async def work(self) -> None:
        """Let all stories happen at once, with ordinary traffic around them."""
        over = asyncio.Event()
        traffic = [
            asyncio.create_task(self._calls("iris", 20, over, traced=True)),
            asyncio.create_task(self._calls("echo", 10, over)),
            asyncio.create_task(self._streams(over)),
        ]
        stories = [
            asyncio.create_task(story(), name=story.__name__.strip("_"))
            for story in (
                self._gateway_is_down,
                self._token_is_not_renewed,
                self._iam_is_unreachable,
                self._login_is_refused,
                self._clock_is_wrong,
                self._layers_fail,
                self._service_is_slow,
                self._service_is_crowded,
                self._service_is_flooded,
                self._callers_are_wrong,
                self._configuration_is_broken,
            )
        ]
        _, late = await asyncio.wait(stories, timeout=LIMIT_S)
        self.shift.unfinished = tuple(story.get_name() for story in late)
        for story in late:
            story.cancel()
        over.set()
        for ended in await asyncio.gather(*stories, *traffic, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        async with self._session.get(f"http://127.0.0.1:{self.main.admin_port}/metrics") as page:
            self.shift.page = await page.text()

    # The stories.

    async def _gateway_is_down(self) -> None:
        down = [("GatewayDown", {"instance": f"127.0.0.1:{self.spare.admin_port}"})]
        self.spare.signal(signal.SIGKILL)
        await self.spare.ended()
        await self._hear("firing", down)
        settings = {"admin_listen": f"127.0.0.1:{self.spare.admin_port}"}
        await self._open.enter_async_context(served(self._place("spare"), 1, settings))
        await self._hear("resolved", down)

    async def _token_is_not_renewed(self) -> None:
        brief = {"identity": "brief"}
        alerts = [("GatewayLoginsThrottled", brief), ("GatewayTokenMissing", brief)]
        expiring = ("GatewayTokenExpiring", brief)
        while not self.shift.heard("firing", *expiring):
            # A machine that is too busy to scrape within a tenth of the token's life gets another.
            self._brief.plan_faults({"iam": [{"fault": "throttled", "retry_after": 1}]})
            told = len(self.shift.heard("firing", *alerts[1]))
            while len(self.shift.heard("firing", *alerts[1])) == told:  # noqa: ASYNC110  # comes from outside
                await asyncio.sleep(0.05)
            await self._hear("firing", alerts)
            self._brief.plan_faults({})
        await self._hear("resolved", [*alerts, expiring])

    async def _iam_is_unreachable(self) -> None:
        self._lost.plan_faults({"iam": [{"fault": "reset"}]})
        self._lost.revoke_tokens()
        over = asyncio.Event()
        traffic = asyncio.create_task(self._calls("lost", 5, over))
        lost = {"identity": "lost"}
        alerts = [
            ("GatewayIamUnreachable", lost),
            ("GatewayTokenMissing", lost),
            ("GatewayErrorsFast", {"service": "lost", "layer": "identity"}),
        ]
        await self._hear("firing", alerts)
        self._lost.plan_faults({})
        await self._hear("resolved", alerts)
        over.set()
        await traffic

    async def _login_is_refused(self) -> None:
        locked = [("GatewayIdentityLocked", {"identity": "locking"})]
        self._set_password("wrong")
        await self._hear("firing", locked)
        self._set_password(Account().password)
        await self._hear("resolved", locked)

    def _set_password(self, password: str) -> None:
        """Replace the file at once: half a password costs a login that IAM counts."""
        written = self._password.with_suffix(".new")
        written.write_text(password)
        written.replace(self._password)

    async def _clock_is_wrong(self) -> None:
        skew = [("GatewayClockSkew", {"identity": "skewed"})]
        await self._hear("firing", skew)
        self._skew_s = 0
        self._skewed.revoke_tokens()
        await self._call("skewed")
        await self._hear("resolved", skew)

    async def _layers_fail(self) -> None:
        broken, over = asyncio.Event(), asyncio.Event()
        turn = itertools.cycle([*_FAULTS.values(), ""])
        traffic = asyncio.create_task(
            self._calls("flaky", 20, over, query=lambda: next(turn) if broken.is_set() else "")
        )
        alerts = [("GatewayErrorsFast", {"service": "flaky", "layer": layer}) for layer in _FAULTS]
        await asyncio.sleep(3)  # of a service that is well
        broken.set()
        await self._hear("firing", alerts)
        broken.clear()
        self._good.expire_tokens()  # costs nobody anything: one login, and a few calls sent again
        await self._hear("resolved", alerts)
        over.set()
        await traffic

    async def _service_is_slow(self) -> None:
        slow, over = [("GatewayUpstreamSlow", {"service": "slow"})], asyncio.Event()
        traffic = asyncio.create_task(
            self._calls("slow", 4, over, query=lambda: "twin-delay=10500ms")
        )
        await self._hear("firing", slow)
        over.set()
        await traffic
        await self._hear("resolved", slow)

    async def _service_is_crowded(self) -> None:
        full = [("GatewaySaturated", {"service": "full"})]
        async with asyncio.TaskGroup() as crowd:
            for number in range(_CROWD):
                crowd.create_task(self._call("full"))
                if number % 20 == 19:
                    await asyncio.sleep(0.02)
            await self._hear("firing", full)
            self._released.set()
        await self._hear("resolved", full)

    async def _service_is_flooded(self) -> None:
        """Send it half, twice and half of what it takes."""
        flooded = {"service": "flooded"}
        alerts = [
            ("GatewaySaturated", flooded),
            ("GatewayQueueSlow", flooded),
            ("GatewayErrorsFast", flooded | {"layer": "gateway"}),
        ]
        for status, share in (("", 0.5), ("firing", 2.0), ("resolved", 0.5)):
            over = asyncio.Event()
            traffic = asyncio.create_task(self._calls("flooded", share * _PER_S, over))
            if status:
                await self._hear(status, alerts)
            else:
                await asyncio.sleep(5)  # of a service that is well
            over.set()
            await traffic

    async def _callers_are_wrong(self) -> None:
        wrong = [("GatewayCallerErrors", {"service": "misused"})]
        for status, method, per_s in (("firing", "GET", 3), ("resolved", "POST", 60)):
            over = asyncio.Event()
            calls = self._calls("misused", per_s, over, method=method)
            traffic = asyncio.create_task(calls)
            await self._hear(status, wrong)
            over.set()
            await traffic

    async def _configuration_is_broken(self) -> None:
        failed: Alerts = [("GatewayReloadFailed", {})]
        file = self._place("main") / "gateway.yaml"
        good = file.read_text()
        for status, content in (("firing", "nonsense: 1"), ("resolved", good)):
            file.write_text(content)
            url = f"http://127.0.0.1:{self.main.admin_port}/reload"
            async with self._session.post(url) as answer:
                await answer.read()
            await self._hear(status, failed)

    # What they do.

    async def _hear(self, status: str, alerts: Alerts) -> None:
        """Wait until a receiver has got a notification of each."""
        for alert, labels in alerts:
            while not self.shift.heard(status, alert, labels):  # noqa: ASYNC110  # comes from outside
                await asyncio.sleep(0.05)

    async def _streams(self, over: asyncio.Event) -> None:
        """Read one stream of a language model after the other; every second one has its usage."""
        url = f"http://127.0.0.1:{self.main.port}/llm/v1/chat/completions?twin-gap=10ms"
        call = {"model": "twin-llm", "stream": True}
        call["messages"] = [{"role": "user", "content": "Hello"}]
        is_counted = False
        while not over.is_set():
            is_counted = not is_counted
            options = {"stream_options": {"include_usage": is_counted}}
            with suppress(aiohttp.ClientError):
                async with self._session.post(url, json=call | options) as response:
                    await response.read()
            await asyncio.sleep(0.05)

    async def _calls(
        self,
        service: str,
        per_s: float,
        over: asyncio.Event,
        *,
        query: Callable[[], str] = str,
        method: str = "POST",
        traced: bool = False,
    ) -> None:
        """Call again and again, without waiting for the answers, and in the end for all of them."""
        async with asyncio.TaskGroup() as under_way:
            while not over.is_set():
                under_way.create_task(self._call(service, query(), method, traced=traced))
                await asyncio.sleep(1 / per_s)

    async def _call(
        self, service: str, query: str = "", method: str = "POST", *, traced: bool = False
    ) -> None:
        headers = {"Content-Type": "application/json"}
        if traced:
            trace = secrets.token_hex(16)
            self.shift.traces.add(trace)
            headers["traceparent"] = f"00-{trace}-{secrets.token_hex(8)}-01"
        url = f"http://127.0.0.1:{self.main.port}/{service}?{query}".rstrip("?")
        with suppress(aiohttp.ClientError):
            async with self._session.request(method, url, data=_INPUT, headers=headers) as answer:
                await answer.read()

    async def _answer_when_released(self, request: web.Request) -> web.Response:
        await self._released.wait()
        return web.Response(body=await request.read())

    async def _take_notice(self, request: web.Request) -> web.Response:
        told = await request.json()
        receiver = request.match_info["receiver"]
        self.shift.notices.extend(
            Notice(wall_clock(), receiver, alert["status"], alert["labels"])
            for alert in told["alerts"]
        )
        return web.Response()

    def _identity(self, auth_url: str) -> dict[str, Any]:
        account = Account()
        own = self._password if auth_url == self._locking.auth_url else self._folder / "unchanged"
        own.write_text(account.password)
        return {
            "auth_url": auth_url,
            "username": account.user,
            "user_domain": account.domain,
            "password_file": str(own),
            "project": account.project,
        }

    def _skewed_time(self) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=self._skew_s)

    def _place(self, name: str) -> Path:
        place = self._folder / name
        place.mkdir(exist_ok=True)
        return place
