"""The shipped rules, held against promtool, the gateway's own metrics, and the runbook."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.errors import ErrorCode, Layer
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.observe.identity_metrics import IdentityGauges, IdentityMetrics
from gateway.observe.metrics import Metrics
from gateway.observe.overload import OverloadGauges
from gateway.observe.service_metrics import UPSTREAM_ERRORS, ServiceGauges, ServiceMetrics
from gateway.observe.streams import UsageCounts
from gateway.settings.overload import MAX_IN_FLIGHT
from tests.programs.watch.short import PROMETHEUS, shortened
from tests.support.rows import every_row
from tests.support.tools import tool

RUNBOOK = PROMETHEUS.parent / "README.md"
SECTION = RUNBOOK.read_text().split("\n## Alerts: the runbook\n")[1].split("\n## ")[0]
NOT_OURS = {"up"}


def run(*command: str | Path) -> None:
    """Run a program that must find nothing to complain about."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def rules(file: str) -> list[dict[str, Any]]:
    """All rules of a file."""
    groups = yaml.safe_load((PROMETHEUS / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.rules.yml")}
EXPRESSIONS = [rule["expr"] for rule in [*ALERTS.values(), *rules("recording.rules.yml")]]


@cache
def exported() -> dict[str, list[dict[str, str]]]:
    """Labels of every series that a gateway with service `iris` exports, by name."""
    metrics = Metrics()
    service = ServiceMetrics("iris", ["POST"], ["token_rejected"])
    service.bodies.usage = UsageCounts()
    service.count_request("POST", 200)
    metrics.add_service(service, lambda: ServiceGauges(0, 0, OverloadGauges(limit=1000)))
    identity = IdentityMetrics("default", map(str, RefreshTrigger), map(str, RefreshResult))
    metrics.add_identity(identity, lambda: IdentityGauges(0.0, False, 0.0))
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(metrics.exposition("")[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_promtool_and_amtool_accept_the_files() -> None:
    """Configurations and rules, as they are shipped."""
    promtool = tool("promtool", "prometheus")
    run(promtool, "check", "config", PROMETHEUS / "prometheus.yml")
    run(promtool, "check", "rules", *PROMETHEUS.glob("*.rules.yml"))
    amtool = tool("amtool", "prometheus-alertmanager")
    run(amtool, "check-config", PROMETHEUS / "alertmanager.yml")


@pytest.mark.long
@pytest.mark.parametrize("file", sorted(PROMETHEUS.glob("*.test.yml")), ids=lambda file: file.name)
@pytest.mark.timeout(300)  # a month of evaluations; 6 s of CPU
def test_alerts_fire_when_they_should(file: Path) -> None:
    """Each shipped case, with the text that people read; and each near miss."""
    run(tool("promtool", "prometheus"), "test", "rules", file)


def test_every_alert_is_tested_both_ways() -> None:
    """There is a case in which it fires, and one in which it does not."""
    cases = [
        case
        for file in PROMETHEUS.glob("*.test.yml")
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]

    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(ALERTS)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(ALERTS)


def runbook() -> dict[str, str]:
    """Entries of the runbook by the anchor that a renderer gives them."""
    entries = re.split(r"^### ", SECTION, flags=re.MULTILINE)[1:]
    return {entry.partition("\n")[0].lower(): entry for entry in entries}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_leads_to_its_entry_in_the_runbook(alert: str) -> None:
    """Which says what it means, what to look at and what to do; it has a severity and a text."""
    annotations = ALERTS[alert]["annotations"]
    page, _, anchor = annotations["runbook_url"].partition("#")

    assert page == "deploy/README.md"
    assert anchor == alert.lower()
    assert re.findall(r"^- \*\*(.+?):\*\*", runbook()[anchor], re.MULTILINE) == [
        "Means", "Look at", "Do",
    ]  # fmt: skip
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert ALERTS[alert]["labels"]["severity"] in {"critical", "warning", "info"}


def test_the_runbook_has_no_entry_for_nothing() -> None:
    """Each is that of an alert, in the order of the rules."""
    assert list(runbook()) == [alert.lower() for alert in ALERTS]


def test_rules_ask_for_what_is_there() -> None:
    """Every metric and every value of a label that an expression names exists."""
    with every_row() as trying:
        for expression in EXPRESSIONS:
            with trying(expression):
                assert_names_exist(expression)


def assert_names_exist(expression: str) -> None:
    """Hold one expression against what is exported and recorded."""
    series = exported()
    recorded = {rule["record"] for rule in rules("recording.rules.yml")}
    names = set(re.findall(r"\b(?:\w+:)*(?:gateway_\w+|up)(?::\w+)*\b", expression))

    assert names
    assert names <= {*series, *recorded, *NOT_OURS}
    for name, selector in re.findall(r"(\w+)\{([^}]*)\}", expression):
        if name in NOT_OURS:
            continue
        for label, operator, value in re.findall(r"(\w+)(=~|!=|=)\"([^\"]*)\"", selector):
            known = {labels[label] for labels in series[name]}
            wanted = set(value.split("|")) if operator == "=~" else {value}
            assert wanted <= known, (name, label)


def test_the_operators_objects_hold_the_same_rules() -> None:
    """What the page says to type makes them."""
    [script] = re.findall(r"```sh\n(.+?)```", SECTION.partition("\n### ")[0], re.DOTALL)
    made = subprocess.run(
        ["sh", "-c", script.replace("kubectl apply --filename -", "cat")],
        cwd=PROMETHEUS, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    objects = [one for one in yaml.safe_load_all(made) if one]

    assert [one["kind"] for one in objects] == ["PrometheusRule"] * 2
    assert [one["spec"] for one in objects] == [
        yaml.safe_load((PROMETHEUS / f"{name}.rules.yml").read_text())
        for name in ("recording", "alerts")
    ]


def test_thresholds_are_those_of_the_code() -> None:
    """Four fifths of what a service may have in flight; layers as in the table of the runbook."""
    assert f"> {MAX_IN_FLIGHT * 8 // 10}\n" in ALERTS["GatewaySaturated"]["expr"]
    table = SECTION.partition("\n### ")[0]
    assert all(f"`{layer.value}`" in table for layer in Layer)


def test_the_runbook_names_errors_that_exist() -> None:
    """Whatever is in code letters and looks like an error's label is one."""
    labels = {code.label for code in ErrorCode} | set(UPSTREAM_ERRORS)
    entry = runbook()["gatewayerrorsfast"]

    assert set(re.findall(r"`([a-z]+_[a-z_]+)`", entry)) - {"upstream_request_id"} <= labels


def test_shortening_touches_times_only() -> None:
    """Windows, waits and intervals are divided by 60; names, bounds and factors stay."""
    text = 'record: a:b:rate5m\nexpr: rate(x{le="10.0"}[5m]) > 14.4 * 0.005\nfor: 2m\n'

    assert shortened(text) == text.replace("[5m]", "[5000ms]").replace("for: 2m", "for: 2000ms")
    assert shortened("scrape_interval: 15s") == "scrape_interval: 1000ms"
    assert shortened("x[3d]") == "x[4320000ms]"
