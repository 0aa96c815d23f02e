"""`make bench-planes`: our data path beside proxies that only get our token, and two processes.

Prints three tables and writes them into `results/planes.json`, deploy/data-planes/README.md and, as
two sentences, the README: the CPU per request of everything that takes part in it, with requests
per second of two gateways on one port beside nginx with two workers; what callers over TLS with
client certificates cost; what asks at the token endpoint cost. Exit code 0; 1 after any error; 2
when a program is missing.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.programs.bench import asks, listen_tls, loads, peers, summary, teams
from tests.programs.bench.contestants import LAUNCHERS, Surroundings
from tests.programs.bench.machine import machine
from tests.programs.bench.measure import Ground, prepared
from tests.programs.bench.processes import free_port
from tests.programs.bench.shapes import SHAPES
from tests.programs.bench.teams import Team, replace_in
from tests.programs.bench.upstream import IAM_TOKEN

RESULTS = Path(__file__).parent / "results" / "planes.json"
PAGE = Path(__file__).parents[3] / "deploy" / "data-planes" / "README.md"
BEGIN = "<!-- make bench-planes writes {} from here -->"
_SHAPE = replace(SHAPES["real"], connections=64)
"""As in production: no head is like another."""
_WARM_UP_S = 1


def two_gateways(at: Surroundings) -> Team:
    """Two processes on one port."""
    port = free_port()
    commands: list[Sequence[str]] = []
    admins: list[int] = []
    for number in range(2):
        folder = at.folder / str(number)
        folder.mkdir()
        one = teams.gateway(replace(at, folder=folder), listen=f"127.0.0.1:{port}", reuse_port=True)
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
    replace_in(file, ("master_process off; worker_processes 1;", "worker_processes 2;"))
    return Team(launch.port, [launch.command])


def envoy_with_sink(at: Surroundings) -> Team:
    """Envoy has the token from a file that the gateway writes."""
    sink = at.folder / "token.sds.yaml"
    ours = teams.gateway(at, identities={"sinks": [_sink(sink)]})
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
    ours = teams.gateway(at, token_listen=f"unix:{socket}")
    launch = LAUNCHERS["nginx"](at)
    replace_in(
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


TEAMS: dict[str, tuple[str, Callable[[Surroundings], Team]]] = {
    "gateway": ("the gateway carries them", teams.gateway),
    "envoy-sink": ("Envoy, with our sink", envoy_with_sink),
    "nginx-endpoint": ("nginx, with our token endpoint", nginx_with_endpoint),
    "nginx": ("nginx, with a fixed token", nginx),
    "gateway-2": ("two gateways on one port (`reuse_port`)", two_gateways),
    "nginx-2": ("nginx with two workers, a fixed token", two_workers),
}


def measure(
    ground: Ground, team: Team, pids: Sequence[int], seconds: int
) -> tuple[dict[str, float], list[str]]:
    """Load a team; return what that cost, all its processes together, and errors."""
    before, refused = teams.cpu_of(pids), teams.refused(ground, _SHAPE)
    outcome = loads.run(_SHAPE, team.port, seconds, ground.folder)
    time.sleep(teams.SETTLE_S)
    used = teams.cpu_of(pids) - before
    errors = list(outcome.errors)
    if wrong := teams.refused(ground, _SHAPE) - refused:
        errors.append(f"the upstream refused {wrong} requests (token or path wrong)")
    figures = {
        "cpu_us": used / 1000 / max(1, outcome.requests),
        "rss_mib": teams.rss_of(pids),
        **outcome.figures,
    }
    return figures, errors


def run(ground: Ground, rounds: int, seconds: int) -> tuple[dict[str, Any], list[str]]:
    """Measure teams in turns; return the result and errors."""
    before, errors = machine(), []
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in TEAMS}
    for number in range(1, rounds + 1):
        for name, (_, make) in TEAMS.items():
            sys.stderr.write(f"data planes, round {number}: {name}\n")
            with teams.started(ground, make) as (team, pids):
                loads.run(_SHAPE, team.port, _WARM_UP_S, ground.folder)
                figures, wrong = measure(ground, team, pids, seconds)
            samples[name].append(figures)
            errors += [f"{name}: {text}" for text in wrong]
    found = {name: teams.medians(figures) for name, figures in samples.items()}
    return teams.about(before, rounds, seconds) | {"teams": found}, errors


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
    more = (
        "JSON as in production, each request and response with its id, on "
        f"{_SHAPE.connections} connections. CPU and memory are those of all processes together, "
        "the gateway that keeps the token included."
    )
    return "\n".join([*rows, "", teams.sentence(result, more)])


Measurement = Callable[[Ground, int, int], tuple[dict[str, Any], list[str]]]
PARTS: dict[str, tuple[Measurement, Callable[[Mapping[str, Any]], str]]] = {
    "planes": (run, table),
    "listen_tls": (listen_tls.run, listen_tls.table),
    "token_endpoint": (asks.run, asks.table),
}


def kept(results: Path = RESULTS) -> dict[str, Any]:
    """Return the latest result of each part that was measured."""
    if not results.exists():
        return {}
    found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return found


def page(results: Path = RESULTS) -> str:
    """Return deploy/data-planes/README.md with the latest figures; as it is without any."""
    text = PAGE.read_text(encoding="utf-8")
    for name, result in kept(results).items():
        text = summary.between(text, BEGIN.format(name), PARTS[name][1](result))
    return text


def readme() -> str:
    """Return the README with the latest figures of all benchmarks."""
    text, begin = summary.readme(), BEGIN.format("prices")
    return summary.between(text, begin, prices()) if begin in text and kept() else text


def prices(results: Path = RESULTS) -> str:
    """Return what the README says of callers over TLS and of the token endpoint."""
    found, said = kept(results), []
    if result := found.get("listen_tls"):
        ours, envoy, nginx = (
            [listen_tls.ratio(result, name, kind) for kind in listen_tls.KINDS]
            for name in listen_tls.LISTENERS
        )
        said.append(
            "Callers over TLS with client certificates (`listen_tls`) cost "
            f"{ours[0]:.2f} times the CPU of callers on loopback while connections stay open, and "
            f"{ours[1]:.2f} times with a handshake for each request (Envoy {envoy[0]:.2f} and "
            f"{envoy[1]:.2f}, nginx {nginx[0]:.2f} and {nginx[1]:.2f})."
        )
    if result := found.get("token_endpoint"):
        ways = [result["ways"][way]["kept"] for way in asks.WAYS]
        said.append(
            f"An ask at the token endpoint costs {ways[0]['cpu_us']:.0f} µs over its Unix socket "
            f"({ways[0]['rate']:.0f} asks/s) and {ways[1]['cpu_us']:.0f} µs over TCP."
        )
    return "\n".join(summary.wrapped(" ".join(said)))


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs.bench.planes", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="per round and load")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--dry", action="store_true", help="print only, write nothing")
    options = parser.parse_args(arguments)
    missing = [one for one in ("wrk", "nginx", "envoy", "go") if peers.find(one) is None]
    if missing:
        sys.stderr.write(f"{', '.join(missing)}: {peers.how_to_install(missing[0])}\n")
        return 2
    results, failed = kept(), False
    with tempfile.TemporaryDirectory() as folder, prepared(Path(folder)) as ground:
        for name in options.parts.split(","):
            measured, written = PARTS[name]
            result, errors = measured(ground, options.rounds, options.seconds)
            print(written(result), *(f"error: {text}" for text in errors), "", sep="\n", flush=True)
            failed = failed or bool(errors)
            if not errors:
                results[name] = result
    if not options.dry:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(), encoding="utf-8")
        summary.README.write_text(readme(), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
