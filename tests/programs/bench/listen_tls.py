"""What it costs to serve callers over TLS with client certificates, beside plain loopback.

The gateway (`listen_tls`), Envoy and nginx require a certificate of the same authority; the gateway
and Envoy look for its name on a list as well, which nginx cannot.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.programs.bench import callers, teams
from tests.programs.bench.contestants import LAUNCHERS, Surroundings
from tests.programs.bench.machine import machine
from tests.programs.bench.measure import CLIENT, Ground
from tests.programs.bench.shapes import SHAPES
from tests.programs.bench.teams import Team

_SHAPE = SHAPES["real"]
_TYPES = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def _gateway(at: Surroundings, *, secure: bool) -> Team:
    if not secure:
        return teams.gateway(at)
    given = {
        "cert_file": str(at.certificate),
        "client_ca_file": str(at.ca_file),
        "allowed_clients": [CLIENT],
    }
    return teams.gateway(at, listen_tls=given)


def _envoy(at: Surroundings, *, secure: bool) -> Team:
    launch = LAUNCHERS["envoy"](at)
    if secure:
        file = Path(launch.command[2])
        config = json.loads(file.read_text())
        pem = {"filename": str(at.certificate)}
        name = {"san_type": "DNS", "matcher": {"exact": CLIENT}}
        (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TYPES}.DownstreamTlsContext",
                "require_client_certificate": True,
                "common_tls_context": {
                    "tls_certificates": [{"certificate_chain": pem, "private_key": pem}],
                    "validation_context": {
                        "trusted_ca": {"filename": str(at.ca_file)},
                        "match_typed_subject_alt_names": [name],
                    },
                },
            },
        }
        file.write_text(json.dumps(config))
    return Team(launch.port, [launch.command])


def _nginx(at: Surroundings, *, secure: bool) -> Team:
    launch = LAUNCHERS["nginx"](at)
    if secure:
        listen = f"listen 127.0.0.1:{launch.port} "
        pair = f"ssl_certificate {at.certificate}; ssl_certificate_key {at.certificate};"
        clients = f"ssl_client_certificate {at.ca_file}; ssl_verify_client on;"
        versions = "ssl_protocols TLSv1.2 TLSv1.3;"
        teams.replace_in(
            Path(launch.command[-1]), (listen, f"{pair} {clients} {versions} {listen}ssl ")
        )
    return Team(launch.port, [launch.command])


LISTENERS: dict[str, tuple[str, Callable[..., Team]]] = {
    "gateway": ("the gateway, `listen_tls`", _gateway),
    "envoy": ("Envoy", _envoy),
    "nginx": ("nginx", _nginx),
}
KINDS = {
    "real": "connections stay open",
    "close": "a connection for each request, so a handshake",
}


@dataclass(frozen=True)
class _Turn:
    """One listener, with or without TLS."""

    name: str
    secure: bool

    @property
    def key(self) -> str:
        return "tls" if self.secure else "plain"

    def make(self, at: Surroundings) -> Team:
        return LISTENERS[self.name][1](at, secure=self.secure)


def run(ground: Ground, rounds: int, seconds: int) -> tuple[dict[str, Any], list[str]]:
    """Measure all in turns; return the result and errors."""
    before, errors = machine(), []
    turns = [_Turn(name, secure) for name in LISTENERS for secure in (False, True)]
    samples: dict[tuple[_Turn, str], list[dict[str, float]]] = {}
    for number in range(1, rounds + 1):
        for turn in turns:
            sys.stderr.write(f"callers over TLS, round {number}: {turn.name} {turn.key}\n")
            with teams.started(ground, turn.make) as (team, pids):
                for kind in KINDS:
                    where = _where(ground, turn, team)
                    refused = teams.refused(ground, _SHAPE)
                    call = partial(callers.call, where, closes=kind == "close")
                    figures, wrong = callers.measured(call, _SHAPE.connections, seconds, pids)
                    figures["rss_mib"] = teams.rss_of(pids)
                    if count := teams.refused(ground, _SHAPE) - refused:
                        wrong.append(f"the upstream refused {count} (token or path wrong)")
                    samples.setdefault((turn, kind), []).append(figures)
                    errors += [f"{turn.name} {turn.key} {kind}: {text}" for text in wrong]
    found = {
        name: {
            kind: _compared(
                samples[_Turn(name, secure=False), kind], samples[_Turn(name, secure=True), kind]
            )
            for kind in KINDS
        }
        for name in LISTENERS
    }
    return teams.about(before, rounds, seconds) | {"listeners": found}, errors


def _compared(
    plain: Sequence[Mapping[str, float]], secure: Sequence[Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Return medians of both, and of what one is of the other in the same round.

    In a round they take their turns one after the other, so what else the machine does cancels out.
    """
    ratios = [
        {key: over_tls[key] / one[key] for key in one}
        for one, over_tls in zip(plain, secure, strict=True)
    ]
    return {
        "plain": teams.medians(plain),
        "tls": teams.medians(secure),
        "ratio": teams.medians(ratios),
    }


def _where(ground: Ground, turn: _Turn, team: Team) -> callers.Where:
    where = callers.Where(f"127.0.0.1:{team.port}", _SHAPE.path)
    if not turn.secure:
        return where
    return replace(where, ca_file=ground.ca_file, certificate=ground.client_certificate)


def table(result: Mapping[str, Any]) -> str:
    """Return the figures for people, as Markdown."""
    head = (
        "| who listens | callers' connections | CPU, µs/request: plain | TLS | ratio "
        "| p50 of a single caller, ms: plain | TLS | ratio |"
    )
    rows = [head, "|---|---|---:|---:|---:|---:|---:|---:|"]
    for name, (says, _) in LISTENERS.items():
        for kind, connections in KINDS.items():
            one = result["listeners"][name][kind]
            cells = []
            for key, digits in (("cpu_us", 1), ("alone_p50_ms", 2)):
                cells += [f"{one[side][key]:.{digits}f}" for side in ("plain", "tls")]
                cells.append(f"{one['ratio'][key]:.2f}")
            rows.append(f"| {says} | {connections} | {' | '.join(cells)} |")
    more = (
        f"requests as in production, on {_SHAPE.connections} connections; TLS 1.3, certificates "
        "with P-256 keys, no session is resumed; ratio: median of the rounds' ratios."
    )
    return "\n".join([*rows, "", teams.sentence(result, more)])


def ratio(result: Mapping[str, Any], name: str, kind: str) -> float:
    """Return the CPU of a request over TLS, as a multiple of that without it."""
    found: float = result["listeners"][name][kind]["ratio"]["cpu_us"]
    return found
