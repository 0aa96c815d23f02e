"""What a run found: tables, ratios, targets, and the record that `latest.json` keeps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.programs.bench.measure import DIRECT, Sample
from tests.programs.bench.shapes import (
    ENDURANCE_GROWTH_MIB,
    ENDURANCE_SHAPE,
    FIGURES,
    GROWTH_TARGETS,
    MEMORY_GROWTH_MIB,
    MEMORY_SHAPE,
    MOST_LATE_MS,
    MOST_STRETCH,
    TARGETS,
    Load,
    Shape,
)

OURS = ("compiled", "interpreted")
"""The gateway's two builds; the first that took part is compared with the others."""
_COLUMNS = {
    Load.WRK: {
        "cpu_us": "CPU µs/req",
        "rate": "req/s",
        "p50_ms": "p50 ms",
        "p99_ms": "p99 ms",
        "rss_mib": "RSS MiB",
        "peak_mib": "peak MiB",
    },
    Load.OPEN_LOOP: {
        "cpu_us": "CPU µs/req",
        "p50_ms": "p50 ms",
        "p99_ms": "p99 ms",
        "p999_ms": "p99.9 ms",
        "added_p50_ms": "+p50",
        "added_p99_ms": "+p99",
        "added_p999_ms": "+p99.9",
        "late_ms": "late ms",
    },
    Load.UPLOADS: {"growth_mib": "growth MiB", "rss_mib": "RSS MiB", "peak_mib": "peak MiB"},
    Load.ENDURANCE: {
        "cpu_us": "CPU µs/req",
        "rate": "req/s",
        "growth_mib": "growth MiB",
        "rss_mib": "RSS MiB",
    },
}
_NOTES = {
    Load.OPEN_LOOP: "+ is over direct, in ms. late: how far behind its schedule the load was "
    "(99th percentile); where it is not small, the machine was too busy for this shape.",
    Load.UPLOADS: "growth: from before the uploads to the highest point during them.",
    Load.ENDURANCE: "growth: from after a second of the same load to the highest point.",
}


def compare_with_direct(samples: Iterable[Sample]) -> None:
    """Write into each sample of an open loop what it adds to `direct` of the same round."""
    samples = list(samples)
    direct = {one.round: one.figures for one in samples if one.contestant == DIRECT}
    for sample in samples:
        base = direct.get(sample.round)
        if sample.contestant == DIRECT or not base or not sample.figures:
            continue
        for key in ("p50_ms", "p99_ms", "p999_ms"):
            sample.figures[f"added_{key}"] = sample.figures[key] - base[key]


def contestants_in(samples: Iterable[Sample]) -> list[str]:
    return list(dict.fromkeys(one.contestant for one in samples))


def values(samples: Iterable[Sample], contestant: str, key: str) -> list[float]:
    """Return one figure over all rounds in which it exists."""
    return [
        one.figures[key] for one in samples if one.contestant == contestant and key in one.figures
    ]


def ratio(
    samples: Sequence[Sample], ours: str, contestant: str, key: str = "cpu_us"
) -> float | None:
    """Return the median of the per-round ratios of a figure, `ours` : `contestant`.

    Rounds of an open loop that was late itself, or of streams that were, are left out.
    """
    sound = [
        one
        for one in samples
        if one.figures.get("late_ms", 0) <= MOST_LATE_MS
        and one.figures.get("stretch", 0) <= MOST_STRETCH
    ]
    mine = {one.round: one.figures for one in sound if one.contestant == ours}
    theirs = {one.round: one.figures for one in sound if one.contestant == contestant}
    ratios = [
        mine[number][key] / theirs[number][key]
        for number in mine.keys() & theirs.keys()
        if key in mine[number] and theirs[number].get(key, 0) > 0
    ]
    return median(ratios) if ratios else None


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cell(found: list[float]) -> str:
    """Return the median and, over several rounds, the smallest and largest value."""
    if not found:
        return "-"
    if len(found) == 1:
        return _number(found[0])
    return f"{_number(median(found))} ({_number(min(found))}..{_number(max(found))})"


def table(shape: Shape, samples: Sequence[Sample]) -> str:
    """Return the table of one shape: medians with their spread, and the gateway's ratios."""
    columns = _COLUMNS[shape.load]
    with_ratio = shape.load is Load.WRK
    present = contestants_in(samples)
    ours = next((name for name in OURS if name in present), "")
    rows = [["", *columns.values(), *([f"{ours} : it"] if with_ratio else [])]]
    for name in present:
        row = [name, *(_cell(values(samples, name, key)) for key in columns)]
        if with_ratio:
            found = None if name == ours else ratio(samples, ours, name)
            row.append("" if found is None else f"{found:.2f}")
        rows.append(row)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    note = [_NOTES[shape.load]] if shape.load in _NOTES else []
    return "\n".join([f"{shape.name}: {shape.says}", *lines, *note])


@dataclass(frozen=True)
class Verdict:
    """One target and what was measured for it; `met` is None when it was not measured."""

    says: str
    found: float | None
    limit: float

    @property
    def met(self) -> bool | None:
        return None if self.found is None else self.found <= self.limit

    def line(self) -> str:
        word = {True: "met", False: "NOT MET", None: "not measured"}[self.met]
        found = "-" if self.found is None else f"{self.found:.2f}"
        return f"  {self.says:<42} at most {self.limit:<5g} found {found:<7} {word}"


def verdicts(samples: dict[str, list[Sample]]) -> list[Verdict]:
    """Judge every target."""
    judged = [
        Verdict(
            f"{target.shape}: {FIGURES[target.figure]}, {target.ours} : {target.contestant}",
            ratio(samples.get(target.shape, []), target.ours, target.contestant, target.figure),
            target.ratio,
        )
        for target in TARGETS
    ]
    for ours, most in GROWTH_TARGETS:
        at_32 = values(samples.get("real", []), ours, "cpu_us")
        at_900 = values(samples.get("real-900", []), ours, "cpu_us")
        times = median(at_900) / median(at_32) if at_32 and at_900 else None
        judged.append(Verdict(f"real-900: CPU, {ours} : itself at 32", times, most))
    for shape, limit in (
        (MEMORY_SHAPE, MEMORY_GROWTH_MIB),
        (ENDURANCE_SHAPE, ENDURANCE_GROWTH_MIB),
    ):
        for ours in OURS:
            growth = values(samples.get(shape, []), ours, "growth_mib")
            found = max(growth) if growth else None
            judged.append(Verdict(f"{shape}: growth, {ours}, MiB", found, limit))
    return judged


def errors_in(samples: dict[str, list[Sample]]) -> list[str]:
    return [
        f"{shape}, {one.contestant}, round {one.round}: {error}"
        for shape, found in samples.items()
        for one in found
        for error in one.errors
    ]


def record(samples: dict[str, list[Sample]]) -> dict[str, object]:
    """Return shapes, contestants, medians, ratios and every round, ready for JSON."""

    def rounded(figures: dict[str, float]) -> dict[str, float]:
        return {key: float(f"{value:.5g}") for key, value in figures.items()}

    shapes: dict[str, object] = {}
    for shape, found in samples.items():
        shapes[shape] = {
            name: {
                "median": rounded(
                    {
                        key: median(values(found, name, key))
                        for one in found
                        if one.contestant == name
                        for key in one.figures
                    }
                ),
                **{f"{ours}_cpu_ratio": ratio(found, ours, name) for ours in OURS},
                "rounds": [
                    {"round": one.round, "requests": one.requests, **rounded(one.figures)}
                    for one in found
                    if one.contestant == name
                ],
            }
            for name in contestants_in(found)
        }
    return shapes
