"""What is wrong with a soak that is over. Pure: readings and books in, sentences out."""

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import median

from tests.programs.soak.ledger import Episode, Firing, Ledger
from tests.programs.soak.process import Reading

_GROWTH_MIB = 8.0
"""Between the first reading and the last, of what a straight line through all of them says."""
_DESCRIPTORS = 6
_TASKS = 3
_OBJECTS = 1500
_OBJECTS_PER_REQUEST = 0.05
"""One object for each request that is never let go is 1."""
_POOL = 8
_SETTLED = 2
"""The first half of the readings may bring new series: a status that had not been seen before."""
_ABSENT_S = 12
"""Until Prometheus has scraped for the first time, its rules believe that there is no gateway."""
_SLOWER = {"GatewayErrorsSlow", "GatewayErrorsLasting"}
"""Look back on hours: may speak of what has been broken at any time before."""
BUSY = {"GatewayOverheadHigh"}
"""Speaks of a machine that is short of CPU time, which the machine of a test may be."""


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median slope through pairs of points (Theil-Sen): a few odd ones do not matter."""
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x2 > x1]
    return median(slopes) if slopes else 0.0


def growth_mib(readings: Sequence[Reading]) -> float:
    """Return how much memory grew between the first reading and the last, by its trend."""
    points = [(reading.at, reading.rss_mib) for reading in readings]
    return slope(points) * (readings[-1].at - readings[0].at)


def leaks(readings: Sequence[Reading]) -> list[str]:
    """Return what grew between readings that were taken at rest, the first one warm."""
    if len(readings) < 2:
        return [f"{len(readings)} readings at rest: too few to say anything of leaks"]
    first, last = readings[0], readings[-1]
    requests = last.requests - first.requests
    problems = []
    grown = growth_mib(readings)
    if grown > _GROWTH_MIB:
        problems.append(f"memory grew by {grown:.1f} MiB in {requests} requests")
    threads = _POOL + (os.cpu_count() or 1)
    if last.threads > threads:
        problems.append(f"{last.threads} threads")
    for name, allowed in (("descriptors", _DESCRIPTORS), ("tasks", _TASKS)):
        before, after = getattr(first, name), getattr(last, name)
        if after - before > allowed:
            problems.append(f"{name} grew from {before} to {after}")
    objects = last.objects - first.objects
    if objects > _OBJECTS + _OBJECTS_PER_REQUEST * requests:
        problems.append(f"{objects} objects more after {requests} requests")
    settled = readings[len(readings) // 2 :]
    if len(readings) >= 2 * _SETTLED and settled[0].series != last.series:
        problems.append(f"series grew from {settled[0].series} to {last.series} after everything")
    return problems


def lost(ledger: Ledger, counted: Mapping[str, int], episodes: Sequence[Episode]) -> list[str]:
    """Return calls that went wrong outside the scope of a fault, and such as nobody counted."""
    problems = []
    unexcused = [wrong for wrong in ledger.wrong if not any(one.excuses(wrong) for one in episodes)]
    problems += [
        f"{wrong.kind} to {wrong.service}: {wrong.outcome}, "
        f"{wrong.began:.2f} s to {wrong.ended:.2f} s, outside of any fault"
        for wrong in unexcused[:10]
    ]
    if len(unexcused) > 10:
        problems.append(f"and {len(unexcused) - 10} more such calls")
    problems += [
        f"{service}: {sent} requests were sent, {counted.get(service, 0)} were counted"
        for service, sent in sorted(ledger.sent.items())
        if sent != counted.get(service, 0)
    ]
    problems += [f"nobody called {kind!r}" for kind, calls in ledger.calls.items() if not calls]
    return problems


def unnoticed(ledger: Ledger, episodes: Sequence[Episode]) -> list[str]:
    """Return faults that no caller has seen anything of: they were none."""
    return [
        f"{one.fault.name}: no caller noticed"
        for one in episodes
        if not any(one.excuses(wrong) for wrong in ledger.wrong)
    ]


def unmatched(firings: Sequence[Firing], episodes: Sequence[Episode]) -> list[str]:
    """Return alerts that should have fired, or cleared, and did not, and those for no reason."""
    problems = []
    for episode in episodes:
        for alert in episode.fault.alerts:
            heard = [
                firing
                for firing in firings
                if alert.is_told_by(firing.name, firing.labels)
                and episode.began <= firing.began <= episode.ended
            ]
            if not heard:
                problems.append(f"{episode.fault.name}: {alert} did not fire")
            elif episode.cleared == float("inf"):
                problems.append(f"{episode.fault.name}: its alerts did not clear")
    problems += [
        f"{firing.name} {firing.labels} fired at {firing.began:.0f} s for no reason"
        for firing in firings
        if not _has_reason(firing, episodes)
    ]
    return problems


def _has_reason(firing: Firing, episodes: Sequence[Episode]) -> bool:
    if firing.name in BUSY or (firing.name == "GatewayAbsent" and firing.began < _ABSENT_S):
        return True
    before = [one for one in episodes if one.began <= firing.began]
    if firing.name in _SLOWER:
        return any(one.fault.service == firing.labels.get("service") for one in before)
    return any(
        alert.is_told_by(firing.name, firing.labels)
        for one in before
        if firing.began <= one.cleared
        for alert in (*one.fault.alerts, *one.fault.also)
    )
