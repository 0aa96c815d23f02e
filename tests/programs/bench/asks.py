"""What asks for a token cost at the token endpoint, over its Unix socket and over TCP."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.programs.bench import callers, teams
from tests.programs.bench.contestants import Surroundings
from tests.programs.bench.machine import machine
from tests.programs.bench.measure import Ground
from tests.programs.bench.processes import free_port
from tests.programs.bench.teams import Team

WANTED_RATE = 5000
"""Asks per second that the endpoint is made for."""
_PATH = "/auth/bench"
_CONNECTIONS = 32
WAYS = {"unix": "a Unix socket", "tcp": "TCP"}
KINDS = {"kept": "kept open", "close": "one for each ask"}


@dataclass
class _Endpoint:
    """A gateway with an endpoint, which has no place before it is made."""

    way: str
    address: str = ""

    def make(self, at: Surroundings) -> Team:
        if self.way == "unix":
            self.address = str(at.folder / "token.sock")
            return teams.gateway(at, token_listen=f"unix:{self.address}")
        self.address = f"127.0.0.1:{free_port()}"
        return teams.gateway(at, token_listen=self.address)


def run(ground: Ground, rounds: int, seconds: int) -> tuple[dict[str, Any], list[str]]:
    """Measure all in turns; return the result and errors."""
    before, errors = machine(), []
    samples: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(1, rounds + 1):
        for way in WAYS:
            sys.stderr.write(f"token endpoint, round {number}: {way}\n")
            endpoint = _Endpoint(way)
            with teams.started(ground, endpoint.make) as (_, pids):
                where = callers.Where(endpoint.address, _PATH, is_socket_file=way == "unix")
                for kind in KINDS:
                    ask = partial(callers.ask, where, closes=kind == "close")
                    figures, wrong = callers.measured(ask, _CONNECTIONS, seconds, pids)
                    samples.setdefault((way, kind), []).append(figures)
                    errors += [f"{way} {kind}: {text}" for text in wrong]
    found: dict[str, Any] = {way: {} for way in WAYS}
    for (way, kind), figures_of_all in samples.items():
        found[way][kind] = teams.medians(figures_of_all)
    return teams.about(before, rounds, seconds) | {"ways": found}, errors


def table(result: Mapping[str, Any]) -> str:
    """Return the figures for people, as Markdown."""
    head = (
        f"| asks over | connections | asks/s | CPU, µs/ask | at {WANTED_RATE}/s, % of a core "
        "| p50 alone, ms |"
    )
    rows = [head, "|---|---|---:|---:|---:|---:|"]
    for way, over in WAYS.items():
        for kind, connections in KINDS.items():
            one = result["ways"][way][kind]
            rows.append(
                f"| {over} | {connections} | {one['rate']:.0f} | {one['cpu_us']:.1f} "
                f"| {one['cpu_us'] * WANTED_RATE / 1e4:.0f} | {one['alone_p50_ms']:.3f} |"
            )
    more = f"a token of 3.9 KB, {_CONNECTIONS} askers."
    return "\n".join([*rows, "", teams.sentence(result, more)])
