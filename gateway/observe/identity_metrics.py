"""What is counted for one identity, and the families that a scrape makes of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric

from gateway.observe.families import counter, gauge, histogram
from gateway.observe.histogram import Histogram

REFRESH_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class IdentityMetrics:
    """What is counted for one identity."""

    def __init__(self, name: str, triggers: Iterable[str], results: Iterable[str]) -> None:
        self.name = name
        self.duration = Histogram(REFRESH_BUCKETS_S)
        results = list(results)
        self._refreshes = {(trigger, result): 0 for trigger in triggers for result in results}
        self.sink_writes: dict[str, int] = {}
        """Writes of sinks by result; empty for an identity without sinks."""

    def refreshed(self, trigger: str, result: str, duration_s: float) -> None:
        """Count one attempt to get a token."""
        self._refreshes[trigger, result] += 1
        self.duration.observe(duration_s)

    def expect_sinks(self, results: Iterable[str]) -> None:
        """Export writes of sinks from now on, even before the first one."""
        for result in results:
            self.sink_writes.setdefault(result, 0)

    def sink_written(self, result: str) -> None:
        """Count one write of a sink."""
        self.sink_writes[result] += 1

    def totals(self) -> dict[tuple[str, str], int]:
        """Return attempts by (trigger, result)."""
        return self._refreshes


@dataclass(frozen=True, slots=True)
class IdentityGauges:
    """State of an identity at the moment of a scrape."""

    expiry_timestamp_s: float
    """Seconds since the epoch; 0 without a token."""
    locked: bool
    clock_skew_s: float
    """Our wall clock minus the issuer's; 0 until measured."""


def identity_families(identity: IdentityMetrics, now: IdentityGauges) -> Iterator[Metric]:
    """Yield the families of one identity."""
    name = identity.name
    of_identity = ("identity",)
    refreshes = identity.totals()
    yield gauge(
        "gateway_token_expiry_timestamp_seconds",
        "When the token in use expires; 0 without a token.",
        of_identity,
        [((name,), now.expiry_timestamp_s)],
    )
    yield gauge(
        "gateway_identity_locked",
        "1 while no login is tried, because IAM refused the last one.",
        of_identity,
        [((name,), float(now.locked))],
    )
    yield gauge(
        "gateway_clock_skew_seconds",
        "This machine's clock minus the token issuer's, as last measured.",
        of_identity,
        [((name,), now.clock_skew_s)],
    )
    yield counter(
        "gateway_token_refreshes",
        "Attempts to get a token, by what caused them and how they ended.",
        ("identity", "trigger", "result"),
        [((name, trigger, result), count) for (trigger, result), count in refreshes.items()],
    )
    yield histogram(
        "gateway_token_refresh_duration_seconds",
        "How long an attempt to get a token took.",
        of_identity,
        (name,),
        identity.duration,
    )
    yield counter(
        "gateway_sink_writes",
        "Writes of the files from which other programs read the token (`sinks`).",
        ("identity", "result"),
        [((name, result), count) for result, count in identity.sink_writes.items()],
    )
