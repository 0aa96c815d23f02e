"""Processes that carry requests together, or wait for them in another way than contestants do.

What they cost is what all of them together cost.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from tests.programs.bench import peers
from tests.programs.bench.contestants import LAUNCHERS, Surroundings
from tests.programs.bench.measure import Ground, wait_until_ready
from tests.programs.bench.processes import MIB, child, cpu_ns, memory, wait_for_port
from tests.programs.bench.shapes import Shape

BUILD = "compiled" if peers.find("compiled") else "interpreted"
"""Of the gateway that takes part."""
SETTLE_S = 0.1
"""What is under way when a load ends has ended so much later."""


@dataclass(frozen=True)
class Team:
    """Processes that carry requests together."""

    port: int
    commands: Sequence[Sequence[str]]
    admin_ports: Sequence[int] = ()
    """Where each gateway says that it is ready."""
    files: Sequence[Path] = field(default=())
    """What must be there before the second command is started."""


def gateway(at: Surroundings, **more: Any) -> Team:
    """One gateway; `more` is added to its configuration."""
    launch = LAUNCHERS[BUILD](at)
    change(Path(launch.command[-1]), more)
    assert launch.admin_port is not None
    return Team(launch.port, [launch.command], [launch.admin_port])


def change(file: Path, more: Mapping[str, Any]) -> None:
    """Add `more` to a configuration of the gateway."""
    config = yaml.safe_load(file.read_text())
    for key, value in more.items():
        if key == "identities":
            config["identities"]["default"] |= value
        else:
            config[key] = value
    file.write_text(yaml.safe_dump(config))


def replace_in(file: Path, *pairs: tuple[str, str]) -> None:
    """Replace in a file the first of each pair, which it must have, by the second, once."""
    text = file.read_text()
    for before, after in pairs:
        assert before in text, before
        text = text.replace(before, after, 1)
    file.write_text(text)


@contextmanager
def started(
    ground: Ground, make: Callable[[Surroundings], Team]
) -> Iterator[tuple[Team, list[int]]]:
    """Start a team in a folder of its own; yield it and the processes that were started.

    Raises:
        RuntimeError: one of them did not start, or the team does not answer.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OS_"))}
    # an access log of all rounds would fill the disk
    with tempfile.TemporaryDirectory(dir=ground.folder) as name, ExitStack() as stack:
        folder = Path(name)
        team = make(ground.surroundings(folder))
        output = stack.enter_context((folder / "log").open("ab"))
        pids = []
        for number, command in enumerate(team.commands):
            process = stack.enter_context(child(command, output=output, environment=kept))
            pids.append(process.pid)
            if number < len(team.admin_ports):
                wait_until_ready(team.admin_ports[number])
                _wait_for(team.files)
            if number == len(team.commands) - 1:
                wait_for_port(process, team.port)
        yield team, pids


def _wait_for(files: Sequence[Path], patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not all(file.exists() for file in files):
        if time.monotonic() > deadline:
            raise RuntimeError("the gateway does not give its token")
        time.sleep(0.02)


def refused(ground: Ground, shape: Shape) -> int:
    """Return how many requests the service has not taken so far."""
    counts = ground.counts(shape)
    return 0 if counts is None else counts.refused


def cpu_of(pids: Sequence[int]) -> int:
    """Return the CPU time of processes and their children, in nanoseconds."""
    return sum(map(cpu_ns, _family(pids)))


def rss_of(pids: Sequence[int]) -> float:
    """Return the memory of processes and their children, in MiB."""
    return sum(memory(pid).now for pid in _family(pids)) / MIB


def _family(pids: Sequence[int]) -> list[int]:
    """Return processes and their children, as nginx's workers are."""
    found = list(pids)
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        found += _family([int(word) for word in children.read_text().split()])
    return found


def medians(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure over all rounds."""
    return {key: median(one[key] for one in samples) for key in samples[0]}


def about(began: Mapping[str, object], rounds: int, seconds: float) -> dict[str, object]:
    """Return what is to be known about a measurement on a machine that was `began` before it."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": began,
        "versions": peers.versions(),
        "build": BUILD,
        "rounds": rounds,
        "seconds": seconds,
    }


def sentence(result: Mapping[str, Any], more: str) -> str:
    """Return where and when a result was found, with `more` at the end."""
    used = result["machine"]
    return (
        f"{result['date']}, {used['cpu']}, {used['cores']} cores shared with load and service, "
        f"load average {used['load_average_before']} before; the gateway {result['build']}; "
        f"medians of {result['rounds']} rounds of {result['seconds']} s; {more}"
    )
