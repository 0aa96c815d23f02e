"""A gateway or another proxy in a memory cgroup, attacked, with a well-behaved caller beside it."""

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.programs.scenes import others
from tests.programs.scenes.attacks import MIB, Attack, bulk_service
from tests.programs.scenes.group import Group, memory_group
from tests.support.served import Served, served
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import scripted_upstream

HOLD_S = 10.0
"""So that there are hundreds of calls: of 80, the 99th percentile is the slowest."""
_REST_S = 2.0
"""After which another proxy, which does not say what waits, is called again."""
# Attackers on one machine would take the processors that the gateway is measured on. So it has one
# for itself, attackers and the caller beside share the others, and the attackers come last there.
_GATEWAYS, *_LEFT = sorted(os.sched_getaffinity(0))
_OTHERS = _LEFT or [_GATEWAYS]
_NICE, _ATTACKERS_NICE = -10, 19
# Where Linux shares processors between sessions (sched(7)), that is said of the session.
_ON_ITS_OWN = (
    "setsid", "sh", "-c", f'echo {_NICE} >/proc/self/autogroup 2>/dev/null; exec "$@"', "enter"
)  # fmt: skip
_SERVED_SHARE = 0.8
"""Of the calls beside an attack. Not all: each is on a new connection, and attackers may have all
that the memory allows."""


@dataclass(frozen=True)
class Outcome:
    """What an attack has come to."""

    attacked: str
    """`gateway`, or one of `others.NAMES`: of that, there are no probes, scrapes and turns."""
    attack: str
    peak_rss: int
    """Of the gateway, in bytes."""
    limit: int
    kills: int
    calls: dict[str, Any]
    """Of the caller beside it: counts by status, and times."""
    probes: dict[str, Any]
    scrapes: dict[str, Any]
    recovered: dict[str, Any]
    """Of the same caller, once the attack was over."""
    waiting: float
    """Bytes that wait after that, by the gateway's own account."""
    turns: dict[str, float]
    """How long the event loop's turns were during the attack (`tests.programs.scenes.turns`)."""

    def faults(self) -> list[str]:
        """Return what is not as it must be."""
        wrong = []
        if self.kills:
            wrong.append("the kernel has killed the gateway")
        if self.peak_rss > self.limit * 4 // 5:
            wrong.append(f"it had {self.peak_rss / MIB:.0f} MiB in memory")
        for name in ("probes", "scrapes", "recovered"):
            counts = getattr(self, name)["counts"]
            if set(counts) != {"200"}:
                wrong.append(f"{name}: {counts}")
        counts = self.calls["counts"]
        if counts.get("200", 0) < _SERVED_SHARE * sum(counts.values()):
            wrong.append(f"calls: {counts}")
        if self.waiting:
            wrong.append(f"{self.waiting:.0f} bytes wait after the end")
        return wrong

    def row(self) -> str:
        """Return a line for people."""
        return (
            f"{self.attacked:7} {self.limit // MIB:4} MiB  {self.attack:20} "
            f"{'KILLED' if self.kills else 'RSS'} {self.peak_rss / MIB:4.0f} MiB  "
            f"calls {self.calls['counts']} p99 {self.calls['p99_ms']} "
            f"max {self.calls['max_ms']} ms  "
            f"probes {self.probes['counts']} max {self.probes['max_ms']} ms  "
            f"scrapes {self.scrapes['counts']} max {self.scrapes['max_ms']} ms  "
            f"turns met {self.turns['met_ms']} longest {self.turns['longest_ms']} ms  "
            f"afterwards {self.recovered['counts']}"
        )


class Beside:
    """The caller beside the attack (`tests.programs.scenes.beside`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """Return the next line that it writes."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return (await self._process.stdout.readline()).decode()

    def tell(self, text: str) -> None:
        """Write it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")

    async def counts(self) -> dict[str, Any]:
        """Return what it has counted since the last time."""
        self.tell("counts")
        counts = json.loads(await self.line())
        assert isinstance(counts, dict)
        return counts


@asynccontextmanager
async def beside() -> AsyncIterator[Beside]:
    """Start the caller; it calls once it has been told the ports."""
    process = await asyncio.create_subprocess_exec(
        *_ON_ITS_OWN, sys.executable, "-m", "tests.programs.scenes.beside",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Beside(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


class Stage:
    """A process that is attacked, as often as one likes."""

    def __init__(
        self, attacked: Served | others.Other, name: str, group: Group, caller: Beside, turns: Path
    ) -> None:
        self._attacked = attacked
        self._gateway = attacked if isinstance(attacked, Served) else None
        self._name = name
        self._group = group
        self._caller = caller
        self._turns_file = turns

    async def attack(self, attack: Attack) -> Outcome:
        """Let an attack go on for `HOLD_S` after all its connections are there, then end it."""
        await self._caller_is_served()
        await self._turns()
        self._forget_peak()
        connections = await attack(self._attacked.port)
        await asyncio.sleep(HOLD_S)
        during = await self._caller.counts()
        turns = await self._turns()
        for sock in connections:
            sock.close()
        waiting = await self._comes_to_rest()
        await self._caller.counts()
        after = await self._caller_is_served()
        return Outcome(
            attacked=self._name, attack=attack.__name__, peak_rss=self._peak(),
            limit=self._group.limit, kills=self._group.kills, calls=during["calls"],
            probes=during["probes"], scrapes=during["scrapes"], recovered=after["calls"],
            waiting=waiting, turns=turns,
        )  # fmt: skip

    async def _caller_is_served(self) -> dict[str, Any]:
        """Wait until the caller has been; return its counts since the last time."""
        counts: dict[str, Any] = {"calls": {"counts": {}}}
        while not counts["calls"]["counts"]:
            await asyncio.sleep(0.5)
            counts = await self._caller.counts()
        return counts

    async def _turns(self) -> dict[str, float]:
        """Return how long the event loop's turns were since the last time."""
        if self._gateway is None:
            return {"met_ms": 0.0, "longest_ms": 0.0}
        self._turns_file.unlink(missing_ok=True)
        self._gateway.signal(signal.SIGUSR1)
        await until(lambda: self._turns_file.exists() or self._group.kills)
        turns = {} if self._group.kills else json.loads(self._turns_file.read_text())
        return {name: turns.get(name, 0.0) for name in ("met_ms", "longest_ms")}

    def _forget_peak(self) -> None:
        with suppress(OSError):  # it has been killed
            Path(f"/proc/{self._attacked.process.pid}/clear_refs").write_text("5")

    def _peak(self) -> int:
        """Return the most that was in memory since then, in bytes."""
        with suppress(OSError):
            for line in Path(f"/proc/{self._attacked.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0

    async def _comes_to_rest(self) -> float:
        """Wait until nothing waits any more; return what does in spite of that, in bytes."""
        if self._gateway is None:
            await asyncio.sleep(_REST_S)
            return 0.0
        waiting, until = 0.0, time.monotonic() + 2 * PATIENCE_S
        while time.monotonic() < until:
            with suppress(OSError, EOFError):
                waiting = await self._gateway.sample("gateway_memory_waiting_bytes") or 0.0
                if not waiting:
                    break
            await asyncio.sleep(0.5)
        return waiting


def raise_file_limit() -> None:
    """Open as many files as we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@asynccontextmanager
async def stage(limit: int, folder: Path, other: str = "") -> AsyncIterator[Stage]:
    """Run a gateway with default settings, or another proxy, in a group of so many bytes."""
    raise_file_limit()
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, _NICE)  # children inherit it
    os.sched_setaffinity(0, _OTHERS)
    turns = folder / "turns.json"
    with memory_group(limit) as group:
        prefix = (*group.prefix, *_ON_ITS_OWN, "taskset", "-c", str(_GATEWAYS))
        async with (
            scripted_upstream(bulk_service) as bulk,
            beside() as caller,
            AsyncExitStack() as stack,
        ):
            services = {"iris": int(await caller.line()), "bulk": bulk.port}
            attacked: Served | others.Other
            if other:
                attacked = await stack.enter_async_context(
                    others.running(other, folder, services, limit, prefix)
                )
            else:
                attacked = await stack.enter_async_context(
                    _gateway(folder, services, prefix, turns)
                )
            os.setpriority(os.PRIO_PROCESS, 0, _ATTACKERS_NICE)
            admin = attacked.admin_port if isinstance(attacked, Served) else None
            caller.tell(json.dumps({"data": attacked.port, "admin": admin}))
            yield Stage(attacked, other or "gateway", group, caller, turns)
    os.setpriority(os.PRIO_PROCESS, 0, nice)


def _gateway(
    folder: Path, services: dict[str, int], prefix: Sequence[str], turns: Path
) -> AbstractAsyncContextManager[Served]:
    settings = {
        "services": {
            "iris": {"url": f"http://127.0.0.1:{services['iris']}"},
            "bulk": {"url": f"http://127.0.0.1:{services['bulk']}", "methods": "GET,POST"},
        }
    }
    return served(
        folder, services["iris"], settings,
        prefix=prefix, environ={"TURNS": str(turns)}, module="tests.programs.scenes.turns",
    )  # fmt: skip
