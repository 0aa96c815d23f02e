"""`python -m tests.programs.bench.overload`: what callers get when twice as many come as can be
served.

Open loop: half, twice and half of the capacity of a service with 4 slots of 50 ms, each request on
a connection of its own, from callers that give up after a second. Goodput is what was answered
before that, and before the flood was over. Then what must not happen is counted at the service; see
`overload_proofs`. `results/overload.json` keeps the figures, from which the README's tables are
made. About 6 minutes; `--calm 1 --flood 3 --proof 4` takes one and a half.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.programs.bench import overload_proofs, peers
from tests.programs.bench.open_loop import percentile
from tests.programs.bench.processes import MIB, child, free_port, memory, reset_peak, wait_for_port
from tests.programs.bench.slow_service import CAPACITY, SLOTS

PATIENCE_S = 1.0
_LIMIT = SLOTS + 1
"""At a time. One more than its slots: no slot is empty while a response and the next request are on
their way."""
_REQUEST = b"POST /slow/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}"
RESULTS = Path(__file__).parent / "results" / "overload.json"


@dataclass(frozen=True)
class Answer:
    """What came of one request. Instants and durations are seconds."""

    due: float
    took_s: float
    status: int
    """0: none came in time."""


async def _ask(port: int, due: float) -> Answer:
    """Send one request, and give up after `PATIENCE_S`."""
    begun = time.perf_counter()
    writer = None
    status = 0
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_REQUEST)
            status = int((await reader.readuntil(b"\r\n\r\n"))[9:12])
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        pass
    finally:
        if writer is not None:
            writer.transport.abort()
    return Answer(due, time.perf_counter() - begun, status)


async def _load(port: int, share: float, seconds: float) -> list[Answer]:
    """Send `share` of the capacity for so long, whatever the answers do."""
    rate = share * CAPACITY
    start = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        due = number / rate
        ahead = start + due - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        tasks.append(asyncio.create_task(_ask(port, due)))
    if not tasks:
        return []
    return list(await asyncio.gather(*tasks))


def _gateway(service: int, folder: Path, limits: dict[str, object]) -> tuple[list[str], int]:
    port, admin = free_port(), free_port()
    file = folder / "gateway.yaml"
    config = {
        "listen": f"127.0.0.1:{port}",
        "admin_listen": f"127.0.0.1:{admin}",
        "identities": {"default": {"method": "none"}},
        "services": {"slow": {"url": f"http://127.0.0.1:{service}/slow", **limits}},
    }
    file.write_text(yaml.safe_dump(config))
    python = peers.find("compiled") or sys.executable
    return [str(python), "-P", "-m", "gateway", "serve", "--config", str(file)], port


def _haproxy(service: int, folder: Path) -> tuple[list[str], int]:
    port, file = free_port(), folder / "haproxy.cfg"
    file.write_text(f"""
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout queue 1s
frontend in
  bind 127.0.0.1:{port}
  default_backend slow
backend slow
  server one 127.0.0.1:{service} maxconn {_LIMIT}
""")
    return [_binary("haproxy"), "-db", "-f", str(file)], port


def _nginx(service: int, folder: Path) -> tuple[list[str], int]:
    port, file = free_port(), folder / "nginx.conf"
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(f"""
daemon off; master_process off; worker_processes 1;
{"user root;" if os.geteuid() == 0 else ""}
pid {folder}/nginx.pid; error_log /dev/null crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; {temporary}
  limit_conn_zone $server_port zone=all:1m;
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{ limit_conn all {_LIMIT}; proxy_pass http://127.0.0.1:{service}; }}
  }}
}}
""")
    return [_binary("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(file)], port


_TYPES = "type.googleapis.com/envoy.extensions.filters"


def _envoy(service: int, folder: Path, *, adaptive: bool) -> tuple[list[str], int]:
    port, file = free_port(), folder / "envoy.json"

    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    cluster: dict[str, object] = {
        "name": "slow",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "slow",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(service)}}]}],
        },
    }
    router: dict[str, object] = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"},
    }
    filters: list[dict[str, object]] = [router]
    if adaptive:
        concurrency = {
            "@type": f"{_TYPES}.http.adaptive_concurrency.v3.AdaptiveConcurrency",
            "gradient_controller_config": {
                "sample_aggregate_percentile": {"value": 90},
                "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
                "min_rtt_calc_params": {"interval": "60s", "request_count": 50},
            },
            "enabled": {"default_value": True, "runtime_key": "adaptive"},
        }
        name = "envoy.filters.http.adaptive_concurrency"
        filters.insert(0, {"name": name, "typed_config": concurrency})
    else:
        limits = {"max_connections": _LIMIT, "max_requests": _LIMIT, "max_pending_requests": 40}
        cluster["circuit_breakers"] = {"thresholds": [limits]}
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "slow", "timeout": "60s"}}]
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {"name": "in", "address": address(port), "filter_chains": [{"filters": [network]}]}
    config = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    file.write_text(json.dumps(config))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return [_binary("envoy"), "-c", str(file), *options], port


def _binary(program: str) -> str:
    path = peers.find(program)
    if path is None:
        raise FileNotFoundError(program)
    return str(path)


_LIMITED: dict[str, object] = {"max_in_flight": _LIMIT}
_AS_MANY: dict[str, object] = {"max_in_flight": SLOTS}
_AUTO: dict[str, object] = {"max_in_flight": "auto"}
_BREAKING: dict[str, object] = {"breaker": {"failures": 5, "open": "1s"}}
_RETRYING: dict[str, object] = {
    "retry": {"on": ["unavailable"], "budget": "20%", "wait": "50ms"},
}
_UNLIMITED = "modelarts-gateway without a limit"
CONTESTANTS: dict[str, Callable[[int, Path], tuple[list[str], int]]] = {
    "modelarts-gateway, `max_in_flight: 5`": lambda s, f: _gateway(s, f, _LIMITED),
    "modelarts-gateway, `max_in_flight: 4`": lambda s, f: _gateway(s, f, _AS_MANY),
    _UNLIMITED: lambda s, f: _gateway(s, f, {}),
    "HAProxy, `maxconn 5`, `timeout queue 1s`": _haproxy,
    "Envoy, circuit breaker of 5, 40 pending": lambda s, f: _envoy(s, f, adaptive=False),
    "Envoy, `adaptive_concurrency`": lambda s, f: _envoy(s, f, adaptive=True),
    "nginx, `limit_conn 5`": _nginx,
}


@contextmanager
def _service() -> Iterator[int]:
    command = [sys.executable, "-m", "tests.programs.bench.slow_service"]
    with child(command, output=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def _figures(
    calm: list[Answer], flood: list[Answer], after: list[Answer], flood_s: float
) -> dict[str, float]:
    """Return what is told of one contestant; durations are milliseconds."""
    good = [a for a in flood if a.status == 200 and a.due + a.took_s <= flood_s]
    at_once = [a.took_s for a in flood if a.status not in {0, 200} and a.took_s < PATIENCE_S / 2]
    settled = [a.took_s for a in after if a.due >= 1.0]
    return {
        "goodput_percent": 100 * len(good) / flood_s / CAPACITY,
        "good_p99_ms": 1e3 * percentile(sorted(a.took_s for a in good), 0.99),
        "refused_at_once": len(at_once),
        "refused_p99_ms": 1e3 * percentile(sorted(at_once), 0.99),
        "gave_up": sum(answer.status == 0 for answer in flood),
        "calm_p99_ms": 1e3 * percentile(sorted(a.took_s for a in calm), 0.99),
        "after_p99_ms": 1e3 * percentile(sorted(settled), 0.99),
        "after_failed": sum(a.status != 200 for a in after if a.due >= 1.0),
    }


def measure(name: str, calm_s: float, flood_s: float) -> dict[str, float]:
    """Run one contestant through all three phases.

    Raises:
        FileNotFoundError: its program is not installed.
    """
    with _service() as service, tempfile.TemporaryDirectory() as folder:
        command, port = CONTESTANTS[name](service, Path(folder))
        with child(command, output=subprocess.DEVNULL) as process:
            wait_for_port(process, port)

            async def run() -> dict[str, float]:
                await _load(port, 0.5, 1.0)  # warm-up
                calm = await _load(port, 0.5, calm_s)
                reset_peak(process.pid)
                before = memory(process.pid).now
                flood = await _load_without_waiting(port, flood_s)
                after = await _load(port, 0.5, calm_s)
                grown = memory(process.pid).peak - before
                return {
                    **_figures(calm, await flood, after, flood_s),
                    "rss_grown_mib": grown / MIB,
                }

            return asyncio.run(run())


async def _load_without_waiting(port: int, seconds: float) -> asyncio.Task[list[Answer]]:
    """Send twice the capacity for so long; return before the last answers are in."""
    task = asyncio.create_task(_load(port, 2.0, seconds))
    await asyncio.sleep(seconds)
    return task


def table(results: dict[str, dict[str, float]]) -> str:
    """Return the results as Markdown."""
    lines = [
        (
            "| | goodput at twice, % of capacity | their p99, ms | refused at once | in p99, ms "
            "| gave up | p99 a second after, ms | RSS grown, MiB |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in results.items():
        shown = f"**{name}**" if name.startswith("modelarts-gateway, ") else name
        failed = f" ({found['after_failed']:.0f} failed)" if found["after_failed"] else ""
        lines.append(
            f"| {shown} | {found['goodput_percent']:.0f} | {found['good_p99_ms']:.0f} "
            f"| {found['refused_at_once']:.0f} | {found['refused_p99_ms']:.1f} "
            f"| {found['gave_up']:.0f} | {found['after_p99_ms']:.0f}{failed} "
            f"| {found['rss_grown_mib']:.1f} |"
        )
    return "\n".join(lines)


def document(kept: Mapping[str, Any]) -> str:
    """Return the table of a run and what is to be known about it, as Markdown."""
    proofs = [overload_proofs.Proof(**one) for one in kept.get("proofs", [])]
    first = ", all of this before its other programs" if kept.get("undisturbed") else ""
    more = f"\n\n{overload_proofs.table(proofs)}" if proofs else ""
    return (
        f"{table(kept['results'])}{more}\n\nFlood of {kept['flood_s']:g} s; load average of the "
        f"machine {kept['load_average']}{first}; the gateway {kept.get('build', 'interpreted')}; "
        "client and service on the same two cores."
    )


def prove(seconds: float) -> Iterator[overload_proofs.Proof]:
    """Yield the rows of the second table, each measured for so long."""
    for name, start in CONTESTANTS.items():
        if name == _UNLIMITED:
            continue  # it has no queue that a caller could leave
        try:
            yield overload_proofs.gone_callers(name, start, seconds)
        except FileNotFoundError as missing:
            print(f"{name}: {missing} is not installed; make bench-setup")
    yield overload_proofs.throttling(lambda s, f: _gateway(s, f, _AUTO), 2 * seconds)
    yield overload_proofs.dead_service(lambda s, f: _gateway(s, f, _BREAKING), seconds)
    yield overload_proofs.retry_budget(lambda s, f: _gateway(s, f, _RETRYING), 2 * seconds)


def _undisturbed() -> bool:
    """Go before the machine's other programs, with all that is started; return whether we may.

    Capacity is counted in slots of 50 ms: a program that waits for the processor loses some.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    return True


def main() -> int:
    """Measure those proxies that are installed; print and keep the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs.bench.overload", description=__doc__
    )
    parser.add_argument("--calm", type=float, default=5.0, help="seconds before and after")
    parser.add_argument("--flood", type=float, default=20.0, help="seconds at twice the capacity")
    parser.add_argument("--proof", type=float, default=10.0, help="seconds of each proof")
    options = parser.parse_args()
    undisturbed = _undisturbed()
    results = {}
    for name in CONTESTANTS:
        try:
            results[name] = measure(name, options.calm, options.flood)
        except FileNotFoundError as missing:
            print(f"{name}: {missing} is not installed; make bench-setup")
    load = round(os.getloadavg()[0], 2)
    kept = {
        "build": "compiled" if peers.find("compiled") else "interpreted",
        "flood_s": options.flood,
        "load_average": load,
        "undisturbed": undisturbed,
        "results": results,
        "proofs": [asdict(one) for one in prove(options.proof)],
    }
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(document(kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
