"""A thousand gateways at one IAM: how hard they hit it, by simulation of the real cache."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from random import Random

import pytest

from gateway.identity.credential import Credential
from gateway.identity.credential_cache import CredentialCache
from gateway.identity.refresh import RefreshResult, expires_at, stale_at
from gateway.identity.source import Login
from gateway.identity.store import TokenStore
from tests.support.fake_source import Remembering, failing
from tests.support.virtual_loop import Machine, VirtualLoop

SIZE = 1000
MINUTE, DAY = 60.0, 86400.0
MOST_PER_S = 25
LATENCY_S = 0.1


class Fleet:
    """Gateways that share nothing but IAM; each has one cache."""

    def __init__(self, loop: VirtualLoop, size: int) -> None:
        self.loop = loop
        self.machine = Machine(loop)
        self.random = Random(20260101)
        self.down = False
        self.asked_at: list[float] = []
        """When logins began, of all gateways."""
        self.caches = [
            CredentialCache(
                f"gateway-{number}",
                _Source(self),
                store=TokenStore(self.machine.clock),
                clock=self.machine.clock,
                alarm=self.machine.alarm,
                observer=Remembering(),
                random=self.random.random,
            )
            for number in range(size)
        ]

    async def start(self) -> None:
        """Start all within the first minute."""
        for cache in self.caches:
            self.loop.call_later(self.random.random() * MINUTE, cache.start)
        await asyncio.sleep(MINUTE)

    @property
    def usable(self) -> int:
        now = self.machine.clock()
        return sum(cache.usable(now) is not None for cache in self.caches)

    def peak(self, since: float, until: float = float("inf")) -> int:
        """Return the most logins in any one second, wherever it begins, of that time."""
        return densest([at for at in self.asked_at if since <= at < until])

    async def reject_all(self) -> None:
        """Let the next request of each gateway be refused; there are ten a second of each."""
        for cache in self.caches:
            self.loop.call_later(self.random.random() / 10, self._reject, cache)
        await asyncio.sleep(0.1)

    def _reject(self, cache: CredentialCache) -> None:
        if (credential := cache.usable(self.machine.clock())) is not None:
            cache.reject(credential)


class _Source:
    """Implements `CredentialSource`."""

    account = "account"

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def cache_key(self) -> str:
        return "key"

    async def fetch(self) -> Login:
        fleet = self._fleet
        asked_at = fleet.machine.clock()
        fleet.asked_at.append(asked_at)
        await asyncio.sleep(LATENCY_S)
        if fleet.down:
            raise failing(RefreshResult.NETWORK)
        stale = stale_at(asked_at, DAY, fleet.random.random())
        return Login(Credential(b"", stale_at=stale, expires_at=expires_at(asked_at, DAY)), "key")


def densest(instants: Iterable[float]) -> int:
    """Return how many of the ascending `instants` any one second holds at the most."""
    most, window = 0, deque[float]()
    for at in instants:
        window.append(at)
        while window[0] <= at - 1.0:
            window.popleft()
        most = max(most, len(window))
    return most


def run(story: Callable[[Fleet], Awaitable[None]], size: int = SIZE) -> None:
    """Let `story` happen to a fleet on a loop of its own."""

    async def live(loop: VirtualLoop) -> None:
        fleet = Fleet(loop, size)
        await story(fleet)
        for cache in fleet.caches:
            await cache.aclose()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        runner.run(live(loop))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand gateways have much to say."""
    caplog.set_level(logging.CRITICAL, logger="gateway.identity")


def test_densest_second_is_found_wherever_it_begins() -> None:
    """Not by whole seconds, which would halve a burst across two of them."""
    assert densest([]) == 0
    assert densest([0.0, 0.9, 1.1, 1.5, 2.6]) == 3
    assert densest([0.0, 1.0, 2.0]) == 1


def test_fleet_that_started_together_does_not_march_in_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After its first minute never above 25 logins in a second, for three days."""

    async def story(fleet: Fleet) -> None:
        await fleet.start()
        await asyncio.sleep(3 * DAY)
        started, later = fleet.peak(0.0, MINUTE), fleet.peak(MINUTE)
        # The first day is left out: nobody renews in its first half.
        per_day = sum(DAY <= at < 3 * DAY for at in fleet.asked_at) / SIZE / 2
        latest_per_day = DAY / expires_at(0.0, DAY)
        with capsys.disabled():
            print(
                f"\nfleet of {SIZE}: at most {later} logins/s in three days, {started} in the "
                f"first minute; the spread costs {per_day - latest_per_day:.2f} logins per gateway "
                "and day"
            )
        assert later <= MOST_PER_S
        assert per_day < 1.6
        assert fleet.usable == SIZE

    run(story)


def test_fleet_whose_tokens_are_all_revoked_recovers_once_and_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody is made to wait for the sake of IAM: all log in at once, but only this once."""

    async def story(fleet: Fleet) -> None:
        await fleet.start()
        await asyncio.sleep(DAY)
        revoked_at, before = fleet.machine.clock(), len(fleet.asked_at)
        await fleet.reject_all()
        await asyncio.sleep(2 * LATENCY_S)
        assert fleet.usable == SIZE
        assert len(fleet.asked_at) - before <= SIZE + 1
        await asyncio.sleep(DAY)
        with capsys.disabled():
            print(
                f"\nfleet of {SIZE}, all tokens revoked under traffic: "
                f"{fleet.peak(revoked_at, revoked_at + MINUTE)} logins in one second, then at most "
                f"{fleet.peak(revoked_at + 1)} a second"
            )
        assert fleet.peak(revoked_at + 1) <= MOST_PER_S

    run(story)


def test_fleet_hardly_notices_ten_minutes_without_iam(capsys: pytest.CaptureFixture[str]) -> None:
    """Those with a token go on with it; those few whose renewal is due ask again apart."""

    async def story(fleet: Fleet) -> None:
        await fleet.start()
        await asyncio.sleep(0.65 * DAY)  # when most renewals are due
        fleet.down, down_at = True, fleet.machine.clock()
        await asyncio.sleep(10 * MINUTE)
        assert fleet.usable == SIZE
        fleet.down = False
        await asyncio.sleep(MINUTE)
        most = fleet.peak(down_at)
        with capsys.disabled():
            print(f"\nfleet of {SIZE}, IAM down for 10 minutes: at most {most} logins a second")
        assert most <= MOST_PER_S

    run(story)


@pytest.mark.parametrize(
    ("size", "most_per_s"), [(100, 25), pytest.param(1000, 110, marks=pytest.mark.long)]
)
def test_fleet_without_a_token_is_back_within_one_pause(
    capsys: pytest.CaptureFixture[str], size: int, most_per_s: int
) -> None:
    """The worst that can be: all revoked just as IAM goes down for ten minutes.

    Each gateway then asks every 15 s on average, which is 66 logins a second from a thousand.
    A longer pause would halve that and double the time until the last one works again.
    """

    async def story(fleet: Fleet) -> None:
        await fleet.start()
        await asyncio.sleep(DAY)
        fleet.down, down_at = True, fleet.machine.clock()
        await fleet.reject_all()
        await asyncio.sleep(10 * MINUTE)
        assert fleet.usable == 0
        fleet.down, up_at = False, fleet.machine.clock()
        half_s = 0.0
        while fleet.usable < size:
            half_s = half_s or (fleet.machine.clock() - up_at) * (fleet.usable >= size / 2)
            await asyncio.sleep(0.1)
        took_s = fleet.machine.clock() - up_at
        settled = fleet.peak(down_at + MINUTE, up_at)
        back = fleet.peak(up_at)
        with capsys.disabled():
            print(
                f"\nfleet of {size} without a token, IAM down for 10 minutes: at most {settled} "
                f"logins/s meanwhile, {back} on recovery; half of it works after {half_s:.0f} s, "
                f"all after {took_s:.0f} s"
            )
        assert took_s <= 30 + 2 * LATENCY_S
        assert max(settled, back) <= most_per_s
        await asyncio.sleep(DAY)
        assert fleet.peak(up_at + MINUTE) <= MOST_PER_S

    run(story, size)
