"""A thousand replicas with one login: the real cache and source, by simulation."""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from random import Random

import pytest

from gateway.errors import CredentialError
from gateway.identity.credential import Credential
from gateway.identity.credential_cache import CredentialCache
from gateway.identity.fleet.fleet import Fleet
from gateway.identity.fleet.keys import FleetKeyError, FleetKeys, keys_in
from gateway.identity.fleet.source import FleetSource
from gateway.identity.refresh import RefreshResult, RefreshTrigger, expires_at, stale_at
from gateway.identity.source import Login, TokenFacts
from gateway.identity.store import TokenStore
from tests.support.fake_source import Remembering, failing
from tests.support.memory_shelf import MemoryShelf
from tests.support.virtual_loop import Machine, VirtualLoop

DAY = 86400.0
LATENCY_S = 0.1
KEY, OTHER_KEY = FleetKeys([b"k" * 32]), FleetKeys([b"o" * 32])


class Iam:
    """Counts logins; its tokens are good until they are revoked."""

    def __init__(self, machine: Machine, random: Random) -> None:
        self.machine, self.random = machine, random
        self.latency_s = LATENCY_S
        self.failure: Exception | None = None
        self.asked_at: list[float] = []
        self.under_way = self.most_under_way = 0
        self.good: set[bytes] = set()

    async def log_in(self) -> Login:
        began = self.machine.clock()
        self.asked_at.append(began)
        number = len(self.asked_at)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.latency_s)
        finally:
            self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        line = b"X-Auth-Token: token-%d\r\n" % number
        self.good.add(line)
        stale = stale_at(began, DAY, self.random.random())
        credential = Credential(line, stale_at=stale, expires_at=expires_at(began, DAY))
        issued_at = datetime.fromtimestamp(began, UTC)
        return Login(credential, "key", TokenFacts(7, f"{number:08x}", issued_at=issued_at))


class Source:
    """Implements `SharedSource`."""

    account = "account"

    def __init__(self, iam: Iam) -> None:
        self.iam = iam

    async def cache_key(self) -> str:
        return "key"

    async def shared_name(self, name: Callable[..., str]) -> tuple[str, str]:
        return name("account", "secret"), name("account")

    async def fetch(self) -> Login:
        return await self.iam.log_in()


class Replica:
    """One gateway's share of the story."""

    def __init__(self, world: "World", keys: FleetKeys, probe_every_s: float = DAY) -> None:
        machine = world.machine
        store = TokenStore(machine.clock)
        self.fleet = Fleet(world.shelf, keys, probe_every_s=probe_every_s)
        self.observed = Remembering()
        self.cache = CredentialCache(
            "default",
            FleetSource(
                Source(world.iam),
                self.fleet,
                store=store,
                clock=machine.clock,
                wall_clock=machine.clock,
                random=world.random.random,
            ),
            store=store,
            clock=machine.clock,
            alarm=machine.alarm,
            observer=self.observed,
            random=world.random.random,
        )
        self.watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.watching = asyncio.create_task(self.fleet.watch())
        self.cache.start()

    async def close(self) -> None:
        await self.cache.aclose()
        if self.watching is not None:
            self.watching.cancel()
            await asyncio.gather(self.watching, return_exceptions=True)


class World:
    """IAM, the store and the replicas."""

    def __init__(self, loop: VirtualLoop, size: int, probe_every_s: float) -> None:
        self.loop = loop
        self.machine = Machine(loop)
        self.random = Random(20260102)
        self.iam = Iam(self.machine, self.random)
        self.shelf = MemoryShelf(self.machine.clock)
        self.replicas = [Replica(self, KEY, probe_every_s) for _ in range(size)]

    async def usable_by_all(self) -> list[Credential]:
        """Ask every replica for a credential, at once; nobody may wait for more than 2 s."""
        began = self.machine.clock()
        found = await asyncio.gather(*(one.cache.obtain() for one in self.replicas))
        assert self.machine.clock() - began <= 2.0
        return found

    def reject_all(self) -> None:
        """Let IAM revoke everything, and each replica's next request be refused."""
        self.iam.good.clear()
        for one in self.replicas:
            credential = one.cache.usable(self.machine.clock())
            if credential is not None:
                assert one.cache.reject(credential)

    def accept_all(self) -> None:
        """Let a service accept what each replica has."""
        for one in self.replicas:
            credential = one.cache.usable(self.machine.clock())
            assert credential is not None
            one.cache.accepted(credential)


def run(
    size: int,
    story: Callable[[World], Awaitable[None]],
    *,
    started: bool = True,
    probe_every_s: float = DAY,
) -> None:
    """Let `story` happen to replicas on a loop of its own."""

    async def live(loop: VirtualLoop) -> None:
        world = World(loop, size, probe_every_s)
        if started:
            for one in world.replicas:
                one.start()
        await story(world)
        for one in world.replicas:
            await one.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        runner.run(live(loop))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand gateways have much to say."""
    caplog.set_level(logging.CRITICAL, logger="gateway.identity")


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_replicas_need_one_login_at_a_time(count: int) -> None:
    """At the start, per renewal, and after a revocation under traffic; nobody waits above 2 s."""

    async def story(world: World) -> None:
        tokens = {one.field_lines for one in await world.usable_by_all()}
        assert len(tokens) == len(world.iam.asked_at) == 1

        world.reject_all()
        tokens = {one.field_lines for one in await world.usable_by_all()}
        assert tokens == world.iam.good
        assert len(world.iam.asked_at) == 2

        await asyncio.sleep(0.81 * DAY)  # every replica's renewal was due
        assert len(world.iam.asked_at) == 3
        assert world.iam.most_under_way == 1
        by_fleet = sum(
            (RefreshTrigger.FLEET, RefreshResult.OK) in one.observed.logins
            for one in world.replicas
        )
        assert by_fleet >= len(world.replicas) - 1

    run(count, story)


def test_who_is_killed_while_he_logs_in_is_followed_within_two_seconds() -> None:
    """His lock ends by itself."""

    async def story(world: World) -> None:
        first, second = world.replicas
        world.iam.latency_s = 60.0
        first.start()
        await asyncio.sleep(1.0)
        # As kill -9 does: nothing of it runs any more, and nothing is given back.
        for task in asyncio.all_tasks():
            if task.get_name() in {"login-default", "fleet-lock"}:
                task.cancel()
        world.shelf.release = _nothing  # type: ignore[method-assign]
        world.iam.latency_s = LATENCY_S
        killed_at = world.machine.clock()
        second.start()
        await asyncio.sleep(2.0)
        assert len(world.iam.asked_at) == 2
        assert world.iam.asked_at[1] - killed_at <= 2.0

    async def _nothing(entry: str, owner: str) -> None:
        del entry, owner

    run(2, story, started=False)


def test_a_slow_login_keeps_its_lock() -> None:
    """It is extended for as long as the login goes on, so nobody else begins one."""

    async def story(world: World) -> None:
        world.iam.latency_s = 8.0
        await asyncio.sleep(9.0)
        assert len(world.iam.asked_at) == 1
        assert len({one.field_lines for one in await world.usable_by_all()}) == 1

    run(5, story)


class SlowToLock(MemoryShelf):
    """One replica's way to the store, on which taking the lock takes long."""

    def __init__(self, shelf: MemoryShelf, delay_s: float) -> None:
        super().__init__(shelf.clock)
        self._kept, self._fences = shelf._kept, shelf._fences
        self._delay_s = delay_s

    async def acquire(self, entry: str, owner: str, life_s: float) -> int | None:
        await asyncio.sleep(self._delay_s)
        return await super().acquire(entry, owner, life_s)


def test_who_gets_the_lock_looks_once_more() -> None:
    """The login that it found missing may have ended while it took the lock."""

    async def story(world: World) -> None:
        first, second = world.replicas
        second.fleet.shelf = SlowToLock(world.shelf, 3 * LATENCY_S)
        first.start()
        second.start()
        await world.usable_by_all()
        assert len(world.iam.asked_at) == 1

    run(2, story, started=False)


def test_who_starts_while_a_rejected_token_is_replaced_does_not_take_it() -> None:
    """A service has refused it to one replica, which has told the others."""

    async def story(world: World) -> None:
        first, second = world.replicas
        first.start()
        await first.cache.obtain()
        world.iam.latency_s = 1.0
        world.reject_all()
        await asyncio.sleep(0.5)  # the login goes on, and the store still has the token
        second.start()
        assert {(await second.cache.obtain()).field_lines} == world.iam.good
        assert len(world.iam.asked_at) == 2

    run(2, story, started=False)


def test_a_wrong_password_is_refused_twice_for_the_whole_fleet() -> None:
    """Five replicas, two refused logins: the account is not locked."""

    async def story(world: World) -> None:
        world.iam.failure = failing(RefreshResult.REFUSED)
        for _ in range(20):
            await asyncio.sleep(30.0)
        assert len(world.iam.asked_at) == 2
        for one in world.replicas:
            assert one.cache.status(world.machine.clock()).locked
            with pytest.raises(CredentialError):
                await one.cache.obtain()

    run(5, story)


def test_a_wrong_password_that_was_refused_without_the_store_counts_when_it_works() -> None:
    """One replica was refused while nobody could be told; the others come to one more, not two."""

    async def story(world: World) -> None:
        world.iam.failure = failing(RefreshResult.REFUSED)
        world.shelf.broken = True
        world.replicas[0].start()
        await asyncio.sleep(1.0)
        assert len(world.iam.asked_at) == 1
        world.shelf.broken = False
        await asyncio.sleep(2.0)
        for one in world.replicas[1:]:
            one.start()
        await asyncio.sleep(30.0)
        assert len(world.iam.asked_at) == 2
        for one in world.replicas:
            assert one.cache.status(world.machine.clock()).locked

    run(5, story, started=False)


def test_what_iam_asked_one_replica_for_holds_for_all() -> None:
    """A 429 with Retry-After: nobody asks before it is over."""

    async def story(world: World) -> None:
        world.iam.failure = failing(RefreshResult.THROTTLED, retry_after_s=100.0)
        await asyncio.sleep(99.0)
        assert len(world.iam.asked_at) == 1
        world.iam.failure = None
        await asyncio.sleep(60.0)
        assert len(world.iam.asked_at) == 2
        assert all(one.cache.usable(world.machine.clock()) for one in world.replicas)

    run(20, story)


def test_while_iam_fails_one_replica_at_a_time_asks() -> None:
    """A hundred replicas ask it no more often than about once a second."""

    async def story(world: World) -> None:
        world.iam.failure = failing(RefreshResult.NETWORK)
        await asyncio.sleep(60.0)
        assert world.iam.most_under_way == 1
        assert len(world.iam.asked_at) <= 62

    run(100, story)


def test_without_the_store_each_logs_in_as_alone() -> None:
    """And at once: nobody waits for a store that is known not to work."""

    async def story(world: World) -> None:
        world.shelf.broken = True
        for one in world.replicas:
            one.start()
        await world.usable_by_all()
        assert len(world.iam.asked_at) == len(world.replicas)
        assert not any(one.fleet.up for one in world.replicas)
        assert all(one.fleet.errors for one in world.replicas)

        world.shelf.broken = False
        await asyncio.sleep(2.0)
        assert all(one.fleet.up for one in world.replicas)
        world.reject_all()
        assert len({one.field_lines for one in await world.usable_by_all()}) == 1
        assert len(world.iam.asked_at) == len(world.replicas) + 1

    run(10, story, started=False)


def test_what_the_store_held_before_an_outage_is_not_taken_after_it() -> None:
    """It died while each replica had a login of its own, and nobody could say so."""

    async def story(world: World) -> None:
        await world.usable_by_all()
        world.shelf.broken = True
        world.reject_all()
        await world.usable_by_all()
        world.accept_all()
        world.shelf.broken = False
        await asyncio.sleep(5.0)
        assert all(one.fleet.up for one in world.replicas)
        before = len(world.iam.asked_at)

        world.reject_all()
        assert {one.field_lines for one in await world.usable_by_all()} == world.iam.good
        assert len(world.iam.asked_at) == before + 1

    run(10, story, probe_every_s=5.0)


def test_a_store_that_hangs_costs_less_than_a_second_once() -> None:
    """Callers without a token still have one within 2 s."""

    async def story(world: World) -> None:
        await world.usable_by_all()
        world.shelf.latency_s = 100.0
        world.reject_all()
        await world.usable_by_all()
        asked = len(world.iam.asked_at)
        assert asked == 1 + len(world.replicas)

    run(10, story)


def test_a_store_that_has_forgotten_everything_is_no_harm() -> None:
    """Each goes on with its token; the next renewal is one login again."""

    async def story(world: World) -> None:
        await world.usable_by_all()
        world.shelf.flush()
        await asyncio.sleep(0.81 * DAY)
        assert len(world.iam.asked_at) == 2
        assert world.iam.most_under_way == 1

    run(50, story)


def test_replicas_with_another_key_act_alone_and_say_so() -> None:
    """They cannot read what the others write, and do not count on it."""

    async def story(world: World) -> None:
        await world.usable_by_all()
        stranger = Replica(world, OTHER_KEY)
        stranger.start()
        assert (await stranger.cache.obtain()).field_lines == b"X-Auth-Token: token-2\r\n"
        assert not stranger.fleet.up
        await stranger.close()

    run(2, story)


def test_who_has_both_keys_reads_what_either_wrote() -> None:
    """And knows entries by the name that the old one gives them."""
    old, new = b"a" * 32, b"b" * 32
    before, both = FleetKeys([old]), FleetKeys([new, old])

    assert both.decrypt(before.encrypt(b"x")) == b"x"
    assert before.decrypt(both.encrypt(b"x")) is None
    assert both.name("account") == before.name("account")
    assert both.name("account") != FleetKeys([new]).name("account")
    assert both.is_by_first(both.encrypt(b"x"))
    assert not both.is_by_first(before.encrypt(b"x"))


def test_a_rotation_costs_one_login() -> None:
    """The new key above the old one in one replica after another, then the new one alone.

    Who has the old one alone says so meanwhile, and goes on with its token.
    """
    both, new = FleetKeys([b"n" * 32, b"k" * 32]), FleetKeys([b"n" * 32])

    async def story(world: World) -> None:
        await world.usable_by_all()
        ups, logins = [], []
        for keys in (both, new):
            for number, before in enumerate(world.replicas):
                await before.close()
                world.replicas[number] = Replica(world, keys, 5.0)
                world.replicas[number].start()
                await world.usable_by_all()
                await asyncio.sleep(6.0)
                ups.append(sum(one.fleet.up for one in world.replicas))
            logins.append(len(world.iam.asked_at))
        assert ups == [1, 2, 3, 3, 3, 3]
        assert logins == [1, 2]

    run(3, story, probe_every_s=5.0)


@pytest.mark.parametrize(
    "content", ["", "\n", "short", "x" * 44, base64.b64encode(b"k" * 31).decode()]
)
def test_a_key_of_the_wrong_length_is_named_by_its_line(content: str) -> None:
    """And is not shown."""
    with pytest.raises(FleetKeyError) as caught:
        keys_in(content)
    assert "x" * 44 not in str(caught.value)
    good = base64.urlsafe_b64encode(b"k" * 32).decode()
    assert keys_in(f"{good}\n\n").name("a") == FleetKeys([b"k" * 32]).name("a")
