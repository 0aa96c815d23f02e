"""`make fuzz`: throws changed messages at a running gateway from both sides, and watches it.

Before that it holds the readers against llhttp, without a network, on many more messages. Both
directions get as many cases as asked for: requests of callers, and answers of services. A
case is made by seed and number alone. Exit code 0; 1 after a failure, whose smallest form is
printed and written to a file for `--replay`.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import uvloop

from tests.programs.fuzz.campaign import Campaign, Failure, Result, shrink, workers_at_one_gateway
from tests.programs.fuzz.cases import Case, from_text, make_answer_case, make_request_case, to_text
from tests.programs.oracle.campaign import KINDS, judge_cases

_WORKERS = 22
_BATCH = 5000


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.programs.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="per direction; %(default)s")
    parser.add_argument("--seed", type=int, default=None, help="default: by the clock, printed")
    parser.add_argument(
        "--messages", type=int, default=200_000, help="of each kind, for llhttp; %(default)s"
    )
    parser.add_argument("--only", choices=["llhttp", "requests", "answers"], help="one part")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one case again")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = time.monotonic_ns() % 1_000_000
    return options


def _hold_against_llhttp(seed: int, count: int) -> int:
    """Return how many of the messages that our readers accept llhttp does not, or differently."""
    failed = 0
    print(f"seed {seed}: {count} requests and {count} responses, read by us and by llhttp")
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for kind in KINDS:
            began = time.monotonic()
            batches = [range(at, min(at + _BATCH, count)) for at in range(0, count, _BATCH)]
            found = list(pool.map(partial(judge_cases, kind, seed), batches))
            failures = [failure for result in found for failure in result.failures]
            for failure in failures[:10]:
                print(f"\nFAILED {failure}"[:4000])
            tried = sum(result.tried for result in found)
            accepted = sum(result.accepted for result in found)
            seconds = time.monotonic() - began
            print(
                f"{kind}: {tried} tried in {seconds:.0f} s, {accepted} messages accepted by us, "
                f"{len(failures)} differences from llhttp",
                flush=True,
            )
            failed += len(failures)
    return failed


async def _replay(text: str) -> int:
    case = from_text(text)
    with tempfile.TemporaryDirectory() as folder:
        async with workers_at_one_gateway(1, Path(folder)) as [worker]:
            problems = await worker.run(case)
    print("\n".join(problems) or "nothing wrong")
    return bool(problems)


async def _run(options: argparse.Namespace) -> int:
    makers: dict[str, Callable[[int], Case]] = {
        "requests": partial(make_request_case, options.seed),
        "answers": partial(make_answer_case, options.seed),
    }
    chosen = [makers[options.only]] if options.only else list(makers.values())
    print(f"seed {options.seed}: {options.cases} cases, {options.only or 'requests and answers'}")
    with tempfile.TemporaryDirectory() as folder:
        async with workers_at_one_gateway(_WORKERS, Path(folder)) as workers:
            result = await Campaign(workers).run(chosen, options.cases)
        failures: list[Failure] = []
        for failure in result.failures:
            async with workers_at_one_gateway(1, Path(folder)) as [worker]:
                failures.append(await shrink(worker, failure))
    _report(options.seed, result, failures)
    return bool(failures or result.problems)


def _report(seed: int, result: Result, failures: list[Failure]) -> None:
    for number, failure in enumerate(failures):
        file = Path(f"fuzz-failure-{seed}-{number}.json")
        file.write_text(to_text(failure.case), encoding="ascii")
        print(f"\nFAILED {failure.name}")
        for problem in failure.problems:
            print(f"  {problem}"[:2000])
        print(f"  {' '.join(map(repr, failure.case.pieces))}")
        print(f"  again: python -m tests.programs.fuzz --replay {file}")
    for problem in result.problems:
        print(f"\nFAILED {problem}"[:4000])
    rate = result.cases / result.seconds
    failed = len(failures) + len(result.problems)
    print(f"{result.cases} cases in {result.seconds:.0f} s ({rate:.0f}/s), {failed} failures")


def _main() -> int:
    options = _parse(sys.argv[1:])
    if options.replay:
        return uvloop.run(_replay(options.replay.read_text(encoding="ascii")))
    if options.only == "llhttp":
        return bool(_hold_against_llhttp(options.seed, options.messages))
    failed = not options.only and _hold_against_llhttp(options.seed, options.messages)
    return uvloop.run(_run(options)) or bool(failed)


if __name__ == "__main__":
    sys.exit(_main())
