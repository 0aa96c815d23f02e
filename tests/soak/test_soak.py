"""The short form of `make soak`, once; and that what it looks for would be found."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.soak.campaign import TOOLS, Soak
from tests.soak.ledger import Alert, Episode, Fault, Firing, Ledger
from tests.soak.page import drawing, summary
from tests.soak.process import Reading
from tests.soak.verdict import leaks, lost, slope, unmatched
from tests.support.tools import tool

_FIRED = Alert.of("GatewayErrorsFast", service="flaky", layer="model")
_FAULT = Fault("the model fails", "flaky", frozenset({"500"}), (_FIRED,))
_LABELS = {"service": "flaky", "layer": "model", "severity": "critical"}
_AT_REST = Reading(
    at=10, rss_mib=60, descriptors=30, threads=8, tasks=8, objects=1500, series=1600, requests=1000
)


def later(count: int, **changes: float) -> list[Reading]:
    """A reading, and `count` more a minute and 1000 requests apart, each with `changes` added."""
    readings = [_AT_REST]
    for _ in range(count):
        last = readings[-1]
        grown = {name: getattr(last, name) + by for name, by in changes.items()}
        readings.append(replace(last, at=last.at + 60, requests=last.requests + 1000, **grown))
    return readings


def broken(*, cleared: float = 40) -> Episode:
    """An episode from 20 s to 30 s."""
    return Episode(_FAULT, began=20, ended=30, cleared=cleared)


# The soak.


@pytest.mark.timeout(240)  # whichever comes first waits for the soak, whose waits are bounded
def test_nothing_leaks_and_nothing_is_lost(done: Soak) -> None:
    """Under all kinds of traffic, while a service, IAM and tokens fail and are well again."""
    assert done.problems() == [], summary(done)
    assert all(done.ledger.calls.values()), done.ledger.calls
    assert {one.fault.service for one in done.episodes} == {"flaky", "lost"}
    assert {wrong.service for wrong in done.ledger.wrong} == {"flaky", "lost"}
    assert len(done.readings) >= 3


@pytest.mark.timeout(240)
def test_the_alerts_match_the_faults(done: Soak) -> None:
    """Prometheus, with the shipped rules, hears of each fault and of its end, and nothing else."""
    for name, package in TOOLS.items():
        tool(name, package)

    assert done.watched
    assert done.alert_problems() == [], summary(done)


@pytest.mark.timeout(240)
def test_the_page_shows_it(done: Soak, tmp_path: Path) -> None:
    """Every caller and fault has its line, one page holds them all, and the drawing is an SVG."""
    page = summary(done)

    for name in (*done.ledger.calls, *(one.fault.name for one in done.episodes)):
        assert name in page
    assert len(page.splitlines()) <= 66
    assert ET.fromstring(drawing(done)).tag.endswith("svg")


# What it looks for.


def test_what_stays_as_it_is_leaks_nothing() -> None:
    """Readings that do not grow, or by as much as the interpreter itself may."""
    assert leaks(later(5)) == []
    assert leaks(later(5, rss_mib=1.0, objects=20)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rss_mib": 2.0}, "memory grew by 10.0 MiB in 5000 requests"),
        ({"descriptors": 2}, "descriptors grew from 30 to 40"),
        ({"tasks": 1}, "tasks grew from 8 to 13"),
        ({"threads": 10}, "58 threads"),
        ({"objects": 1000}, "5000 objects more after 5000 requests"),
        ({"series": 1}, "series grew from 1603 to 1605 after everything"),
    ],
)
def test_what_grows_is_a_leak(changes: dict[str, float], said: str) -> None:
    """One thing for each is enough; the sentence tells what and by how much."""
    assert leaks(later(5, **changes)) == [said]


def test_one_reading_says_nothing() -> None:
    """A soak that could not be measured has not passed."""
    assert len(leaks([_AT_REST])) == 1


def test_the_slope_does_not_heed_an_odd_point() -> None:
    """One reading among six that is far off changes nothing."""
    points = [(float(at), 2.0 * at) for at in range(6)]
    points[3] = (3.0, 500.0)

    assert slope(points) == pytest.approx(2.0)
    assert slope([(1.0, 1.0)]) == 0.0


@pytest.mark.parametrize(
    ("service", "began", "ended", "outcome", "excused"),
    [
        ("flaky", 25, 26, "500", True),
        ("flaky", 19, 21, "500", True),
        ("flaky", 25, 26, "502", False),
        ("iris", 25, 26, "500", False),
        ("flaky", 30.5, 31, "500", False),
        ("flaky", 18, 19, "500", False),
    ],
)
def test_a_fault_excuses_its_own_only(
    service: str, began: float, ended: float, outcome: str, excused: bool
) -> None:
    """Its service, while it was there, with what it does; everything else has been lost."""
    ledger = Ledger()
    ledger.enter("json", service, began, ended, outcome)
    ledger.enter("json", service, began, ended)

    assert bool(lost(ledger, {service: 2}, [broken()])) is not excused


def test_what_nobody_counted_is_lost() -> None:
    """What callers have sent and what the gateway has counted is the same to the last request."""
    ledger = Ledger()
    ledger.enter("json", "iris", 1, 2)
    ledger.enter_left("leaves", "iris", 2)

    assert lost(ledger, {"iris": 2}, []) == []
    assert lost(ledger, {"iris": 1}, []) == ["iris: 2 requests were sent, 1 were counted"]
    ledger.calls["form"] += 0
    assert lost(ledger, {"iris": 2}, []) == ["nobody called 'form'"]


@pytest.mark.parametrize(
    ("firings", "episode", "problems"),
    [
        ([Firing("GatewayErrorsFast", _LABELS, 25, 38)], broken(), 0),
        ([], broken(), 1),
        ([Firing("GatewayErrorsFast", _LABELS | {"layer": "apig"}, 25, 38)], broken(), 2),
        ([Firing("GatewayErrorsFast", _LABELS, 50, 55)], broken(), 2),
        ([Firing("GatewayErrorsFast", _LABELS, 25, 90)], broken(cleared=float("inf")), 1),
        (
            [
                Firing("GatewayErrorsFast", _LABELS, 25, 38),
                Firing("GatewayErrorsSlow", _LABELS, 60, 90),
                Firing("GatewayOverheadHigh", {"service": "iris"}, 60, 90),
                Firing("GatewayAbsent", {}, 1, 4),
            ],
            broken(),
            0,
        ),
        (
            [
                Firing("GatewayErrorsFast", _LABELS, 25, 38),
                Firing("GatewayErrorsSlow", {"service": "iris"}, 60, 90),
                Firing("GatewayAbsent", {}, 50, 54),
            ],
            broken(),
            2,
        ),
    ],
)
def test_an_alert_needs_its_fault_and_a_fault_its_alert(
    firings: list[Firing], episode: Episode, problems: int
) -> None:
    """What did not fire, did not clear, or fired for no reason: each is told."""
    assert len(unmatched(firings, [episode])) == problems
