"""One page about a soak: figures, a chart of characters, and a drawing. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.programs.soak.campaign import Soak
from tests.programs.soak.faults import FLAKY, LOST
from tests.programs.soak.verdict import BUSY, growth_mib
from tests.programs.watch.picture import Line, Plot, picture

_COLUMNS = 60
_LEVELS = " ▁▂▃▄▅▆▇█"
Points = Sequence[tuple[float, float]]


def summary(soak: Soak) -> str:
    """Return the page."""
    ledger = soak.ledger
    wrong = len(ledger.wrong)
    total = ledger.calls.total()
    lines = [
        f"Soak of {soak.seconds:.0f} s: {total} calls, {total / soak.seconds:.0f} a second",
        "",
        f"  {'caller':<14}{'calls':>8}{'wrong, in a fault':>20}{'left':>8}",
    ]
    for kind, calls in ledger.calls.items():
        of_kind = sum(1 for one in ledger.wrong if one.kind == kind)
        lines.append(f"  {kind:<14}{calls:>8}{of_kind or '':>20}{ledger.left[kind] or '':>8}")
    if wrong:
        outside = sum(not any(e.excuses(one) for e in soak.episodes) for one in ledger.wrong)
        lines.append(f"  of {wrong} wrong answers {outside} came outside of a fault's scope")
    lines += ["", *_readings(soak), "", *_chart(soak), "", *_episodes(soak)]
    problems = [*soak.problems(), *soak.alert_problems()]
    verdict = "FAILED" if problems else "Nothing leaked, nothing was lost"
    if not problems and soak.watched:
        verdict += ", and each alert had its fault"
    return "\n".join([*lines, "", *(f"  {problem}"[:400] for problem in problems), verdict, ""])


def _readings(soak: Soak) -> list[str]:
    if not soak.readings:
        return ["  no readings"]
    first, last = soak.readings[0], soak.readings[-1]
    lines = [f"  {'at rest':<14}{'warm':>10}{'at the end':>12}   {len(soak.readings)} readings"]
    for name, unit in (
        ("rss_mib", "MiB of memory"),
        ("descriptors", "descriptors"),
        ("threads", "threads"),
        ("tasks", "tasks"),
        ("objects", "objects"),
        ("series", "series"),
    ):
        before, after = getattr(first, name), getattr(last, name)
        shown = (
            (f"{before:.1f}", f"{after:.1f}") if name == "rss_mib" else (f"{before}", f"{after}")
        )
        lines.append(f"  {unit:<14}{shown[0]:>10}{shown[1]:>12}")
    lines.append(f"  memory's trend: {growth_mib(soak.readings):+.2f} MiB over the soak")
    return lines


def _chart(soak: Soak) -> list[str]:
    def row(name: str, points: Points, unit: str, *, least: float = 0.0) -> str:
        cells = _cells(points, soak.seconds)
        most = max(cells, default=0.0)
        span = max(most - least, 1e-9)
        bar = "".join(_LEVELS[min(8, math.ceil(8 * max(c - least, 0) / span))] for c in cells)
        return f"  {name:<26}{bar} {most:.0f} {unit}"

    low = min((mib for _, mib in soak.memory), default=0.0) * 0.95
    return [
        row("calls a second", _rate(soak, None), "/s"),
        row("wrong answers a second", _wrong(soak), "/s"),
        row("slowest JSON call", _slowest(soak), "ms"),
        row("memory", soak.memory, "MiB", least=low),
        *(
            f"  {name[:25]:<26}{_span(soak.seconds, spans, '█')}"
            for name, spans in _faults(soak).items()
        ),
        *(
            f"  {name[:25]:<26}{_span(soak.seconds, spans, '▄')}"
            for name, spans in _alerts(soak).items()
        ),
    ]


def _episodes(soak: Soak) -> list[str]:
    if not soak.watched:
        return ["  No Prometheus: alerts were not judged"]
    busy = sorted({one.name for one in soak.firings if one.name in BUSY})
    expected = {
        one.fault.name: ", ".join(str(alert) for alert in one.fault.alerts) for one in soak.episodes
    }
    lines = [f"  {name}: {alerts}" for name, alerts in expected.items()]
    return [*lines, *(f"  {name} has fired: this machine is short of CPU time" for name in busy)]


def drawing(soak: Soak) -> str:
    """Return the same as an SVG document, light or dark as the reader's system asks."""
    kinds = {"sound services": None, FLAKY: FLAKY, LOST: LOST}
    calls = [
        Line(name, _rate(soak, [service] if service else _sound(soak)))
        for name, service in kinds.items()
    ]
    objects = [(one.at, float(one.objects)) for one in soak.readings]
    descriptors = [(one.at, float(one.descriptors)) for one in soak.readings]
    tasks = [(one.at, float(one.tasks)) for one in soak.readings]
    plots = [
        Plot("Calls per second", "reqps", calls, stacked=True),
        Plot("Wrong answers per second, by fault", "reqps", _wrong_by_fault(soak)),
        Plot("Resident memory, MiB", "short", [Line("memory", soak.memory)]),
        Plot("Slowest JSON call", "s", [Line("slowest", _scaled(_slowest(soak), 1e-3))]),
        Plot(
            "At rest",
            "short",
            [Line("descriptors", descriptors), Line("tasks", tasks)],
        ),
        Plot("Objects at rest", "short", [Line("objects", objects)]),
        Plot("Faults", "short", _bands((e.fault.name, e.began, e.ended) for e in soak.episodes)),
        Plot("Alerts firing", "short", _bands((f.name, f.began, f.ended) for f in soak.firings)),
    ]
    caption = f"{soak.ledger.calls.total()} calls in {soak.seconds:.0f} s; seconds since the start."
    return picture(plots, seconds=soak.seconds, caption=caption)


def _sound(soak: Soak) -> list[str]:
    return [service for service in soak.ledger.sent if service not in {FLAKY, LOST}]


def _rate(soak: Soak, services: Iterable[str] | None) -> list[tuple[float, float]]:
    chosen = list(soak.ledger.sent if services is None else services)
    per_second = [soak.ledger.per_second.get(service, Counter()) for service in chosen]
    return [
        (float(second), float(sum(calls[second] for calls in per_second)))
        for second in range(int(soak.seconds))
    ]


def _wrong(soak: Soak) -> list[tuple[float, float]]:
    counts = [0.0] * (int(soak.seconds) + 1)
    for one in soak.ledger.wrong:
        counts[min(int(one.ended), len(counts) - 1)] += 1
    return [(float(second), count) for second, count in enumerate(counts)]


def _wrong_by_fault(soak: Soak) -> list[Line]:
    found: dict[str, list[float]] = {}
    for one in soak.ledger.wrong:
        name = next((e.fault.name for e in soak.episodes if e.excuses(one)), "no fault")
        counts = found.setdefault(name, [0.0] * (int(soak.seconds) + 1))
        counts[min(int(one.ended), int(soak.seconds))] += 1
    return [
        Line(name, [(float(second), count) for second, count in enumerate(counts)])
        for name, counts in found.items()
    ]


def _slowest(soak: Soak) -> list[tuple[float, float]]:
    return [
        (float(second), soak.ledger.slowest[second] / 1000) for second in range(int(soak.seconds))
    ]


def _scaled(points: Points, factor: float) -> list[tuple[float, float]]:
    return [(at, value * factor) for at, value in points]


def _faults(soak: Soak) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for one in soak.episodes:
        found.setdefault(one.fault.name, []).append((one.began, one.ended))
    return found


def _alerts(soak: Soak) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for one in soak.firings:
        found.setdefault(one.name, []).append((one.began, one.ended))
    return found


def _bands(spans: Iterable[tuple[str, float, float]]) -> list[Line]:
    """Return a line per name, each at a height of its own, where it was there."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, began, ended in spans:
        height = 1.0 + list(found).index(name) if name in found else 1.0 + len(found)
        points = found.setdefault(name, [])
        points += [(began, height), (ended, height), (ended, math.nan)]
    return [Line(name, points) for name, points in found.items()]


def _cells(points: Points, seconds: float) -> list[float]:
    """Return the highest value of each column's share of the time."""
    cells = [0.0] * _COLUMNS
    for at, value in points:
        column = min(_COLUMNS - 1, int(at / seconds * _COLUMNS))
        cells[column] = max(cells[column], value)
    return cells


def _span(seconds: float, spans: Iterable[tuple[float, float]], mark: str) -> str:
    cells = [" "] * _COLUMNS
    for began, ended in spans:
        first = min(_COLUMNS - 1, int(began / seconds * _COLUMNS))
        last = min(_COLUMNS - 1, int(min(ended, seconds) / seconds * _COLUMNS))
        cells[first : last + 1] = mark * (last + 1 - first)
    return "".join(cells)
