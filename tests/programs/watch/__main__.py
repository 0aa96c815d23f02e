"""`make picture`: work a shift, and draw what its Prometheus saw to deploy/grafana/dashboard.svg.

Print what was heard, and when.
"""

import math
import sys
import tempfile
from pathlib import Path

from tests.programs.watch.picture import Line, Plot, picture
from tests.programs.watch.shift import Shift, worked
from tests.programs.watch.test_dashboard import GRAFANA, PANELS, filled

# Panel → choice of services and identities: a crowd of lines would say nothing.
SHOWN = {
    "Requests per second": "iris|echo|flaky|slow|lost",
    "Errors by layer": ".+",
    "Time to first byte": "iris|slow",
    "Overhead": "iris|echo",
    "Requests waiting": "flooded",
    "Requests refused": "flooded",
    "Token: life left": "brief",
    "Logins by result": "brief|lost|locking",
}


def plots(shift: Shift) -> list[Plot]:
    """Return the main panels with what Prometheus answers to their queries."""
    made = []
    for title, chosen in SHOWN.items():
        [panel] = [one for one in PANELS if one["title"] == title]
        lines = [line for target in panel["targets"] for line in _lines(shift, target, chosen)]
        defaults = panel["fieldConfig"]["defaults"]
        stacked = "stacking" in defaults["custom"]
        made.append(Plot(title, defaults["unit"], lines, stacked))
    return made


def _lines(shift: Shift, target: dict[str, str], chosen: str) -> list[Line]:
    expression = target["expr"]
    for variable in ("$service", "$identity"):
        expression = expression.replace(variable, chosen)
    found = shift.stack.ask(
        "query_range", query=filled(expression), start=shift.began, end=shift.ended, step=0.5
    )
    lines = []
    for series in found["result"]:
        name = target["legendFormat"]
        for label, value in series["metric"].items():
            name = name.replace(f"{{{{{label}}}}}", value)
        values = {round(at - shift.began, 1): float(value) for at, value in series["values"]}
        instants = [step / 2 for step in range(int(2 * (shift.ended - shift.began)) + 1)]
        lines.append(Line(name, [(at, values.get(at, math.nan)) for at in instants]))
    return sorted(lines, key=lambda line: line.name)


def drawn(shift: Shift) -> str:
    """Return the picture of a shift."""
    return picture(
        plots(shift),
        seconds=shift.ended - shift.began,
        caption="What a real Prometheus saw of a test run with faults; seconds since it began.",
    )


def main() -> int:
    """Work, print, draw; return the exit code."""
    with tempfile.TemporaryDirectory() as folder, worked(Path(folder)) as shift:
        for notice in shift.notices:
            labels = " ".join(
                f"{name}={value}"
                for name, value in notice.labels.items()
                if name in {"identity", "service", "layer", "instance"}
            )
            at = notice.at - shift.began
            print(f"{at:5.1f} s  {notice.status:9} {notice.labels['alertname']:24} {labels}")
        (GRAFANA / "dashboard.svg").write_text(drawn(shift))
    return len(shift.unfinished)


if __name__ == "__main__":
    sys.exit(main())
