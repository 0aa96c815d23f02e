"""`make bench-planes`: our data path beside proxies that only get our token, and two processes.

Prints the CPU per request of everything that takes part in it, and requests per second of two
gateways on one port beside nginx with two workers; writes `results/planes.json` and the table in
deploy/data-planes/README.md. Exit code 0; 1 after any error; 2 when a program is missing.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from tests.programs.bench import loads, peers
from tests.programs.bench.contestants import LAUNCHERS, Surroundings
from tests.programs.bench.machine import machine
from tests.programs.bench.measure import Ground, prepared, wait_until_ready
from tests.programs.bench.processes import MIB, child, cpu_ns, free_port, memory, wait_for_port
from tests.programs.bench.shapes import SHAPES, Shape
from tests.programs.bench.upstream import IAM_TOKEN

RESULTS = Path(__file__).parent / "results" / "planes.json"
PAGE = Path(__file__).parents[3] / "deploy" / "data-planes" / "README.md"
BEGIN, END = "<!-- make bench-planes writes from here -->", "<!-- to here -->"
_OURS = "compiled" if peers.find("compiled") else "interpreted"
_SHAPE = replace(SHAPES["real"], connections=64)
"""As in production: no head is like another."""
_WARM_UP_S = 1
_SETTLE_S = 0.1


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
    launch = LAUNCHERS[_OURS](at)
    _change(Path(launch.command[-1]), more)
    assert launch.admin_port is not None
    return Team(launch.port, [launch.command], [launch.admin_port])


def two_gateways(at: Surroundings) -> Team:
    """Two processes on one port."""
    port = free_port()
    commands: list[Sequence[str]] = []
    admins: list[int] = []
    for number in range(2):
        folder = at.folder / str(number)
        folder.mkdir()
        one = gateway(replace(at, folder=folder), listen=f"127.0.0.1:{port}", reuse_port=True)
        commands += one.commands
        admins += one.admin_ports
    return Team(port, commands, admins)


def nginx(at: Surroundings) -> Team:
    """One worker and a token that never changes: what the others are held against."""
    launch = LAUNCHERS["nginx"](at)
    return Team(launch.port, [launch.command])


def two_workers(at: Surroundings) -> Team:
    """Nginx with two workers."""
    launch = LAUNCHERS["nginx"](at)
    file = Path(launch.command[-1])
    _replace(file, ("master_process off; worker_processes 1;", "worker_processes 2;"))
    return Team(launch.port, [launch.command])


def envoy_with_sink(at: Surroundings) -> Team:
    """Envoy has the token from a file that the gateway writes."""
    sink = at.folder / "token.sds.yaml"
    ours = gateway(at, identities={"sinks": [_sink(sink)]})
    launch = LAUNCHERS["envoy"](at)
    file = Path(launch.command[2])
    config = json.loads(file.read_text())
    del config["static_resources"]["secrets"]
    text = json.dumps(config | {"node": {"id": "bench", "cluster": "bench"}})
    source = {
        "path_config_source": {
            "path": str(sink),
            "watched_directory": {"path": str(at.folder)},
        }
    }
    wanted = '"credential": {"name": "token"}'
    assert wanted in text
    given = json.dumps({"credential": {"name": "token", "sds_config": source}})[1:-1]
    file.write_text(text.replace(wanted, given))
    return Team(launch.port, [*ours.commands, launch.command], ours.admin_ports, [sink])


def _sink(path: Path) -> dict[str, str]:
    return {"path": str(path), "format": "envoy_sds", "name": "token"}


def nginx_with_endpoint(at: Surroundings) -> Team:
    """Nginx asks the gateway's token endpoint, at most every five seconds."""
    socket, cache = at.folder / "token.sock", at.folder / "cache"
    ours = gateway(at, token_listen=f"unix:{socket}")
    launch = LAUNCHERS["nginx"](at)
    _replace(
        Path(launch.command[-1]),
        (
            "  upstream bench ",
            f"""  proxy_cache_path {cache} levels=1 keys_zone=token:1m use_temp_path=off;
  upstream token_endpoint {{ server unix:{socket}; keepalive 4; }}
  upstream bench """,
        ),
        (f"proxy_set_header X-Auth-Token {IAM_TOKEN};", "proxy_set_header X-Auth-Token $token;"),
        (
            "    location /bench/ {",
            """    location = /_token {
      internal; proxy_pass http://token_endpoint/auth/bench; proxy_method GET;
      proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_cache token; proxy_cache_key bench;
      proxy_cache_lock on;
    }
    auth_request /_token; auth_request_set $token $upstream_http_x_auth_token;
    location /bench/ {""",
        ),
    )
    return Team(launch.port, [*ours.commands, launch.command], ours.admin_ports, [socket])


def _change(file: Path, more: Mapping[str, Any]) -> None:
    config = yaml.safe_load(file.read_text())
    for key, value in more.items():
        if key == "identities":
            config["identities"]["default"] |= value
        else:
            config[key] = value
    file.write_text(yaml.safe_dump(config))


def _replace(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text()
    for before, after in pairs:
        assert before in text, before
        text = text.replace(before, after, 1)
    file.write_text(text)


TEAMS: dict[str, tuple[str, Callable[[Surroundings], Team]]] = {
    "gateway": ("the gateway carries them", gateway),
    "envoy-sink": ("Envoy, with our sink", envoy_with_sink),
    "nginx-endpoint": ("nginx, with our token endpoint", nginx_with_endpoint),
    "nginx": ("nginx, with a fixed token", nginx),
    "gateway-2": ("two gateways on one port (`reuse_port`)", two_gateways),
    "nginx-2": ("nginx with two workers, a fixed token", two_workers),
}


@contextmanager
def started(ground: Ground, name: str) -> Iterator[tuple[Team, list[int]]]:
    """Start a team; yield it and the processes that were started.

    Raises:
        RuntimeError: one of them did not start, or the team does not answer.
    """
    folder = ground.folder / name
    folder.mkdir()
    at = Surroundings(ground.services, ground.ca_file, folder)
    team = TEAMS[name][1](at)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OS_"))}
    with ExitStack() as stack:
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


def _family(pids: Sequence[int]) -> list[int]:
    """Return processes and their children, as nginx's workers are."""
    found = list(pids)
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        found += _family([int(word) for word in children.read_text().split()])
    return found


def _refused(ground: Ground, shape: Shape) -> int:
    """Return how many requests the service has not taken so far."""
    counts = ground.counts(shape)
    return 0 if counts is None else counts.refused


def measure(
    ground: Ground, team: Team, pids: Sequence[int], shape: Shape, seconds: int
) -> tuple[dict[str, float], list[str]]:
    """Load a team; return what that cost, all its processes together, and errors."""
    family = _family(pids)
    before, refused = sum(map(cpu_ns, family)), _refused(ground, shape)
    outcome = loads.run(shape, team.port, seconds, ground.folder)
    time.sleep(_SETTLE_S)
    used = sum(map(cpu_ns, family)) - before
    errors = list(outcome.errors)
    if wrong := _refused(ground, shape) - refused:
        errors.append(f"the upstream refused {wrong} requests (token or path wrong)")
    figures = {
        "cpu_us": used / 1000 / max(1, outcome.requests),
        "rss_mib": sum(memory(pid).now for pid in family) / MIB,
        **outcome.figures,
    }
    return figures, errors


def run(names: Sequence[str], rounds: int, seconds: int) -> tuple[dict[str, Any], list[str]]:
    """Measure teams in turns; return the results and errors."""
    before, errors = machine(), []
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder, prepared(Path(folder)) as ground:
        for number in range(1, rounds + 1):
            for name in names:
                sys.stderr.write(f"round {number}: {name}\n")
                with started(ground, name) as (team, pids):
                    loads.run(_SHAPE, team.port, _WARM_UP_S, ground.folder)
                    figures, wrong = measure(ground, team, pids, _SHAPE, seconds)
                samples[name].append(figures)
                errors += [f"{name}: {text}" for text in wrong]
                _forget(ground.folder / name)
    medians = {
        name: {key: median(one[key] for one in found) for key in found[0]}
        for name, found in samples.items()
    }
    result = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": before,
        "versions": peers.versions(),
        "build": _OURS,
        "shape": "JSON as in production, each request and response with its id",
        "rounds": rounds,
        "seconds": seconds,
        "teams": medians,
    }
    return result, errors


def _forget(folder: Path) -> None:
    """Free the name for the next round; the access log would fill the disk."""
    (folder / "log").unlink()
    folder.rename(folder.with_name(f"{folder.name}-{time.monotonic_ns()}"))


def table(result: Mapping[str, Any]) -> str:
    """Return the figures for people, as Markdown."""
    rows = [
        "| who carries requests | CPU, µs/request | requests/s | p50, ms | memory, MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, (says, _) in TEAMS.items():
        if name in result["teams"]:
            one = result["teams"][name]
            rows.append(
                f"| {says} | {one['cpu_us']:.1f} | {one['rate']:.0f} | {one['p50_ms']:.2f} "
                f"| {one['rss_mib']:.0f} |"
            )
    used = result["machine"]
    shape = result.get("shape", "JSON of 150 bytes, each request and response with its id")
    about = (
        f"{result['date']}, {used['cpu']}, {used['cores']} cores shared with load and service, "
        f"load average {used['load_average_before']} before; the gateway {result['build']}; "
        f"medians of {result['rounds']} rounds of {result['seconds']} s; {shape}, on "
        f"{_SHAPE.connections} connections. CPU and memory are those of all "
        "processes together, the gateway that keeps the token included."
    )
    return "\n".join([*rows, "", about])


def page(results: Path = RESULTS) -> str:
    """Return deploy/data-planes/README.md with the latest figures; as it is without any."""
    text = PAGE.read_text(encoding="utf-8")
    if not results.exists():
        return text
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = table(json.loads(results.read_text(encoding="utf-8")))
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs.bench.planes", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="per round and team")
    parser.add_argument("--only", default=",".join(TEAMS), help="default: %(default)s")
    parser.add_argument("--dry", action="store_true", help="print only, write nothing")
    options = parser.parse_args(arguments)
    missing = [one for one in ("wrk", "nginx", "envoy") if peers.find(one) is None]
    if missing:
        sys.stderr.write(f"{', '.join(missing)}: {peers.how_to_install(missing[0])}\n")
        return 2
    result, errors = run(options.only.split(","), options.rounds, options.seconds)
    print(table(result))
    for text in errors:
        print(f"error: {text}")
    if not options.dry and not errors:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(), encoding="utf-8")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
