"""Other proxies before the same services, to be attacked alike: nginx and Envoy as in production.

One worker each, connections to services kept, responses not buffered. nginx: its own bounds for
heads and bodies. Envoy: its overload manager with 80 % of the limit as heap (at 90 % of that it
frees memory, at 95 % it takes no more connections and requests), and the bound for buffers that
its guide for edge proxies names.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.programs.bench import peers
from tests.programs.bench.processes import free_port
from tests.support.client import connect

NAMES = ("nginx", "envoy")
_TYPES = "type.googleapis.com/envoy"
_BUFFER_BYTES = 32 * 1024


class Other:
    """A process that is attacked, and the port that it listens on."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port


@asynccontextmanager
async def running(
    name: str, folder: Path, services: dict[str, int], limit: int, prefix: Sequence[str]
) -> AsyncIterator[Other]:
    """Run one of `NAMES`; kill it at the end if it still runs.

    Args:
        name: which one.
        folder: for its files.
        services: name and port of each; they are reached below `/NAME`.
        limit: of its control group, in bytes.
        prefix: a command that enters the group and becomes another one.
    """
    port = free_port()
    program = peers.find(name)
    if program is None:
        raise FileNotFoundError(peers.how_to_install(name))
    command = {"nginx": _nginx, "envoy": _envoy}[name](folder, services, limit, port)
    process = await asyncio.create_subprocess_exec(*prefix, str(program), *command)

    async def answers() -> bool:
        with suppress(OSError):
            (await connect(port)).leave()
            return True
        return False

    try:
        for _ in range(600):
            if await answers():
                break
            await asyncio.sleep(0.1)
        yield Other(process, port)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _nginx(folder: Path, services: dict[str, int], limit: int, port: int) -> list[str]:
    del limit  # it has no such setting
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    upstreams = " ".join(
        f"upstream {name} {{ server 127.0.0.1:{number}; keepalive 1024; }}"
        for name, number in services.items()
    )
    locations = " ".join(f"location /{name} {{ proxy_pass http://{name}; }}" for name in services)
    file = folder / "nginx.conf"
    file.write_text(f"""
daemon off; master_process off; worker_processes 1; {"user root;" if os.geteuid() == 0 else ""}
pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 16384; }}
http {{
  access_log off; {temporary} client_max_body_size 12m;
  {upstreams}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    proxy_http_version 1.1; proxy_set_header Connection '';
    proxy_buffering off; proxy_request_buffering off;
    {locations}
  }}
}}
""")
    return ["-p", str(folder), "-e", "/dev/null", "-c", str(file)]


def _envoy(folder: Path, services: dict[str, int], limit: int, port: int) -> list[str]:
    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    def action(name: str, share: float) -> dict[str, Any]:
        trigger = {
            "name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": share}
        }  # fmt: skip
        return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}

    routes = [
        {"match": {"prefix": f"/{name}"}, "route": {"cluster": name, "timeout": "60s"}}
        for name in services
    ]
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "scene",
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "60s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    heap = {
        "@type": f"{_TYPES}.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
        "max_heap_size_bytes": limit * 4 // 5,
    }
    config = {
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [
                {"name": "envoy.resource_monitors.fixed_heap", "typed_config": heap}
            ],
            "actions": [
                action("shrink_heap", 0.9),
                action("stop_accepting_connections", 0.95),
                action("stop_accepting_requests", 0.95),
            ],
        },
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": address(port),
                    "tcp_backlog_size": 4096,
                    "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": name,
                    "type": "STATIC",
                    "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
                    "load_assignment": {
                        "cluster_name": name,
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": address(number)}}]}
                        ],
                    },
                }
                for name, number in services.items()
            ],
        },
    }
    file = folder / "envoy.json"
    file.write_text(json.dumps(config))
    return ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
