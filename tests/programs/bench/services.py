"""The services behind every contestant: ours in Python, Go's `net/http`, and nginx.

What proxies are good at shows in who reads what they send: ours takes a body in few large pieces,
a real server in many of 32 KiB.
"""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.programs.bench import peers
from tests.programs.bench.processes import child, free_port, wait_for_port
from tests.programs.bench.upstream import IAM_TOKEN

_GO_SOURCE = Path(__file__).parent / "go"
_GO_BINARY = peers.PEERS.parent / "bench-go"


class Kind(Enum):
    """Whose server it is."""

    OURS = "ours"
    GO = "Go's net/http"
    NGINX = "nginx"


@dataclass(frozen=True)
class Service:
    """A service under a name, which is the first part of each contestant's paths."""

    name: str
    kind: Kind
    port: int
    secure: bool = False

    @property
    def url(self) -> str:
        """Scheme and authority."""
        return f"{'https' if self.secure else 'http'}://127.0.0.1:{self.port}"


ROUTES = {
    (Kind.OURS, False): "bench",
    (Kind.OURS, True): "benchtls",
    (Kind.GO, False): "go",
    (Kind.GO, True): "gotls",
    (Kind.NGINX, False): "static",
}


def go_program() -> Path | None:
    """Build what is written in Go, if it has changed; None without a compiler."""
    compiler = peers.find("go")
    if compiler is None:
        return None
    changed = max(file.stat().st_mtime for file in _GO_SOURCE.glob("*.go"))
    if not _GO_BINARY.exists() or _GO_BINARY.stat().st_mtime < changed:
        command = [str(compiler), "build", "-o", str(_GO_BINARY), "."]
        environment = os.environ | {"GO111MODULE": "off"}
        subprocess.run(command, check=True, timeout=600, cwd=_GO_SOURCE, env=environment)
    return _GO_BINARY


def start_all(folder: Path, certificate: Path, stack: ExitStack) -> list[Service]:
    """Start every service whose program is there; they end with `stack`.

    Raises:
        RuntimeError: one did not start.
    """
    found = _two(
        Kind.OURS, [sys.executable, "-m", "tests.programs.bench.upstream", str(certificate)], stack
    )
    program = go_program()
    if program is not None:
        order = json.dumps({"Token": IAM_TOKEN, "Certificate": str(certificate)})
        found += _two(Kind.GO, [str(program), "service", order], stack)
    nginx = peers.find("nginx")
    if nginx is not None:
        found.append(_nginx(nginx, folder, stack))
    return found


def _two(kind: Kind, command: list[str], stack: ExitStack) -> list[Service]:
    """Start a program that says its ports, one without TLS and one with it."""
    process = stack.enter_context(child(command, output=subprocess.PIPE, patience_s=1))
    assert process.stdout is not None
    said = process.stdout.readline()
    if not said:
        raise RuntimeError(f"the service did not start: {kind.value}")
    ports = json.loads(said)
    return [
        Service(ROUTES[kind, False], kind, ports["plain"]),
        Service(ROUTES[kind, True], kind, ports["secure"], secure=True),
    ]


def _nginx(program: Path, folder: Path, stack: ExitStack) -> Service:
    """Start nginx as a service that throws bodies away and answers itself."""
    place, port = folder / "nginx-service", free_port()
    place.mkdir()
    temporary = " ".join(
        f"{kind}_temp_path {place}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = place / "nginx.conf"
    file.write_text(f"""
daemon off; master_process off; worker_processes 1;
{"user root;" if os.geteuid() == 0 else ""}
pid {place}/nginx.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; {temporary}
  keepalive_requests 1000000000; client_max_body_size 64m; large_client_header_buffers 4 16k;
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    default_type application/json;
    location /v1/infers/ {{
      if ($http_x_auth_token != {IAM_TOKEN}) {{ return 401; }}
      return 200 '{{"predictresult": "1"}}';
    }}
  }}
}}
""")
    command = [str(program), "-p", str(place), "-e", "stderr", "-c", str(file)]
    process = stack.enter_context(child(command, output=subprocess.DEVNULL))
    wait_for_port(process, port)
    return Service(ROUTES[Kind.NGINX, False], Kind.NGINX, port)
