"""Twice the capacity for a minute, in simulated time: who is served, who is refused, and when.

The service has 4 slots of 50 ms; callers come at random instants and give up after a second.
"""

import heapq
import itertools
import random

import pytest

from gateway.errors import Rejection
from gateway.proxy.limit import Limit
from gateway.proxy.queue import HELD, Places, Ticket

SLOTS = 4
SERVICE_S = 0.05
CAPACITY = SLOTS / SERVICE_S
PATIENCE_S = 1.0
SEEDS = pytest.mark.parametrize("seed", range(5))


class Caller(Ticket):
    """A caller that gives up after a second, which `Places` can see."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self.world = world
        self.came_at = world.now
        self.refused_at: float | None = None
        self.served_at: float | None = None

    def has_left(self) -> bool:
        return self.world.now >= self.came_at + PATIENCE_S

    def on_place(self) -> None:
        assert not self.has_left()
        self.world.work_on(self)

    def on_rejected(self, reason: Rejection) -> None:  # noqa: ARG002  # one refusal is as another
        self.refused_at = self.world.now


class World:
    """Runs callers against places, event by event."""

    def __init__(self, seed: int, *, rate_limit: float = 0.0, adaptive: bool = False) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.places = Places(Limit(None if adaptive else SLOTS), depth=None, wait_s=1.0)
        self.callers: list[Caller] = []
        self.rate_limit = rate_limit
        self.limits: list[tuple[float, int]] = []
        self._allowance = 1.0
        self._allowed_at = 0.0
        self._events: list[tuple[float, int, Caller | None, bool]] = []
        self._order = itertools.count()

    def load(self, share: float, begin: float, end: float) -> None:
        """Let callers come at a share of the capacity."""
        at = begin
        while (at := at + self.random.expovariate(share * CAPACITY)) < end:
            heapq.heappush(self._events, (at, next(self._order), None, True))

    def work_on(self, caller: Caller) -> None:
        """Answer after the service time, or throttle at once."""
        is_good = self._is_within_rate()
        took_s = SERVICE_S if is_good else 0.005
        heapq.heappush(self._events, (self.now + took_s, next(self._order), caller, is_good))

    def _is_within_rate(self) -> bool:
        if not self.rate_limit:
            return True
        gained = (self.now - self._allowed_at) * self.rate_limit
        self._allowance = min(self.rate_limit, self._allowance + gained)
        self._allowed_at = self.now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def run(self) -> None:
        """Let everything happen."""
        while self._events:
            self.now, _, ended, is_good = heapq.heappop(self._events)
            self.places.expire(self.now)
            if ended is None:
                caller = Caller(self)
                self.callers.append(caller)
                if self.places.ask(caller, self.now) is not None:
                    caller.refused_at = self.now
                elif caller.state is HELD:
                    self.work_on(caller)
                continue
            if is_good:
                ended.served_at = self.now
                self.places.limit.note_good(self.places.in_flight)
            else:
                self.places.limit.note_loss(self.now)
            self.places.give_back(ended, self.now)
            self.limits.append((self.now, self.places.limit.current))

    def came(self, begin: float, end: float) -> list[Caller]:
        """Those who came in a span of time."""
        return [caller for caller in self.callers if begin <= caller.came_at < end]


def latencies(callers: list[Caller]) -> list[float]:
    """How long each took that was served, in order."""
    return sorted(c.served_at - c.came_at for c in callers if c.served_at is not None)


@SEEDS
def test_goodput_stays_at_capacity_and_latency_comes_back(seed: int) -> None:
    """
    Half, twice and half of the capacity: at least 95 % of it in the flood, and a second after it
    everybody is served about as fast as before.
    """
    world = World(seed)
    world.load(0.5, 0.0, 20.0)
    world.load(2.0, 20.0, 80.0)
    world.load(0.5, 80.0, 100.0)
    world.run()

    calm, flood, after = world.came(0, 20), world.came(20, 80), world.came(81, 100)
    good = [took for took in latencies(flood) if took <= PATIENCE_S]
    assert len(good) >= 0.95 * CAPACITY * 60
    assert len(latencies(calm)) == len(calm)
    assert len(latencies(after)) == len(after)
    for callers in (calm, after):
        took = latencies(callers)
        assert took[int(len(took) * 0.99)] <= SERVICE_S + 0.1
    assert all(c.refused_at is None or c.served_at is None for c in world.callers)
    assert (world.places.in_flight, world.places.queued) == (0, 0)


@SEEDS
def test_adaptive_limit_settles_where_the_service_throttles(seed: int) -> None:
    """
    A service that lets 40 a second through: after 10 s the limit stays within a fifth of its mean,
    and what is let through is answered.
    """
    world = World(seed, rate_limit=40.0, adaptive=True)
    world.load(2.0, 0.0, 40.0)
    world.run()

    settled = [limit for at, limit in world.limits if 20.0 <= at < 40.0]
    mean = sum(settled) / len(settled)
    assert all(0.8 * mean - 1 <= limit <= 1.2 * mean + 1 for limit in settled)
    answered = [c for c in world.callers if c.served_at is not None and 20 <= c.served_at < 40]
    assert 0.8 * 40 * 20 <= len(answered) <= 1.2 * 40 * 20
