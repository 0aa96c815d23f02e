"""The dashboard: what Grafana's own types say of it, and what a real Prometheus answers to it."""

import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.programs.watch.shift import LIMIT_S, Shift
from tests.programs.watch.short import PROMETHEUS
from tests.programs.watch.test_rules import NOT_OURS, exported
from tests.support.rows import every_row
from tests.support.tools import npm_program

GRAFANA = PROMETHEUS.parent / "grafana"
SCHEMA = Path(__file__).parents[3] / ".venv" / "grafana-schema"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "modelarts-gateway.json").read_text())
PANELS: list[dict[str, Any]] = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
VARIABLES: list[dict[str, Any]] = DASHBOARD["templating"]["list"]
ANNOTATIONS: list[dict[str, Any]] = DASHBOARD["annotations"]["list"]
QUERIES: list[str] = [
    *(target["expr"] for panel in PANELS for target in panel["targets"]),
    *(one["target"]["expr"] for one in ANNOTATIONS),
]
_OF_PROMETHEUS = {"target", "useValueForTime", "titleFormat", "textFormat"}
"""Keys of an annotation that only Grafana's plug-in for Prometheus knows; its types do not."""

# Grafana fills these in; the windows are those of a shift, in which a minute takes a second.
FILLED = {"$__rate_interval": "5s"} | dict.fromkeys(
    ("$namespace", "$pod", "$instance", "$service", "$identity"), ".*"
)


def filled(expression: str) -> str:
    """An expression as Grafana sends it with "All" chosen everywhere, without what fills gaps."""
    expression = expression.removesuffix(" or on() vector(0)")
    for name, value in FILLED.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@pytest.mark.long
@pytest.mark.timeout(320)  # the first run installs the compiler
def test_grafanas_types_accept_the_dashboard(tmp_path: Path) -> None:
    """Unknown keys and wrong types are errors; in it, in its panels' options and styles as well."""
    tsc = npm_program(SCHEMA, "tsc", "@grafana/schema@13.2.3", "typescript@7.0.2")

    assert _types(tsc, tmp_path, DASHBOARD) == ""
    broken = json.loads(json.dumps(DASHBOARD))
    broken["panels"][1]["fieldConfig"]["defaults"]["unti"] = "s"
    assert "unti" in _types(tsc, tmp_path, broken)
    broken = json.loads(json.dumps(DASHBOARD))
    next(p for p in broken["panels"] if p["type"] == "stat")["options"]["colorMode"] = "loud"
    assert "loud" in _types(tsc, tmp_path, broken)


def _types(tsc: Path, folder: Path, dashboard: dict[str, Any]) -> str:
    """What the compiler says."""
    dashboard = json.loads(json.dumps(dashboard))
    for one in dashboard["annotations"]["list"]:
        for key in _OF_PROMETHEUS:
            del one[key]
    raw = SCHEMA / "node_modules" / "@grafana" / "schema" / "dist" / "types" / "raw"
    lines = [f'import {{ Dashboard }} from "{raw}/dashboard/x/types.gen";']
    lines += [
        f'import * as {kind} from "{raw}/composable/{kind}/panelcfg/x/types.gen";'
        for kind in ("stat", "timeseries")
    ]
    # JSON knows no enums: their values stand for them.
    lines.append(
        "type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[] :"
        " T extends object ? { [K in keyof T]: Plain<T[K]> } : T;"
    )
    lines.append(f"export const dashboard: Dashboard = {json.dumps(dashboard, indent=1)};")
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            options, custom = panel["options"], panel["fieldConfig"]["defaults"].get("custom")
            kind, number = panel["type"], panel["id"]
            lines.append(f"export const o{number}: Plain<{kind}.Options> = {json.dumps(options)};")
            if custom is not None:
                known = f"Plain<{kind}.FieldConfig>"
                lines.append(f"export const c{number}: {known} = {json.dumps(custom)};")
    source = folder / "dashboard.ts"
    source.write_text("\n".join(lines))
    done = subprocess.run(
        [
            tsc, "--noEmit", "--strict", "--skipLibCheck", "--module", "esnext",
            "--moduleResolution", "bundler", source,
        ],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout


def test_every_panel_explains_itself() -> None:
    """It has a title of its own, a number of its own, a text, and the chosen source."""
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"


def test_links_lead_into_the_runbook() -> None:
    """To sections that there are, of alerts that there are; most panels have one."""
    headings = re.findall(r"^#+ (.+)$", (GRAFANA.parent / "README.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
    linked = [link for panel in PANELS for link in panel.get("links") or []]
    rules = (PROMETHEUS / "alerts.rules.yml").read_text()

    assert len(linked) > len(PANELS) / 2
    for link in [*linked, *DASHBOARD["links"]]:
        base, _, anchor = link["url"].partition("#")
        assert base == "${runbook}"
        assert anchor in anchors
    for link in linked:
        assert f"- alert: {link['title'].removeprefix('Runbook: ')}\n" in rules


def test_panels_do_not_overlap() -> None:
    """Each has its place on the grid of 24 columns."""
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))


def test_outside_kubernetes_all_fits_what_has_no_namespace() -> None:
    """Else nothing would be shown there."""
    found = {one["name"]: one.get("allValue") for one in VARIABLES}

    assert (found["namespace"], found["pod"]) == (".*", ".*")


def test_panels_ask_for_what_is_there() -> None:
    """Every metric that a query names is exported."""
    known = {*exported(), *NOT_OURS}
    with every_row() as trying:
        for expression in QUERIES:
            with trying(expression):
                names = set(re.findall(r"\b(?:gateway_\w+|process_\w+|up(?=\{))", expression))
                assert names
                assert names <= known


def test_grafana_is_provisioned_with_what_is_here() -> None:
    """The dashboard can be shown on the source, and the source knows the scrape interval."""
    provisioning = GRAFANA / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())

    assert source["type"] == VARIABLES[0]["query"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    providers = yaml.safe_load((provisioning / "dashboards" / "modelarts-gateway.yml").read_text())
    assert [provider["type"] for provider in providers["providers"]] == ["file"]


@pytest.mark.timeout(3 * LIMIT_S)
def test_no_query_is_empty(shift: Shift) -> None:
    """A real Prometheus that watched real gateways has something to show for each."""
    with every_row() as trying:
        for expression in QUERIES:
            with trying(expression):
                found = shift.stack.ask(
                    "query_range",
                    query=filled(expression),
                    start=shift.began,
                    end=shift.ended,
                    step=1,
                )
                values = list(_values(found))
                assert any(math.isfinite(value) for value in values)
                assert not any(math.isinf(value) for value in values), "no graph has room for it"


def _values(found: Any) -> Iterator[float]:
    for series in found["result"]:
        for _, value in series["values"]:
            yield float(value)


@pytest.mark.timeout(3 * LIMIT_S)
@pytest.mark.parametrize(
    "query",
    [
        one["query"]
        for one in VARIABLES
        if one["type"] == "query" and one["name"] not in {"namespace", "pod"}  # of Kubernetes
    ],
)
def test_no_variable_is_empty(shift: Shift, query: str) -> None:
    """As Grafana asks for the values of a label."""
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    assert found is not None
    values = shift.stack.ask(
        f"label/{found[2]}/values",
        **{"match[]": filled(found[1])},
    )

    assert values
