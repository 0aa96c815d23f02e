"""A small world for identities to live in, and what may happen to it."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from gateway.identity.store import TokenStore
from tests.support.simulated_iam import Fault, SimulatedIam, Times
from tests.support.simulated_identity import LOCK_S, Identity, Surroundings
from tests.support.virtual_loop import Machine, VirtualLoop

LOGINS_PER_WAIT = 40
"""Short lives and outages are cut short after about so many: more cost more than they teach."""


class Event(Protocol):
    """Something that happens at one instant, or takes some time and then has happened."""

    async def happen(self, world: "World") -> None: ...


@dataclass(frozen=True)
class Outage:
    host: int
    fault: Fault
    retry_after: int | None

    async def happen(self, world: "World") -> None:
        iam = world.iams[self.host]
        iam.fault, iam.retry_after = self.fault, self.retry_after
        world.grant(10)


@dataclass(frozen=True)
class Slow:
    host: int
    latency_s: float

    async def happen(self, world: "World") -> None:
        world.iams[self.host].latency_s = self.latency_s
        world.grant(10)
        world.begin_anew()


@dataclass(frozen=True)
class Lives:
    """From now on tokens live for so long, and answers tell those times."""

    host: int
    life_s: float
    times: Times

    async def happen(self, world: "World") -> None:
        iam = world.iams[self.host]
        iam.life_s, iam.times = self.life_s, self.times
        world.grant(2)
        world.begin_anew()


@dataclass(frozen=True)
class Heal:
    host: int

    async def happen(self, world: "World") -> None:
        iam = world.iams[self.host]
        iam.fault, iam.latency_s = Fault.NONE, 0.05
        world.grant(2)


@dataclass(frozen=True)
class Calm:
    """Everything is put right, and nothing happens for a while."""

    days: int

    async def happen(self, world: "World") -> None:
        for host, iam in enumerate(world.iams):
            iam.storm = False
            await Heal(host).happen(world)
            await Lives(host, 86400.0, Times.ALL).happen(world)
        for who in range(len(world.identities)):
            await Secret(who, False, "right", 5.0).happen(world)
        world.review()
        await world.wait(self.days * 86400.0)


@dataclass(frozen=True)
class Revoke:
    """All tokens of an account die."""

    who: int

    async def happen(self, world: "World") -> None:
        identity = world.identities[self.who]
        identity.iam.revoke(identity.user)


@dataclass(frozen=True)
class Storm:
    """For some time services refuse every token, whatever its age, and callers go on calling."""

    who: int
    lasts_s: float

    async def happen(self, world: "World") -> None:
        world.identities[self.who].iam.storm = True
        world.surroundings.loop.call_later(self.lasts_s, self._end, world)
        await Calls(self.who, 40, self.lasts_s / 40, 0.05, 0).happen(world)

    def _end(self, world: "World") -> None:
        world.identities[self.who].iam.storm = False


@dataclass(frozen=True)
class Rotate:
    """The password changes at IAM; a file follows only by a `Secret`."""

    who: int

    async def happen(self, world: "World") -> None:
        world.identities[self.who].account.secret += "+"
        await Revoke(self.who).happen(world)


@dataclass(frozen=True)
class Secret:
    """A file of secrets changes, and that is noticed some seconds later."""

    who: int
    all: bool
    """Whether the other identities of the account read the same file."""
    kind: str
    """`right`, `wrong`, or anything else for a file that cannot be read."""
    noticed_s: float

    async def happen(self, world: "World") -> None:
        chosen = world.identities[self.who]
        right = chosen.account.secret
        secret = {"right": right, "wrong": right + "-"}.get(self.kind)
        for identity in world.identities:
            if identity is chosen or (self.all and identity.account is chosen.account):
                identity.change_secret(secret)
                world.surroundings.loop.call_later(self.noticed_s, identity.notice_secret)


@dataclass(frozen=True)
class Sleep:
    """The machine is suspended."""

    seconds: float
    late_s: float
    again: bool
    """Whether once more after it woke up, amid the logins that this caused."""

    async def happen(self, world: "World") -> None:
        self._suspend(world)
        if self.again:
            await world.wait(self.late_s + min(iam.latency_s for iam in world.iams) / 2)
            self._suspend(world)

    def _suspend(self, world: "World") -> None:
        surroundings = world.surroundings
        surroundings.suspensions += 1
        surroundings.machine.suspend(self.seconds, late_s=self.late_s)
        for identity in world.identities:
            identity.suspended(self.late_s)


@dataclass(frozen=True)
class WallStep:
    seconds: float

    async def happen(self, world: "World") -> None:
        world.surroundings.machine.wall_off_s += self.seconds


@dataclass(frozen=True)
class Calls:
    who: int
    number: int
    spacing_s: float
    answer_s: float
    """How long the service takes to answer each."""
    cancel_each: int
    """Every how many-th caller leaves within a second; 0: none does."""

    async def happen(self, world: "World") -> None:
        for index in range(self.number):
            starts_s = index * self.spacing_s
            call = world.spawn(self._call(world.identities[self.who], starts_s))
            if self.cancel_each and index % self.cancel_each == 0:
                leaves_s = starts_s + world.surroundings.random.random()
                world.surroundings.loop.call_later(leaves_s, call.cancel)

    async def _call(self, identity: Identity, starts_s: float) -> None:
        await asyncio.sleep(starts_s)
        await identity.call(self.answer_s)


@dataclass(frozen=True)
class Reload:
    who: int

    async def happen(self, world: "World") -> None:
        await world.identities[self.who].reload()


class World:
    """Two IAMs, four identities, and one machine that they run on.

    The first, second and fourth identity log in to one account, the first and the fourth for the
    same project, so that they share tokens as well. The third has an IAM of its own.
    """

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        machine = Machine(loop)
        self.surroundings = Surroundings(loop, machine, TokenStore(machine.clock), Random(seed))
        self.identities = self.surroundings.identities
        self.iams = [SimulatedIam(name, machine) for name in ("iam0", "iam1")]
        one, other = self.iams
        for name, iam, user, project in (
            ("first", one, "u", "p"),
            ("second", one, "u", "q"),
            ("third", other, "v", "v"),
            ("fourth", one, "u", "p"),
        ):
            self.identities.append(Identity(self.surroundings, name, iam, user, project))
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0

    async def live(self, story: Sequence[tuple[float, Event]]) -> None:
        """Let `story` happen: each event after some seconds, fewer if that would cost too much.

        Raises:
            AssertionError: a rule was broken.
        """
        loop, broken = self.surroundings.loop, self.surroundings.broken
        telling = asyncio.create_task(self.tell(story))
        loop.on_turn = partial(self.check, telling)
        with suppress(asyncio.CancelledError):
            await telling
        loop.on_turn = lambda _quiet: None
        for identity in self.identities:
            await identity.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not broken, broken[0]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def tell(self, story: Sequence[tuple[float, Event]]) -> None:
        """Let `story` happen, and everything come to a good end."""
        for identity in self.identities:
            identity.cache.start()
        for wait_s, event in story:
            await self.wait(min(wait_s, self.longest_wait()))
            await event.happen(self)
            self.review()
        await self.end_well()

    async def end_well(self) -> None:
        """Remove every cause; then every identity must come to have a token."""
        await Calm(0).happen(self)
        await self.wait(LOCK_S)  # IAM's own lock, if it came to that
        self.review()
        now = self.surroundings.now
        await self.wait(max(identity.usable_from for identity in self.identities) - now + 10)
        for identity in self.identities:
            usable = identity.cache.usable(self.surroundings.now)
            identity.must(usable is not None, "never recovered")
        await self.wait(1)

    def review(self) -> None:
        for identity in self.identities:
            identity.review()

    async def wait(self, seconds: float) -> None:
        if seconds > 0:
            for identity in self.identities:
                identity.allow(seconds)
            await asyncio.sleep(seconds)

    def longest_wait(self) -> float:
        """Return after how many seconds there will have been enough logins."""
        per_s = 0.0
        for who in self.identities:
            per_s += 2 / who.iam.life_s
            if who.iam.fault is not Fault.NONE or who.iam.latency_s > 1 or who.secret is None:
                per_s += 1 if who.iam.retry_after == 0 else 1 / 15
        return LOGINS_PER_WAIT / per_s

    def begin_anew(self) -> None:
        for identity in self.identities:
            identity.healthy_since = None

    def grant(self, logins: int) -> None:
        for identity in self.identities:
            identity.allowed += logins

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self.ended)
        return task

    def ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.surroundings.broken.append(repr(error))

    def check(self, telling: asyncio.Task[None], quiet: bool) -> None:
        """Hold all rules; the first that is broken ends the story."""
        now, broken = self.surroundings.now, self.surroundings.broken
        for identity in self.identities:
            identity.check(now, quiet=quiet)
        self._busy = 0 if quiet else self._busy + 1
        if self._busy > 1000:
            broken.append("a busy loop: time does not pass")
        if broken:
            self.surroundings.loop.on_turn = lambda _quiet: None
            telling.cancel()
