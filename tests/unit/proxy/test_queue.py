"""Who gets a place, who waits, and in which order."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.errors import Rejection
from gateway.proxy.limit import Limit
from gateway.proxy.queue import HELD, OVER, QUEUED, Places, Ticket, retry_after_s
from tests.support.tools import LONG

WAIT_S = 1.0


class Caller(Ticket):
    """A ticket that keeps what it has been told."""

    def __init__(self, number: int, places: Places | None = None) -> None:
        super().__init__()
        self.places = places
        self.number = number
        self.is_gone = False
        self.told: list[str] = []

    def has_left(self) -> bool:
        return self.is_gone

    def on_place(self) -> None:
        assert not self.is_gone, "a caller that has left was served"
        assert self.places is None or self.places.in_flight <= self.places.limit.current
        self.told.append("place")

    def on_rejected(self, reason: Rejection) -> None:
        self.told.append(reason.value)

    def on_left(self) -> None:
        self.told.append("left")


def places_of(limit: int, depth: int | None = None) -> Places:
    """Places with a fixed limit."""
    return Places(Limit(limit), depth=depth, wait_s=WAIT_S)


def callers(places: Places, count: int, now: float = 0.0) -> list[Caller]:
    """So many callers that have asked, in order."""
    asked = [Caller(number) for number in range(count)]
    for caller in asked:
        if (reason := places.ask(caller, now)) is not None:
            caller.told.append(reason.value)
    return asked


def test_limit_many_get_a_place_at_once() -> None:
    """
    Both sides of the limit, and of the queue's depth.
    """
    places = places_of(2, depth=3)
    states = [caller.state for caller in callers(places, 6)]

    assert states == [HELD, HELD, QUEUED, QUEUED, QUEUED, OVER]
    assert (places.in_flight, places.queued) == (2, 3)


def test_queue_takes_ten_times_the_limit_of_the_moment() -> None:
    """
    A depth that nobody has set follows the limit, also where that adapts.
    """
    assert [c.state for c in callers(places_of(3), 34)][-2:] == [QUEUED, OVER]
    places = Places(Limit(None), depth=None, wait_s=WAIT_S)
    places.limit.note_loss(0.0)
    assert callers(places, 200)[9 + 90 - 1].state is QUEUED
    assert places.queued == 90


def test_depth_0_is_no_queue() -> None:
    """
    A request that finds no place is refused at once.
    """
    assert callers(places_of(1, depth=0), 2)[1].told == ["queue_full"]


def test_first_come_first_served_in_a_burst() -> None:
    """
    While the queue was empty a moment ago, the oldest goes first.
    """
    places = places_of(1)
    first, second, third = callers(places, 3)
    places.give_back(first, 0.1)

    assert (second.state, third.state) == (HELD, QUEUED)
    assert second.told == ["place"]


def test_newest_goes_first_once_the_queue_stands() -> None:
    """
    When it has not been empty for as long as anybody may wait, the oldest have likely given up.
    """
    places = places_of(1, depth=10)
    holder, _ = callers(places, 2, now=0.0)
    older, newer = Caller(2), Caller(3)
    places.ask(older, 0.8)
    places.expire(1.0)
    places.ask(newer, 1.0)
    places.give_back(holder, 1.01)

    assert (newer.state, older.state) == (HELD, QUEUED)


def test_burst_that_was_worked_off_is_forgotten() -> None:
    """
    Once the queue has been empty, the oldest goes first again.
    """
    places = places_of(1, depth=10)
    holder, waiting = callers(places, 2, now=0.0)
    places.give_back(holder, 0.9)  # the queue is empty now
    older, newer = Caller(2), Caller(3)
    places.ask(older, 1.5)
    places.ask(newer, 1.6)
    places.give_back(waiting, 1.7)

    assert (older.state, newer.state) == (HELD, QUEUED)


def test_newcomer_that_could_not_be_served_in_time_is_refused_once_the_queue_stands() -> None:
    """
    Two wait, each place is held for 0.6 s: the third would wait 1.2 s, and may wait 1 s.
    """
    places = places_of(1, depth=10)
    first, second = callers(places, 2, now=0.0)
    places.give_back(first, 0.6)
    for number, now in enumerate((0.5, 0.7, 0.8)):
        places.ask(Caller(number), now)
    places.give_back(second, 1.2)
    assert places.mean_s == 0.6
    assert places.queued == 2
    burst, late = Caller(8), Caller(9)

    assert places.ask(burst, 1.3) is None, "a burst may wait"
    assert places.ask(late, 1.51) is Rejection.QUEUE_FULL


def test_everyone_waits_no_longer_than_they_may() -> None:
    """
    Both sides of the deadline; a place that becomes free at the deadline is too late.
    """
    places = places_of(1)
    holder, waiting = callers(places, 2, now=0.0)
    assert places.next_deadline == WAIT_S
    places.expire(0.999)
    assert waiting.state is QUEUED
    places.give_back(holder, WAIT_S)

    assert waiting.told == ["queue_timeout"]
    assert (places.in_flight, places.queued) == (0, 0)
    assert places.next_deadline is None


def test_caller_that_has_left_is_passed_over() -> None:
    """
    The place goes to the next one, and costs the service nothing.
    """
    places = places_of(1)
    holder, gone, there = callers(places, 3)
    gone.is_gone = True
    places.give_back(holder, 0.1)

    assert gone.told == ["left"]
    assert there.told == ["place"]


def test_request_that_leaves_the_queue_makes_room_at_once() -> None:
    """
    Its depth counts those who wait now.
    """
    places = places_of(1, depth=1)
    _, waiting, refused = callers(places, 3)
    assert refused.told == ["queue_full"]
    places.give_back(waiting, 0.1)

    assert places.ask(Caller(4), 0.1) is None


def test_drain_rejects_requests_that_wait() -> None:
    """
    Those who hold a place keep it.
    """
    places = places_of(1)
    holder, waiting = callers(places, 2)
    places.reject_all(Rejection.DRAINING, 0.1)

    assert waiting.told == ["draining"]
    assert holder.state is HELD


def test_retry_after_is_when_a_place_is_free() -> None:
    """
    Ten requests of 2 s, four at a time: 5 s, spread by a fifth either way; always 1 to 30 s.
    """
    assert retry_after_s(5.0, 0.5) == 5.0
    assert retry_after_s(5.0, 0.0) == pytest.approx(4.0)
    assert retry_after_s(5.0, 1.0) == pytest.approx(6.0)
    assert retry_after_s(0.0, 0.0) == 1.0
    assert retry_after_s(60_060.0, 1.0) == 30.0
    assert retry_after_s(60_060.0, 0.0) == pytest.approx(24.0)


def test_pace_of_a_service_that_throttles_is_kept_although_places_are_free() -> None:
    """
    Of 4 sent in 0.4 s one was refused: 7.5 a second. The next waits, and goes when it is time.
    """
    places = Places(Limit(None), depth=None, wait_s=WAIT_S)
    for number in range(4):
        places.ask(Caller(number), number / 10)
    assert places.limit.pace is not None
    places.limit.pace.note_throttled(0.4, 0.0)
    at_once, later = Caller(5), Caller(6)
    places.ask(at_once, 0.5)
    places.ask(later, 0.5)
    look_at = places.next_look(0.5)

    assert (at_once.state, later.state) == (HELD, QUEUED)
    assert look_at is not None
    assert look_at == pytest.approx(0.5 - 0.02 + 1 / 7.5)
    places.fill(look_at - 0.001)
    assert later.state is QUEUED
    places.fill(look_at)
    assert later.told == ["place"]
    assert places.next_look(look_at) is None


def test_retry_after_includes_the_pause_that_the_service_asks_for() -> None:
    """
    Nobody is told to come back before the service may be asked.
    """
    places = Places(Limit(None), depth=None, wait_s=WAIT_S)
    places.ask(Caller(0), 0.0)
    assert places.limit.pace is not None
    places.limit.pace.note_throttled(0.1, 8.0)

    assert places.wait_behind_s(0, 0.1) == pytest.approx(8.0)
    assert places.wait_behind_s(2, 1.1) == pytest.approx(7.0 + 2 * 1.0)


@settings(max_examples=200 if LONG else 40, stateful_step_count=60)
class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, what `Places` promises holds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.count = 0
        self.adaptive = Limit(None)
        self.places = Places(self.adaptive, depth=None, wait_s=WAIT_S)
        self.live: list[Caller] = []

    @rule(
        fixed=st.one_of(st.none(), st.integers(1, 4)), depth=st.one_of(st.none(), st.integers(0, 6))
    )
    def configure(self, fixed: int | None, depth: int | None) -> None:
        """A reload changes the limits while requests are under way."""
        self.places.limit = Limit(fixed)
        self.places.depth = depth
        self.places.fill(self.now)

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 1.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def arrive(self) -> None:
        caller = Caller(self.count, self.places)
        self.count += 1
        had_room = self.places.in_flight < self.places.limit.current and not self.places.queued
        reason = self.places.ask(caller, self.now)
        if had_room:
            assert caller.state is HELD
        if caller.state is HELD:
            assert self.places.in_flight <= self.places.limit.current
        if reason is None:
            self.live.append(caller)
        else:
            assert caller.state is OVER

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A request ends, whether it was served or its caller hung up while it waited."""
        caller = data.draw(st.sampled_from(self.live))
        self.places.give_back(caller, self.now)
        assert caller.state is OVER

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def hang_up_unnoticed(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.live)).is_gone = True

    @rule(is_loss=st.booleans())
    def learn(self, is_loss: bool) -> None:
        if is_loss:
            self.places.limit.note_loss(self.now)
        else:
            self.places.limit.note_good(self.places.in_flight)
            self.places.fill(self.now)

    @rule()
    def look_at_the_clock(self) -> None:
        self.places.expire(self.now)
        for caller in self.live:
            if caller.state is QUEUED:
                assert self.now < caller.arrived_at + WAIT_S

    @invariant()
    def no_place_is_leaked_or_given_twice(self) -> None:
        states = [caller.state for caller in self.live]
        assert self.places.in_flight == states.count(HELD)
        assert self.places.queued == states.count(QUEUED)
        self.live = [caller for caller in self.live if caller.state is not OVER]

    @invariant()
    def nobody_waits_while_a_place_is_free(self) -> None:
        assert not (self.places.queued and self.places.in_flight < self.places.limit.current)

    @invariant()
    def everybody_is_told_once(self) -> None:
        for caller in self.live:
            assert len(caller.told) <= 1


TestAnyOrder = AnyOrder.TestCase
