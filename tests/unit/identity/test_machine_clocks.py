"""Tokens on a machine whose wall clock is wrong, and on one that sleeps: real cache and alarm."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from pydantic import SecretStr

from gateway.clock import LoopAlarm
from gateway.errors import CredentialError
from gateway.identity.credential import Credential
from gateway.identity.credential_cache import CredentialCache
from gateway.identity.store import TokenStore
from tests.support.fake_source import Remembering
from tests.support.simulated_iam import Account, Fault, SimulatedIam, SimulatedSource, Times
from tests.support.virtual_loop import EPOCH, Machine, VirtualLoop

HOUR, DAY = 3600.0, 86400.0


class Gateway:
    """One identity as `serve` would build it, but for the socket and the clocks."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.machine = Machine(loop)
        self.iam = SimulatedIam("iam", self.machine)
        self.iam.accounts["user"] = Account("secret")
        self.asked_at: list[float] = []
        self.cache = CredentialCache(
            "default",
            SimulatedSource(
                self.iam,
                self.machine,
                user="user",
                project="project",
                read_secret=lambda: SecretStr("secret"),
                random=Random(1).random,
                began=lambda: self.asked_at.append(self.machine.clock()),
                ended=lambda _outcome: None,
            ),
            store=TokenStore(self.machine.clock),
            clock=self.machine.clock,
            alarm=LoopAlarm(self.machine.clock),
            observer=Remembering(),
            random=Random(2).random,
        )

    async def started(self) -> Credential:
        self.cache.start()
        await asyncio.sleep(1)
        return self.current

    @property
    def current(self) -> Credential:
        credential = self.cache.usable(self.machine.clock())
        assert credential is not None
        return credential

    def accepted(self, credential: Credential) -> bool:
        """Tell whether a service would take it now, by IAM's clock."""
        return self.iam.accepts(credential.field_lines)


def run(story: Callable[[Gateway], Awaitable[None]]) -> Gateway:
    """Let `story` happen to a gateway on a loop of its own."""

    async def live(loop: VirtualLoop) -> Gateway:
        gateway = Gateway(loop)
        try:
            await story(gateway)
        finally:
            await gateway.cache.aclose()
        return gateway

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        return runner.run(live(loop))


async def three_days(it: Gateway, *, step_s: float) -> None:
    """Live with a token for three days; the wall clock steps once an hour, to and fro."""
    await it.started()
    for hour in range(72):
        it.machine.wall_off_s += step_s if hour % 2 else -step_s
        await asyncio.sleep(HOUR)
        assert it.accepted(it.current)


@pytest.mark.parametrize("times", [Times.ALL, Times.NO_DATE, Times.NO_ISSUED_AT])
@pytest.mark.parametrize("off_s", [-9 * HOUR, -1.0, 30 * 365 * DAY])
def test_wall_clock_that_is_off_changes_nothing(off_s: float, times: Times) -> None:
    """F14: logins come at the very instants at which they come with a right one."""

    async def right(it: Gateway) -> None:
        it.iam.times = times
        await three_days(it, step_s=0.0)

    async def wrong(it: Gateway) -> None:
        it.iam.times = times
        it.machine.wall_off_s = off_s
        await three_days(it, step_s=0.0)

    asked_at = run(wrong).asked_at
    assert asked_at == run(right).asked_at
    assert 4 <= len(asked_at) <= 7


@pytest.mark.parametrize("step_s", [2.0, 5 * HOUR, 40 * DAY])
def test_wall_clock_that_steps_changes_nothing(step_s: float) -> None:
    """F14: forwards and back, hour after hour; only what people are shown follows it."""

    async def stepping(it: Gateway) -> None:
        await three_days(it, step_s=step_s)

    async def steady(it: Gateway) -> None:
        await three_days(it, step_s=0.0)

    assert run(stepping).asked_at == run(steady).asked_at


def test_skew_of_the_wall_clock_is_told() -> None:
    """For the person who sets the clock right; to the second, as `Date` tells."""

    async def story(it: Gateway) -> None:
        it.machine.wall_off_s = 2 * HOUR
        first = await it.started()
        skew_s = it.cache.status(it.machine.clock()).skew_s
        assert skew_s is not None
        assert 2 * HOUR <= skew_s <= 2 * HOUR + 1
        shown = first.wall_expires_at - (EPOCH + 2 * HOUR)
        assert shown == pytest.approx(first.expires_at, abs=1)

    run(story)


def test_first_call_after_a_night_and_a_day_does_not_carry_the_dead_token() -> None:
    """25 h without a timer: before any alarm has rung, the call waits for a new one."""

    async def story(it: Gateway) -> None:
        first = await it.started()
        await asyncio.sleep(HOUR)
        it.machine.suspend(25 * HOUR, late_s=0.0)
        assert not it.accepted(first)
        assert it.cache.usable(it.machine.clock()) is None
        second = await it.cache.obtain()
        assert it.accepted(second)
        assert len(it.asked_at) == 2
        await asyncio.sleep(60)
        assert len(it.asked_at) == 2

    run(story)


def test_first_call_after_a_suspension_is_told_the_truth_if_iam_is_down() -> None:
    """The network comes up later than the program: an error, and not the dead token."""

    async def story(it: Gateway) -> None:
        await it.started()
        it.machine.suspend(25 * HOUR, late_s=0.0)
        it.iam.fault = Fault.REFUSED
        with pytest.raises(CredentialError):
            await it.cache.obtain()
        it.iam.fault = Fault.NONE
        await asyncio.sleep(1.1)
        assert it.accepted(it.current)

    run(story)


@pytest.mark.parametrize("hours", [15, 20, 25, 200])
def test_idle_gateway_renews_within_half_a_minute_of_waking_up(hours: int) -> None:
    """cloud-sql-proxy#2295: an alarm that slept its whole time would ring hours late."""

    async def story(it: Gateway) -> None:
        first = await it.started()
        it.machine.suspend(hours * HOUR, late_s=0.0)
        woke_at = it.machine.clock()
        stale = woke_at >= first.stale_at
        await asyncio.sleep(30.1)
        assert it.accepted(it.current)
        if stale:
            assert woke_at <= it.asked_at[1] <= woke_at + 30
        else:
            assert it.current is first

    run(story)


def test_answer_that_slept_on_its_way_is_not_used_beyond_its_end() -> None:
    """A life counts from the moment of asking: 23 h of it are gone when the answer is read."""

    async def story(it: Gateway) -> None:
        it.iam.latency_s = 2.0
        it.cache.start()
        await asyncio.sleep(1.9)
        it.iam.fault = Fault.HANG  # for the logins after this one
        it.machine.suspend(23 * HOUR, late_s=0.0)
        await asyncio.sleep(0.2)
        first = it.current
        assert it.accepted(first)
        await asyncio.sleep(HOUR)
        assert not it.accepted(first)
        assert it.cache.usable(it.machine.clock()) is None

    run(story)
