"""`make bench`: run the shapes, print tables, write `results/` and the table in the README.

`results/latest.json` has every figure, `latest.svg` is the chart; with `--output` the README stays
as it is. Each measurement has a fresh process; contestants take turns. All of it takes about 50
minutes, `--quick` 5: six shapes, one round of 2 s. `setup` installs the other programs; `make
compiled` makes the compiled gateway. Exit code 0; 1 after any error of a contestant (with
`--strict`: or an unmet target); 2 when the run is not possible.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from types import FrameType

from tests.programs.bench import chart, peers, report, summary
from tests.programs.bench.contestants import LAUNCHERS, OURS
from tests.programs.bench.machine import machine
from tests.programs.bench.measure import Ground, Sample, prepared
from tests.programs.bench.processes import stolen
from tests.programs.bench.shapes import CHART, QUICK, SHAPES, Load, Shape

_RESULTS = Path(__file__).parent / "results"
_WARM_UP_S = 1
_SOCKETS = 8192


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.programs.bench", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["run", "setup"], default="run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="per round and contestant")
    quick = f"1 round of 2 s of {', '.join(QUICK)}"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--shapes", help=f"comma-separated; default: {','.join(SHAPES)}")
    parser.add_argument("--only", default=",".join(LAUNCHERS), help="default: %(default)s")
    parser.add_argument("--strict", action="store_true", help="an unmet target is a failure")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    chosen = QUICK if options.quick else tuple(SHAPES)
    options.shapes = options.shapes.split(",") if options.shapes else list(chosen)
    options.only = options.only.split(",")
    if options.quick:
        options.rounds, options.seconds = 1, 2
    for name in options.shapes:
        if name not in SHAPES:
            parser.error(f"no shape {name!r}; there are: {', '.join(SHAPES)}")
    for name in options.only:
        if name not in LAUNCHERS:
            parser.error(f"no contestant {name!r}; there are: {', '.join(LAUNCHERS)}")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds start at 1")
    return options


def _shape_rounds(
    ground: Ground, shape: Shape, present: list[str], options: argparse.Namespace
) -> tuple[list[Sample], list[str]]:
    """Run all rounds of one shape, contestants taking turns; return samples and their table."""
    if not ground.has(shape):
        return [], [f"{shape.name}: left out, since {shape.service.value} is not installed."]
    samples: list[Sample] = []
    taking_part = [name for name in present if name in shape.contestants]
    rounds = 1 if shape.load is Load.ENDURANCE else options.rounds
    for number in range(1, rounds + 1):
        if shape.load is Load.OPEN_LOOP:
            samples.append(ground.measure_direct(shape, number, options.seconds))
        for name in taking_part:
            sample = ground.measure(shape, name, number, options.seconds, _WARM_UP_S)
            samples.append(sample)
            cost = sample.figures.get("cpu_us", 0)
            _progress(f"{shape.name} round {number} {name}: {cost:.1f} µs")
    report.compare_with_direct(samples)
    errors = [f"  ERROR {error}" for error in report.errors_in({shape.name: samples})]
    return samples, [report.table(shape, samples), *errors]


def _progress(text: str) -> None:
    print(f"  .. {text}", file=sys.stderr, flush=True)


def _panels(samples: dict[str, list[Sample]]) -> dict[str, dict[str, float]]:
    panels = {}
    for name, found in samples.items():
        if name not in CHART:
            continue
        costs = {
            contestant: median(measured)
            for contestant in report.contestants_in(found)
            if (measured := report.values(found, contestant, "cpu_us"))
        }
        if costs:
            panels[f"{name}: {SHAPES[name].says}"] = costs
    return panels


def _write(folder: Path, result: dict[str, object], picture: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("latest.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n"),
        ("latest.svg", picture),
    ):
        draft = folder / f"{name}.tmp"
        draft.write_text(text)
        draft.replace(folder / name)


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _present(options: argparse.Namespace) -> list[str]:
    """Return the contestants that can take part; name the others."""
    present = []
    for name in options.only:
        if name in OURS or peers.find(name):
            present.append(name)
        else:
            print(f"{name} is missing and takes no part. {peers.how_to_install(name)}")
    return present


def _run_shapes(
    options: argparse.Namespace, present: list[str]
) -> tuple[dict[str, list[Sample]], list[str]]:
    """Start the services, run every shape, end them; return samples and errors."""
    samples: dict[str, list[Sample]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder,
        prepared(Path(folder)) as ground,
    ):
        for name in options.shapes:
            found, lines = _shape_rounds(ground, SHAPES[name], present, options)
            if found:
                samples[name] = found
            print("", *lines, sep="\n", flush=True)
    return samples, report.errors_in(samples)


def _run(options: argparse.Namespace) -> int:
    if peers.find("wrk") is None:
        print(f"wrk is missing. {peers.how_to_install('wrk')}", file=sys.stderr)
        return 2
    present = _present(options)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _SOCKETS if hard == resource.RLIM_INFINITY else min(hard, _SOCKETS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    described, began = machine(), datetime.now(UTC)
    print(", ".join(f"{key} {value}" for key, value in described.items()))

    busy = os.getloadavg()[0]
    stolen_before, ticks_before = stolen()
    samples, failures = _run_shapes(options, present)
    stolen_after, ticks_after = stolen()
    share = 100 * (stolen_after - stolen_before) / max(1, ticks_after - ticks_before)
    described["stolen_percent"] = round(share, 1)
    if busy > 0.5 or share > 1:
        print(
            f"\nBusy machine (load {busy:.1f} before, {share:.1f} % stolen): compare ratios only."
        )

    judged = report.verdicts(samples)
    print("\nTargets", *(verdict.line() for verdict in judged), sep="\n")
    result: dict[str, object] = {
        "date": began.isoformat(timespec="seconds"),
        "machine": described,
        "versions": peers.versions(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "shapes": report.record(samples),
        "targets": [
            {"target": one.says, "limit": one.limit, "found": one.found, "met": one.met}
            for one in judged
        ],
        "errors": failures,
    }
    caption = (
        "User and system CPU per request (stream: per event), one worker each; median of "
        f"{options.rounds} rounds of {options.seconds} s; {described['cores']} cores; "
        f"{began:%Y-%m-%d}."
    )
    _write(options.output, result, chart.bars(_panels(samples), caption))
    if options.output == _RESULTS:
        summary.write_readme()
    if failures:
        print("\nErrors", *(f"  {failure}" for failure in failures), sep="\n")
        return 1
    unmet = any(verdict.met is False for verdict in judged)
    return 1 if options.strict and unmet else 0


def main() -> int:
    options = _parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, _stop)
    try:
        return peers.setup() if options.command == "setup" else _run(options)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
