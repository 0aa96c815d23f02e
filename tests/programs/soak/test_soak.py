"""That what a soak looks for would be found, and that its page tells it.

The soak itself is `make soak`; CI runs 60 s of it.
"""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from tests.programs.soak.campaign import Soak
from tests.programs.soak.ledger import Alert, Episode, Fault, Firing, Ledger
from tests.programs.soak.page import drawing, summary
from tests.programs.soak.process import Reading
from tests.programs.soak.verdict import leaks, lost, slope, unmatched, unnoticed

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


def test_a_fault_that_nobody_noticed_was_none() -> None:
    """A soak whose faults do nothing would pass for ever."""
    ledger = Ledger()
    assert unnoticed(ledger, [broken()]) == ["the model fails: no caller noticed"]
    ledger.enter("flaky", "flaky", 25, 26, "500")
    assert unnoticed(ledger, [broken()]) == []


def test_the_page_shows_it() -> None:
    """Each caller, fault, alert and problem has its line on one page; the drawing is an SVG."""
    soak = Soak(60, watched=True, episodes=[broken()], readings=later(5, tasks=1), exit_code=0)
    soak.ledger.enter("json", "iris", 1, 2)
    soak.ledger.enter("flaky", "flaky", 25, 26, "500")
    soak.firings.append(Firing("GatewayErrorsFast", _LABELS, 25, 38))

    page = summary(soak)

    for said in ("json", "the model fails", "GatewayErrorsFast", "tasks grew from 8 to 13"):
        assert said in page
    assert page.endswith("FAILED\n")
    assert len(page.splitlines()) <= 66
    assert ET.fromstring(drawing(soak)).tag.endswith("svg")
