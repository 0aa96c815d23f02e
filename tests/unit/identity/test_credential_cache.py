"""The cache, driven by a clock and a source that do as they are told."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import CredentialError, ErrorCode
from gateway.identity.credential import Credential
from gateway.identity.credential_cache import CredentialCache
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.report import IdentityStatus, Reason
from gateway.identity.source import Login, LoginError
from gateway.identity.store import TokenStore
from tests.support.fake_source import FakeSource, Remembering, failing
from tests.support.fake_time import FakeTime

HOUR, DAY = 3600.0, 86400.0
STARTUP, SCHEDULE, DEMAND, REJECTED, FLEET, SECRET_CHANGE = RefreshTrigger
OK, REFUSED, THROTTLED, NETWORK, TIMEOUT, BAD_REPLY = RefreshResult


class Bench:
    """A cache with everything around it under the test's control."""

    def __init__(self, *, life_s: float = DAY, spread: float = 0.0) -> None:
        self.time = FakeTime()
        self.source = FakeSource(self.time, life_s=life_s)
        self.store = TokenStore(self.time.clock)
        self.observed = Remembering()
        self.spread = spread
        self.cache = self.another()

    def another(
        self, source: FakeSource | None = None, observer: Remembering | None = None
    ) -> CredentialCache:
        """Make a cache that shares what caches of a process share."""
        return CredentialCache(
            "default",
            source or self.source,
            store=self.store,
            clock=self.time.clock,
            alarm=self.time.alarm,
            observer=observer or self.observed,
            random=lambda: self.spread,
        )

    async def started(self) -> Credential:
        """Start and return the first credential."""
        self.cache.start()
        await self.time.settle()
        return self.current

    @property
    def current(self) -> Credential:
        credential = self.cache.usable(self.time.now)
        assert credential is not None
        return credential

    @property
    def status(self) -> IdentityStatus:
        return self.cache.status(self.time.now)

    async def refusal(self) -> CredentialError:
        """Ask for a credential and return the error, which must come at once."""
        before = self.time.now
        with pytest.raises(CredentialError) as caught:
            await self.cache.obtain()
        assert self.time.now == before
        return caught.value


@asynccontextmanager
async def bench(*, life_s: float = DAY, spread: float = 0.0) -> AsyncIterator[Bench]:
    made = Bench(life_s=life_s, spread=spread)
    try:
        yield made
    finally:
        made.source.gate.set()
        await made.cache.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}


# ---- serving ----------------------------------------------------------------------------------


async def test_start_logs_in_and_serves_from_memory() -> None:
    """One login at start-up; afterwards neither path asks IAM."""
    async with bench() as it:
        assert it.cache.usable(it.time.now) is None
        assert it.status.reason is Reason.STARTING
        first = await it.started()
        assert first.field_lines == b"X-Auth-Token: token-1\r\n"
        assert await it.cache.obtain() is first
        assert it.observed.logins == [(STARTUP, OK)]
        status = it.status
        assert (status.usable, status.reason, status.locked) == (True, None, False)
        assert status.wall_expires_at == 1.7e9 + DAY
        assert status.next_login_s == DAY / 2
        assert status.last_result is OK
        assert status.skew_s == 0.25
        assert status.facts is not None
        assert status.facts.user == "infer"


async def test_credential_is_usable_until_the_very_instant_it_expires() -> None:
    """Decided by the clock, on both sides of the limit."""
    async with bench() as it:
        first = await it.started()
        assert it.cache.usable(first.expires_at - 1e-6) is first
        assert it.cache.usable(first.expires_at) is None


async def test_thousand_cold_callers_make_one_login() -> None:
    """F09: and all get the same credential."""
    async with bench() as it:
        it.source.gate.clear()
        callers = [asyncio.create_task(it.cache.obtain()) for _ in range(1000)]
        await it.time.settle()
        it.source.gate.set()
        assert set(await asyncio.gather(*callers)) == {it.current}
        assert it.observed.logins == [(DEMAND, OK)]
        assert it.source.logins == 1


async def test_leader_that_leaves_takes_nobody_along() -> None:
    """F10: the caller that caused the login may be cancelled; the others get its credential."""
    async with bench() as it:
        it.source.gate.clear()
        leader, *others = [asyncio.create_task(it.cache.obtain()) for _ in range(3)]
        await it.time.settle()
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        it.source.gate.set()
        assert await asyncio.gather(*others) == [it.current, it.current]
        assert it.source.logins == 1


async def test_login_goes_on_when_every_caller_has_left() -> None:
    """The next one profits."""
    async with bench() as it:
        it.source.gate.clear()
        caller = asyncio.create_task(it.cache.obtain())
        await it.time.settle()
        caller.cancel()
        await asyncio.wait({caller})
        it.source.gate.set()
        await it.time.settle()
        assert it.status.usable
        assert it.source.logins == 1
        assert it.time.next_alarm == it.current.stale_at


async def test_caller_waits_no_longer_than_it_should() -> None:
    """F03: 1.8 s after its own arrival, whatever IAM does; the login goes on."""
    async with bench() as it:
        it.source.gate.clear()
        first = asyncio.create_task(it.cache.obtain())
        await it.time.advance(1.0)
        second = asyncio.create_task(it.cache.obtain())
        await it.time.advance(0.7)
        assert not first.done()
        await it.time.advance(0.1)
        with pytest.raises(CredentialError) as caught:
            await first
        assert caught.value.code is ErrorCode.TOKEN_UNAVAILABLE
        assert caught.value.retry_after_s == 1
        assert not second.done()
        it.source.gate.set()
        assert (await second).field_lines == b"X-Auth-Token: token-1\r\n"
        assert it.source.logins == 1


async def test_callers_that_gave_up_leave_nothing_behind() -> None:
    """While IAM hangs, thousands may come and go; so must what was kept for them."""
    async with bench() as it:
        it.source.gate.clear()
        kept = []
        for _ in range(3):
            callers = [asyncio.create_task(it.cache.obtain()) for _ in range(100)]
            await it.time.advance(5)
            await asyncio.gather(*callers, return_exceptions=True)
            del callers
            gc.collect()
            kept.append(sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects()))
        assert kept[2] - kept[0] < 100


# ---- renewing ---------------------------------------------------------------------------------


async def test_token_is_renewed_ahead_of_time_without_any_traffic() -> None:
    """At its stale instant, in the background; the old one serves until the new one is there."""
    async with bench() as it:
        first = await it.started()
        it.source.gate.clear()
        await it.time.advance(DAY / 2 - 1)
        assert it.source.logins == 1
        await it.time.advance(1)
        assert it.source.logins == 2
        assert it.current is first
        assert await it.cache.obtain() is first
        it.source.gate.set()
        await it.time.settle()
        assert it.current is not first
        assert it.observed.logins == [(STARTUP, OK), (SCHEDULE, OK)]


async def test_fleet_does_not_march_in_step() -> None:
    """The instant of renewal follows the random number; FakeSource's is the earliest."""
    async with bench(spread=0.5) as it:
        await it.started()
        assert it.status.next_login_s == DAY / 2


@pytest.mark.parametrize("result", [NETWORK, TIMEOUT, BAD_REPLY, THROTTLED, REFUSED])
async def test_failed_renewal_keeps_the_token_that_works(result: RefreshResult) -> None:
    """F01, F04, F07: until its real end, and not a moment beyond."""
    async with bench(life_s=HOUR, spread=0.9) as it:
        first = await it.started()
        it.source.script.extend(failing(result) for _ in range(1000))
        await it.time.advance(first.expires_at - it.time.now - 1)
        assert it.source.logins > 1
        assert it.current is first
        assert it.status.usable
        assert it.status.skew_s == 0.25
        await it.time.advance(1)
        assert it.cache.usable(it.time.now) is None
        assert it.status.reason is Reason[result.name]


async def test_cache_recovers_by_itself() -> None:
    """F41: no caller is needed for readiness to come back, half a minute at the most."""
    async with bench() as it:
        it.source.script.extend(failing(NETWORK) for _ in range(10))
        it.cache.start()
        await it.time.advance(4.9)
        assert not it.status.usable
        await it.time.advance(0.1)
        assert it.status.usable
        assert it.source.logins == 11


async def test_short_lives_do_not_make_a_busy_loop() -> None:
    """F15: a token that lives for 2 s is always there; one of 0.2 s is had once a second."""
    async with bench(life_s=2.0) as it:
        await it.started()
        for _ in range(100):
            await it.time.advance(0.25)
            assert it.status.usable
        assert it.source.logins <= 26
        it.source.life_s = 0.2
        await it.time.advance(5)
        before = it.source.logins
        errors: list[CredentialError] = []
        for _ in range(200):
            await it.time.advance(0.05)
            try:
                await it.cache.obtain()
            except CredentialError as error:
                errors.append(error)
        assert it.source.logins - before <= 11
        assert 100 < len(errors) < 200
        assert {(error.code, error.retry_after_s) for error in errors} == {
            (ErrorCode.TOKEN_UNAVAILABLE, 1)
        }


async def test_token_that_expired_on_its_way_is_a_bad_reply() -> None:
    """F07: it is not stored, not sent, and not asked for again at once."""
    async with bench(life_s=3.0) as it:
        it.source.gate.clear()
        it.cache.start()
        await it.time.advance(4.0)
        it.source.gate.set()
        await it.time.settle()
        assert it.observed.logins == [(STARTUP, BAD_REPLY)]
        assert not it.status.usable


async def test_dead_token_is_not_sent_after_a_suspension() -> None:
    """cloud-sql-proxy#2295: 25 h without one timer; the first call waits for a new token."""
    async with bench() as it:
        first = await it.started()
        it.time.suspend(25 * HOUR)
        assert it.cache.usable(it.time.now) is None
        assert await it.cache.obtain() is not first
        await it.time.advance(HOUR)
        assert it.observed.logins == [(STARTUP, OK), (DEMAND, OK)]


async def test_fault_of_ours_is_survived_and_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    """An unforeseen exception is a failed login, named by type and place, and tried again."""
    async with bench() as it:
        it.source.script.append(KeyError("canary"))
        it.cache.start()
        await it.time.advance(2)
        assert it.observed.logins == [(STARTUP, BAD_REPLY), (SCHEDULE, OK)]
        assert "KeyError in fetch:" in caplog.text
        assert "canary" not in caplog.text


async def test_login_cancelled_from_elsewhere_is_made_again() -> None:
    """A cancellation that leaks out of somebody's clean-up must not end the renewals."""
    async with bench() as it:
        it.source.gate.clear()
        it.cache.start()
        await it.time.settle()
        [login] = [task for task in asyncio.all_tasks() if task.get_name() == "login-default"]
        login.cancel()
        it.source.gate.set()
        await it.time.advance(2)
        assert it.observed.logins == [(STARTUP, TIMEOUT), (SCHEDULE, OK)]


# ---- leaving IAM alone ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "code", "retry_after_s"),
    [
        (NETWORK, ErrorCode.TOKEN_UNAVAILABLE, 1),
        (TIMEOUT, ErrorCode.TOKEN_UNAVAILABLE, 1),
        (BAD_REPLY, ErrorCode.TOKEN_UNAVAILABLE, 1),
        (THROTTLED, ErrorCode.LOGIN_THROTTLED, 30),
        (REFUSED, ErrorCode.LOGIN_REFUSED, 900),
    ],
)
async def test_pause_is_told_to_callers_at_once(
    result: RefreshResult, code: ErrorCode, retry_after_s: int
) -> None:
    """F01-F06: no waiting and no login in the pause; Retry-After is whole and true."""
    async with bench() as it:
        it.source.script.append(failing(result))
        it.cache.start()
        await it.time.settle()
        for _ in range(20):
            error = await it.refusal()
            assert (error.code, error.retry_after_s) == (code, retry_after_s)
            assert error.reason == ("public refused" if result is REFUSED else "")
        assert it.source.logins == 1
        assert it.status.locked == (result is REFUSED)
        assert not it.status.usable
        assert it.status.why() == f"{it.status.reason}: scripted {result}"
        await it.time.advance(retry_after_s)
        assert it.status.usable
        assert not it.status.locked
        assert (it.status.why(), it.status.detail) == ("", "")


async def test_callers_of_a_failing_login_all_hear_of_it() -> None:
    """One login, one failure, the same answer for everyone, and no second try by the crowd."""
    async with bench() as it:
        it.source.script.append(failing(REFUSED))
        it.source.gate.clear()
        callers = [asyncio.create_task(it.cache.obtain()) for _ in range(50)]
        await it.time.settle()
        it.source.gate.set()
        errors = await asyncio.gather(*callers, return_exceptions=True)
        assert {error.code for error in errors if isinstance(error, CredentialError)} == {
            ErrorCode.LOGIN_REFUSED
        }
        assert it.source.logins == 1


async def test_retry_after_is_counted_down() -> None:
    """F05: nobody triggers a login before it is over, and the remaining time is told."""
    async with bench() as it:
        it.source.script.append(failing(THROTTLED, retry_after_s=60))
        it.cache.start()
        await it.time.advance(20.5)
        assert (await it.refusal()).retry_after_s == 40
        await it.time.advance(39.4)
        assert it.source.logins == 1
        await it.time.advance(0.1)
        assert it.source.logins == 2


async def test_refusals_in_a_row_slow_down_and_others_do_not_count_as_such() -> None:
    """15 min, 30 min; network failures in between neither shorten nor lengthen that."""
    async with bench() as it:
        it.source.script.extend(
            [failing(REFUSED), failing(NETWORK), failing(NETWORK), failing(REFUSED)]
        )
        it.cache.start()
        await it.time.advance(3 * HOUR)
        first, *rest = it.source.asked_at
        assert [instant - first for instant in rest[:4]] == [900, 900.5, 901, 901 + 1800]


async def test_success_ends_a_row_of_failures() -> None:
    """The next refusal is the first of its row again: 15 minutes, not 30."""
    async with bench(life_s=HOUR) as it:
        it.source.script.extend([failing(REFUSED), HOUR, failing(REFUSED)])
        it.cache.start()
        await it.time.advance(900 + HOUR / 2)
        assert it.observed.logins == [(STARTUP, REFUSED), (SCHEDULE, OK), (SCHEDULE, REFUSED)]
        assert it.status.next_login_s == 900


async def test_transient_failures_of_all_kinds_back_off_together() -> None:
    """An IAM that fails now this way, now that, is not asked twice a second."""
    async with bench(spread=0.999) as it:
        for _ in range(20):
            it.source.script.extend(failing(result) for result in (NETWORK, TIMEOUT, BAD_REPLY))
        it.cache.start()
        await it.time.advance(10 * 60)
        assert it.source.logins < 30


async def test_never_more_than_two_refusals_in_a_quarter_of_an_hour() -> None:
    """Whatever happens: secrets changing every ten seconds, callers, reloads, other identities."""
    async with bench() as it:
        others = [it.another() for _ in range(3)]
        it.source.script.extend(failing(REFUSED) for _ in range(1000))
        for cache in (it.cache, *others):
            cache.start()
        for number in range(400):
            it.source.secret = f"wrong-{number}"
            for cache in (it.cache, *others):
                cache.secret_changed()
            await it.time.advance(10)
            await it.refusal()
        asked = it.source.asked_at
        assert len(asked) > 6
        for first, third in zip(asked, asked[2:], strict=False):
            assert third >= first + 900
        for cache in others:
            await cache.aclose()


async def test_identities_of_one_account_start_without_harm() -> None:
    """The third waits a moment for the others' verdict, then logs in as well."""
    async with bench() as it:
        others = [it.another(FakeSource(it.time)) for _ in range(3)]
        for cache in (it.cache, *others):
            cache.start()
        await it.time.advance(1)
        assert all(cache.status(it.time.now).usable for cache in (it.cache, *others))
        for cache in others:
            await cache.aclose()


# ---- rejections -------------------------------------------------------------------------------


async def test_rejected_token_is_replaced_once_for_a_whole_burst() -> None:
    """F11, F12: fifty rejections of one token, early and late, cost one login."""
    async with bench() as it:
        first = await it.started()
        it.source.gate.clear()
        assert all(it.cache.reject(first) for _ in range(25))
        assert it.cache.usable(it.time.now) is None
        assert it.status.reason is Reason.RENEWING
        callers = [asyncio.create_task(it.cache.obtain()) for _ in range(25)]
        await it.time.settle()
        it.source.gate.set()
        second = it.cache.usable(it.time.now) or await callers[0]
        assert second is not first
        assert set(await asyncio.gather(*callers)) == {second}
        assert all(it.cache.reject(first) for _ in range(25))
        assert it.current is second
        assert it.observed.logins == [(STARTUP, OK), (REJECTED, OK)]


async def test_rejection_right_after_login_is_acted_on() -> None:
    """The least interval is against short lives, not against revocations."""
    async with bench() as it:
        assert it.cache.reject(await it.started())
        assert (await it.cache.obtain()).field_lines == b"X-Auth-Token: token-2\r\n"


async def test_rejection_no_token_can_cure_is_passed_on() -> None:
    """F13: two logins, then the token stays in use and logins get rarer: 1 min, 2 min."""
    async with bench() as it:
        await it.started()
        started_at = it.time.now
        while it.time.now < started_at + 250:
            rejected = it.current
            if not it.cache.reject(rejected):
                assert it.current is rejected
                assert it.cache.renewal_pause_s() == 0
            await it.time.advance(1)
        asked = [round(at - started_at, 1) for at in it.source.asked_at]
        assert asked == [0, 0, 1.1, 61, 181]


async def test_token_born_dead_is_replaced_once_in_the_next_second() -> None:
    """
    Keystone revokes by the second: what it issues in the second of a revocation is dead, too.

    All callers wait for the next one, even those whose request has been sent with two tokens.
    """
    async with bench() as it:
        first = await it.started()
        assert it.cache.reject(first)
        dead = await it.cache.obtain()
        await it.time.advance(0.3)
        assert it.cache.reject(dead, again=True)
        assert it.cache.reject(dead)
        caller = asyncio.create_task(it.cache.obtain())
        await it.time.advance(0.79)
        assert (it.source.logins, caller.done()) == (2, False)
        await it.time.advance(0.02)
        good = await caller
        assert it.source.logins == 3
        assert not it.cache.reject(good, again=True)
        assert not it.cache.reject(good)
        assert it.cache.usable(it.time.now) is good


async def test_old_token_is_not_taken_for_one_born_dead() -> None:
    """Rejected 2 s after it came, the one that replaced another stays, until the pause ends."""
    async with bench() as it:
        assert it.cache.reject(await it.started())
        second = await it.cache.obtain()
        await it.time.advance(2)
        assert not it.cache.reject(second)
        assert it.cache.renewal_pause_s() == 0  # waiting would not help
        await it.time.advance(28)
        assert it.cache.renewal_pause_s() == 0
        assert it.cache.reject(second)


async def test_request_is_not_sent_a_third_time_with_a_token_that_was_good() -> None:
    """The token is replaced all the same."""
    async with bench() as it:
        assert not it.cache.reject(await it.started(), again=True)
        assert (await it.cache.obtain()).field_lines == b"X-Auth-Token: token-2\r\n"


async def test_accepted_successor_lets_the_next_revocation_be_cured_at_once() -> None:
    """Without any call on ordinary success: only after a request was sent again."""
    async with bench() as it:
        token = await it.started()
        for _ in range(4):
            assert it.cache.reject(token)
            token = await it.cache.obtain()
            it.cache.accepted(token)
        assert not it.cache.reject(token)
        assert it.cache.renewal_pause_s() == 1
        await it.time.advance(1)
        assert it.cache.reject(token)


async def test_late_acceptance_of_an_old_token_proves_nothing() -> None:
    """Only the current one's counts."""
    async with bench() as it:
        first = await it.started()
        it.cache.reject(first)
        second = await it.cache.obtain()
        it.cache.accepted(first)
        await it.time.advance(2)
        assert not it.cache.reject(second)


@pytest.mark.parametrize("result", [NETWORK, THROTTLED, REFUSED])
async def test_rejection_while_iam_is_left_alone_costs_no_token(result: RefreshResult) -> None:
    """Keystone down makes services reject good tokens: no replacement, so no displacement."""
    async with bench() as it:
        first = await it.started()
        it.source.script.append(failing(result))
        await it.time.advance(DAY / 2)
        assert it.status.last_result is result
        assert not it.cache.reject(first)
        assert it.current is first
        assert it.source.logins == 2


async def test_failed_replacement_of_a_rejected_token_is_made_up_for() -> None:
    """The rejected one does not come back; callers are told, and the cache goes on trying."""
    async with bench() as it:
        first = await it.started()
        it.source.script.append(failing(NETWORK))
        assert it.cache.reject(first)
        with pytest.raises(CredentialError):
            await it.cache.obtain()
        assert it.store.get(("fake", "first")) is None
        await it.time.advance(1)
        assert it.current.field_lines == b"X-Auth-Token: token-3\r\n"


async def test_rejection_while_a_login_is_under_way_starts_no_other() -> None:
    """The one under way is the replacement."""
    async with bench() as it:
        first = await it.started()
        it.source.gate.clear()
        await it.time.advance(DAY / 2)
        assert it.cache.reject(first)
        assert it.cache.usable(it.time.now) is None
        it.source.gate.set()
        assert (await it.cache.obtain()) is not first
        assert it.observed.logins == [(STARTUP, OK), (SCHEDULE, OK)]


# ---- secrets ----------------------------------------------------------------------------------


async def test_new_secret_is_tried_at_once_while_the_old_token_serves() -> None:
    """And if it is refused, the old token goes on serving."""
    async with bench() as it:
        first = await it.started()
        await it.time.advance(10)
        it.source.gate.clear()
        it.source.script.append(failing(REFUSED))
        it.source.secret = "second"
        it.cache.secret_changed()
        await it.time.settle()
        assert it.source.logins == 2
        assert it.current is first
        it.source.gate.set()
        await it.time.settle()
        assert it.observed.logins[-1] == (SECRET_CHANGE, REFUSED)
        assert it.current is first
        assert it.status.locked


async def test_new_secret_lifts_the_pause_of_a_refusal() -> None:
    """F06: after the password is corrected, nobody need wait or restart anything."""
    async with bench() as it:
        it.source.script.append(failing(REFUSED))
        it.cache.start()
        await it.time.advance(60)
        it.source.secret = "right"
        it.cache.secret_changed()
        await it.time.settle()
        assert it.observed.logins == [(STARTUP, REFUSED), (SECRET_CHANGE, OK)]
        assert not it.status.locked


async def test_second_wrong_secret_exhausts_the_patience() -> None:
    """The right one, third, has to wait until the first refusal is 15 minutes old."""
    async with bench() as it:
        it.source.script.extend([failing(REFUSED), failing(REFUSED)])
        it.cache.start()
        for secret in ("second", "right"):
            await it.time.advance(60)
            it.source.secret = secret
            it.cache.secret_changed()
        await it.time.settle()
        error = await it.refusal()
        assert (error.code, error.retry_after_s) == (ErrorCode.LOGIN_REFUSED, 780)
        await it.time.advance(779)
        assert it.source.logins == 2
        await it.time.advance(1)
        assert it.observed.logins[-1] == (SECRET_CHANGE, OK)


async def test_refusal_of_an_earlier_process_pauses_for_what_is_left() -> None:
    """IAM was not asked, so it counts for nothing else; a new secret is tried at once."""
    async with bench() as it:
        remembered = LoginError(REFUSED, "earlier", retry_after_s=300, is_remembered=True)
        it.source.script.extend([remembered, remembered])
        it.cache.start()
        await it.time.settle()
        error = await it.refusal()
        assert (error.code, error.retry_after_s) == (ErrorCode.LOGIN_REFUSED, 300)
        assert it.store.ledger("account").opens_at(it.time.now) == it.time.now
        await it.time.advance(300)
        assert it.source.logins == 2
        it.cache.secret_changed()
        await it.time.settle()
        assert it.observed.logins[-1] == (SECRET_CHANGE, OK)


async def test_refusal_of_a_new_secret_is_the_first_of_its_row() -> None:
    """15 minutes from then on: what the old secret came to does not count against it."""
    async with bench() as it:
        it.source.script.extend([failing(REFUSED), failing(REFUSED)])
        it.cache.start()
        await it.time.advance(60)
        it.cache.secret_changed()
        await it.time.settle()
        assert it.status.next_login_s == 900


async def test_account_at_its_limit_is_locked_for_all_its_identities() -> None:
    """Whichever was refused: the others may not log in either, and say why."""
    async with bench() as it:
        it.source.script.extend([failing(REFUSED), failing(REFUSED)])
        it.cache.start()
        await it.time.settle()
        it.cache.secret_changed()
        await it.time.settle()
        cache = it.another()
        with pytest.raises(CredentialError) as caught:
            await cache.obtain()
        assert (caught.value.code, caught.value.retry_after_s) == (ErrorCode.LOGIN_REFUSED, 900)
        assert cache.status(it.time.now).locked
        await cache.aclose()


async def test_logins_that_may_be_refused_twice_wait_for_each_other() -> None:
    """Neither is a caller told that there is no token, who comes while the other one logs in."""
    async with bench() as it:
        it.store.ledger("account").one_at_a_time = True
        other = it.another(FakeSource(it.time))
        it.source.gate.clear()
        it.cache.start()
        other.start()
        caller = asyncio.create_task(other.obtain())
        await it.time.advance(0.5)
        assert (it.source.logins, caller.done()) == (1, False)
        it.source.gate.set()
        await it.time.advance(0.2)
        assert (await caller).field_lines == b"X-Auth-Token: token-1\r\n"
        await other.aclose()


async def test_new_secret_does_not_lift_what_iam_asked_for() -> None:
    """Retry-After is no matter of secrets."""
    async with bench() as it:
        it.source.script.append(failing(THROTTLED, retry_after_s=60))
        it.cache.start()
        await it.time.advance(1)
        it.cache.secret_changed()
        await it.time.advance(58)
        assert it.source.logins == 1
        await it.time.advance(1)
        assert it.observed.logins[-1] == (SECRET_CHANGE, OK)


@pytest.mark.parametrize("old_outcome", [DAY, failing(REFUSED), failing(NETWORK)])
async def test_secret_that_changes_during_a_login_gets_its_own(
    old_outcome: float | Exception,
) -> None:
    """The login under way may have read the old one; its refusal says nothing of the new."""
    async with bench() as it:
        it.source.script.append(old_outcome)
        it.source.gate.clear()
        it.cache.start()
        await it.time.settle()
        it.source.secret = "second"
        it.cache.secret_changed()
        it.source.gate.set()
        await it.time.advance(1)
        assert it.observed.logins[1:] == [(SECRET_CHANGE, OK)]


# ---- sharing ----------------------------------------------------------------------------------


async def test_cache_after_a_reload_takes_the_token_over() -> None:
    """F45: no login, nothing observed, and it is renewed when its time comes."""
    async with bench() as it:
        first = await it.started()
        observed = Remembering()
        successor = it.another(observer=observed)
        successor.start()
        await it.time.settle()
        assert successor.usable(it.time.now) is first
        assert it.source.logins == 1
        assert observed.logins == []
        await it.cache.aclose()
        await it.time.advance(DAY / 2)
        assert observed.logins == [(SCHEDULE, OK)]
        await successor.aclose()


async def test_token_that_was_taken_over_delays_nothing() -> None:
    """The least interval is between logins; a reload is none, and short lives have no time."""
    async with bench(life_s=2.0) as it:
        await it.started()
        await it.time.advance(0.9)
        successor = it.another()
        successor.start()
        await it.cache.aclose()
        await it.time.advance(0.1)
        assert it.source.logins == 2
        await successor.aclose()


async def test_stale_token_is_taken_over_while_a_new_one_is_fetched() -> None:
    """With IAM down during a reload it is all there is."""
    async with bench(life_s=HOUR, spread=0.9) as it:
        first = await it.started()
        it.source.script.extend(failing(NETWORK) for _ in range(1000))
        await it.time.advance(HOUR * 0.6)
        successor = it.another()
        it.source.gate.clear()
        assert await successor.obtain() is first
        it.source.gate.set()
        await it.time.settle()
        assert successor.status(it.time.now).last_result is NETWORK
        assert successor.usable(it.time.now) is first
        await successor.aclose()


async def test_token_that_ends_sooner_is_not_taken_over() -> None:
    """Two caches that log in at once may store theirs in the wrong order."""
    async with bench() as it:
        first = await it.started()
        sooner = Credential(b"", stale_at=it.time.now, expires_at=first.expires_at - 1)
        it.store.put(Login(sooner, ("fake", "first")))
        it.source.script.append(failing(NETWORK))
        await it.time.advance(DAY / 2)
        assert it.current is first


async def test_token_of_another_secret_is_not_taken_over() -> None:
    """Else a wrong password would seem right as long as somebody else's token lives."""
    async with bench() as it:
        await it.started()
        other = FakeSource(it.time)
        other.secret = "wrong"
        other.script.append(failing(REFUSED))
        cache = it.another(other)
        cache.start()
        await it.time.settle()
        assert cache.usable(it.time.now) is None
        await cache.aclose()


async def test_rejected_token_is_not_taken_over_again() -> None:
    """It leaves the store with its rejection."""
    async with bench() as it:
        first = await it.started()
        it.source.gate.clear()
        it.cache.reject(first)
        successor = it.another(FakeSource(it.time))
        successor.start()
        await it.time.settle()
        assert successor.usable(it.time.now) is not first
        await successor.aclose()


# ---- telling ----------------------------------------------------------------------------------


async def test_logins_are_logged_without_their_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """One line each: INFO with what is known of the token, WARNING with what comes next."""
    caplog.set_level(logging.DEBUG)
    async with bench() as it:
        it.source.script.append(failing(REFUSED))
        it.cache.start()
        await it.time.settle()
        it.cache.secret_changed()
        await it.time.settle()
        warning, info = caplog.records
    assert (warning.levelname, info.levelname) == ("WARNING", "INFO")
    assert warning.getMessage() == (
        "identity default: login failed (startup): refused: scripted refused; "
        "next login in 900.0 s; there is no credential"
    )
    assert info.getMessage() == (
        "identity default: logged in (secret_change): user infer, project region, "
        "token 00000002 of 7 bytes, to be used for 86395 s"
    )


@pytest.mark.parametrize("life_s", [2.0, None])
async def test_log_is_not_flooded(life_s: float | None, caplog: pytest.LogCaptureFixture) -> None:
    """Of the same result in a row, one line a minute."""
    caplog.set_level(logging.INFO)
    async with bench(life_s=life_s or DAY) as it:
        if life_s is None:
            it.source.script.extend(failing(NETWORK) for _ in range(2000))
        it.cache.start()
        await it.time.advance(600)
        assert it.source.logins > 100
        assert 9 <= len(caplog.records) <= 11


async def test_duration_is_observed() -> None:
    """By the cache's clock, the reading of the secret included."""
    async with bench() as it:
        it.source.gate.clear()
        it.cache.start()
        await it.time.advance(1.5)
        it.source.gate.set()
        await it.time.settle()
        assert it.observed.durations_s == [1.5]


async def test_status_tells_when_the_next_login_is_due() -> None:
    """None while one is under way."""
    async with bench() as it:
        it.source.gate.clear()
        it.cache.start()
        await it.time.settle()
        assert it.status.next_login_s is None
        it.source.script.append(failing(THROTTLED))
        it.source.gate.set()
        await it.time.settle()
        await it.time.advance(DAY / 2 + 10)
        assert it.status.next_login_s == 20


# ---- the end ----------------------------------------------------------------------------------


async def test_closing_ends_the_login_and_lets_everybody_go() -> None:
    """No task, no alarm and no login is left; late callers are told at once."""
    async with bench() as it:
        it.source.gate.clear()
        caller = asyncio.create_task(it.cache.obtain())
        await it.time.settle()
        await it.cache.aclose()
        with pytest.raises(CredentialError):
            await caller
        assert (await it.refusal()).code is ErrorCode.TOKEN_UNAVAILABLE
        it.cache.secret_changed()
        await it.time.advance(2 * DAY)
        assert it.source.logins == 1
        assert it.observed.logins == []
        assert it.time.next_alarm is None
        assert it.status.reason is Reason.CLOSED


async def test_credential_that_never_expires_sets_no_alarm() -> None:
    """A token file is looked at by its watcher, not by the cache."""
    async with bench(life_s=float("inf")) as it:
        await it.started()
        assert it.time.next_alarm is None
        assert it.status.next_login_s is None
