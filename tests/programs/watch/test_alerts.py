"""A real Prometheus and Alertmanager watch real gateways: alerts fire, and they clear."""

import subprocess

import pytest

from tests.programs.watch.shift import LIMIT_S, Shift
from tests.programs.watch.test_rules import ALERTS
from tests.support.tools import tool

pytestmark = pytest.mark.timeout(3 * LIMIT_S)  # whichever test comes first waits for the shift

BROKEN: list[tuple[str, dict[str, str]]] = [
    ("GatewayDown", {}),
    ("GatewayTokenMissing", {"identity": "lost"}),
    ("GatewayTokenMissing", {"identity": "brief"}),
    ("GatewayTokenExpiring", {"identity": "brief"}),
    ("GatewayLoginsThrottled", {"identity": "brief"}),
    ("GatewayIamUnreachable", {"identity": "lost"}),
    ("GatewayIdentityLocked", {"identity": "locking"}),
    ("GatewayClockSkew", {"identity": "skewed"}),
    ("GatewayErrorsFast", {"service": "lost", "layer": "identity"}),
    ("GatewayErrorsFast", {"service": "flaky", "layer": "apig"}),
    ("GatewayErrorsFast", {"service": "flaky", "layer": "modelarts"}),
    ("GatewayErrorsFast", {"service": "flaky", "layer": "model"}),
    ("GatewayErrorsFast", {"service": "flaky", "layer": "network"}),
    ("GatewayCallerErrors", {"service": "misused"}),
    ("GatewayUpstreamSlow", {"service": "slow"}),
    ("GatewaySaturated", {"service": "full"}),
    ("GatewaySaturated", {"service": "flooded"}),
    ("GatewayQueueSlow", {"service": "flooded"}),
    ("GatewayErrorsFast", {"service": "flooded", "layer": "gateway"}),
    ("GatewayReloadFailed", {}),
]


@pytest.mark.parametrize(("alert", "labels"), BROKEN, ids=str)
def test_what_breaks_is_heard_of_and_what_is_repaired_too(
    shift: Shift, alert: str, labels: dict[str, str]
) -> None:
    """The right receiver gets both; the alert names what is broken."""
    fired = shift.heard("firing", alert, labels)
    resolved = shift.heard("resolved", alert, labels)

    assert fired, shift.unfinished
    assert resolved, shift.unfinished
    critical = ALERTS[alert]["labels"]["severity"] == "critical"
    assert {notice.receiver for notice in fired} == {"pager" if critical else "tickets"}


def test_nothing_else_is_heard_of(shift: Shift) -> None:
    """No alert about what is well. Of what was broken, slower alerts may speak as well."""
    others = [
        notice.labels
        for notice in shift.notices
        if not any(notice.is_about(alert, labels) for alert, labels in BROKEN)
        and notice.labels["alertname"]
        not in {
            "GatewayAbsent",  # Prometheus takes 5 s to its first scrape, 5 minutes of this shift
            "GatewayOverheadHigh",  # this machine may be short of CPU
        }
        and not (
            notice.labels["alertname"] in {"GatewayErrorsSlow", "GatewayErrorsLasting"}
            and notice.labels["service"] in {"flaky", "lost", "flooded"}
        )
    ]

    assert others == []


def test_promtool_is_silent_about_the_live_page(shift: Shift) -> None:
    """After everything that can happen has happened."""
    done = subprocess.run(
        [tool("promtool", "prometheus"), "check", "metrics"],
        input=shift.page,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_prometheus_keeps_the_callers_traces(shift: Shift) -> None:
    """The exemplars of a service's histograms are the trace ids that its callers sent."""
    for histogram in (
        "gateway_request_duration_seconds_bucket",
        "gateway_upstream_first_byte_seconds_bucket",
        "gateway_overhead_seconds_bucket",
    ):
        series = shift.stack.ask(
            "query_exemplars", query=histogram, start=shift.began, end=shift.ended + 1
        )
        found = {
            (one["seriesLabels"]["service"], exemplar["labels"]["trace_id"])
            for one in series
            for exemplar in one["exemplars"]
        }

        assert found
        assert {service for service, _ in found} == {"iris"}
        assert {trace for _, trace in found} <= shift.traces
