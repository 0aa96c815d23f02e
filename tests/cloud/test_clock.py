"""F14: clocks that disagree. A token's life is a difference of IAM's own instants, counted on ours.

IAM's clock is moved, not ours: only the difference is seen, and our lifetimes do not ask it.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.twin import Clock
from tests.cloud.serving import twin_gateway
from tests.support.twin import running_twin
from tests.support.until import PATIENCE_S

HOUR_S = 3600.0


class WrongClock:
    """The wall clock of an IAM that is `ahead_s` ahead of ours."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
async def test_f14_wrong_clock_costs_no_call(tmp_path: Path, ahead_s: float) -> None:
    """Over two lives of a token every call succeeds, and the gauge tells ours minus IAM's."""
    clock = Clock(wall=WrongClock(ahead_s))
    async with (
        running_twin(token_ttl_s=2.5, clock=clock) as twin,
        twin_gateway(twin, tmp_path) as gateway,
    ):
        began = time.monotonic()
        while (took_s := time.monotonic() - began) < 5:
            assert (await gateway.call()).status == 200
            await asyncio.sleep(0.05)
        assert gateway.gauge("gateway_clock_skew_seconds") == pytest.approx(-ahead_s, abs=1.5)
        expiry = gateway.gauge("gateway_token_expiry_timestamp_seconds")
        ours = datetime.now(UTC).timestamp()
        assert -0.1 <= expiry - ours <= 2.5, "the gauge is for our clock"
        assert 3 <= gateway.logins() <= took_s / (0.5 * 2.5) + 2, "at half of a token's life"
        assert gateway.logins(result="ok") == gateway.logins()
        assert twin.stats.services["iris"].rejected == 0


async def test_f14_clock_that_is_set_while_we_run(tmp_path: Path) -> None:
    """IAM's clock jumps an hour either way between logins: noticed in the gauge alone."""
    wall = WrongClock(0.0)
    async with (
        running_twin(token_ttl_s=2.5, clock=Clock(wall=wall)) as twin,
        twin_gateway(twin, tmp_path) as gateway,
    ):
        await gateway.has_token()
        assert gateway.gauge("gateway_clock_skew_seconds") == pytest.approx(0, abs=1.5)
        for ahead_s in (HOUR_S, -HOUR_S):
            wall.ahead_s = ahead_s
            made = gateway.logins()
            async with asyncio.timeout(PATIENCE_S):
                while gateway.logins() == made:
                    assert (await gateway.call()).status == 200
                    await asyncio.sleep(0.05)
            skew_s = gateway.gauge("gateway_clock_skew_seconds")
            assert skew_s == pytest.approx(-ahead_s, abs=1.5)
        assert twin.stats.services["iris"].rejected == 0
