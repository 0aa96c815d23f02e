"""The dashboard's main panels as a picture, from what Prometheus saw of a shift. Pure.

Not Grafana's own drawing: the same queries, the same titles, plain SVG. Light or dark as the
reader's system asks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle

_STYLE = """
  text { font: 11px system-ui, sans-serif; fill: #57606a }
  .title { font-size: 13px; font-weight: 600; fill: #24292f }
  .page { fill: #ffffff } .panel { fill: #f6f8fa; stroke: #d0d7de } .grid { stroke: #d0d7de }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .title { fill: #e6edf3 }
    .page { fill: #0d1117 } .panel { fill: #151b23; stroke: #3d444d } .grid { stroke: #3d444d }
  }"""
_COLOURS = ("#0a84c6", "#d9730d", "#2da44e", "#a475f9", "#d29922", "#cf222e", "#1b7c83", "#bf5af2")
_WIDTH, _HEIGHT, _GAP = 480, 262, 12
_LEFT, _TOP, _RIGHT, _BOTTOM = 52, 34, 14, 76
_COLUMNS = 2


@dataclass(frozen=True)
class Line:
    """One series: a name, and (seconds since the beginning, value); NaN where there is none."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """One panel."""

    title: str
    unit: str
    """As Grafana names it: `reqps`, `s` or `short`."""
    lines: Sequence[Line]
    stacked: bool = False


def picture(plots: Sequence[Plot], *, seconds: float, caption: str) -> str:
    """Return an SVG document of all panels, two in a row.

    Args:
        plots: in reading order.
        seconds: length of the time axis.
        caption: one line below it all.
    """
    rows = math.ceil(len(plots) / _COLUMNS)
    width = _COLUMNS * (_WIDTH + _GAP) + _GAP
    height = rows * (_HEIGHT + _GAP) + _GAP + 22
    parts = []
    for number, plot in enumerate(plots):
        x = _GAP + (number % _COLUMNS) * (_WIDTH + _GAP)
        y = _GAP + (number // _COLUMNS) * (_HEIGHT + _GAP)
        parts.append(f'<g transform="translate({x},{y})">{_panel(plot, seconds)}</g>')
    names = ", ".join(plot.title for plot in plots)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Dashboard: {escape(names)}">\n<style>{_STYLE}\n</style>\n'
        f'<rect class="page" width="{width}" height="{height}"/>\n'
        + "\n".join(parts)
        + f'\n<text x="{_GAP}" y="{height - 12}">{escape(caption)}</text>\n</svg>\n'
    )


def _panel(plot: Plot, seconds: float) -> str:
    lines = _stack(plot.lines) if plot.stacked else plot.lines
    top = max((v for line in lines for _, v in line.points if math.isfinite(v)), default=0.0)
    scale = _round_up(top)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(at: float, value: float) -> str:
        x = _LEFT + at / seconds * (right - _LEFT)
        return f"{x:.1f},{bottom - value / scale * (bottom - _TOP):.1f}"

    parts = [
        f'<rect class="panel" width="{_WIDTH}" height="{_HEIGHT}" rx="4"/>',
        f'<text class="title" x="12" y="21">{escape(plot.title)}</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - _TOP)
        parts.append(
            f'<path class="grid" d="M{_LEFT},{y:.1f}H{right}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{_shown(share * scale, plot.unit)}</text>"
        )
    for at in range(0, int(seconds) + 1, 10 if seconds <= 120 else 60):
        x = _LEFT + at / seconds * (right - _LEFT)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{at}</text>')
    below = [(at, 0.0) for at, _ in lines[0].points] if lines else []
    legend = []
    for line, colour in zip(lines, cycle(_COLOURS), strict=False):
        if plot.stacked:
            edge = " ".join(place(*point) for point in [*line.points, *reversed(below)])
            parts.append(f'<polygon points="{edge}" fill="{colour}" fill-opacity="0.75"/>')
            below = list(line.points)
        else:
            path = "".join(f"M{' L'.join(place(*p) for p in run)}" for run in _runs(line.points))
            parts.append(
                f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8" '
                f'stroke-linejoin="round"/>'
            )
        legend.append((line.name, colour))
    return "".join([*parts, *_legend(legend, bottom + 32)])


def _legend(names: Sequence[tuple[str, str]], top: float) -> list[str]:
    """Names beside dots, as many in a line as there is room for."""
    parts, x, y = [], 12.0, top
    for name, colour in names:
        width = 22 + 6.1 * len(name)
        if x + width > _WIDTH - 8:
            x, y = 12.0, y + 15
        parts.append(
            f'<circle cx="{x + 4:.0f}" cy="{y - 4:.0f}" r="4" fill="{colour}"/>'
            f'<text x="{x + 12:.0f}" y="{y:.0f}">{escape(name)}</text>'
        )
        x += width
    return parts


def _stack(lines: Sequence[Line]) -> list[Line]:
    """Add to each line all those before it; what is not there counts as 0."""
    total: dict[float, float] = {}
    stacked = []
    instants = sorted({at for line in lines for at, _ in line.points})
    for line in lines:
        values = dict(line.points)
        for at in instants:
            value = values.get(at, 0.0)
            total[at] = total.get(at, 0.0) + (value if math.isfinite(value) else 0.0)
        stacked.append(Line(line.name, [(at, total[at]) for at in instants]))
    return stacked


def _runs(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Cut a line where there is nothing to draw."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if math.isfinite(value):
            runs[-1].append((at, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 4, 5 and 10 times a power of ten; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 10) if step * power >= value * 0.999)


def _shown(value: float, unit: str) -> str:
    if unit == "reqps":
        return f"{value:g}/s"
    if unit == "s" and value:
        for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
            if value * factor >= 1:
                return f"{value * factor:g} {name}"
    return f"{value:g}"
