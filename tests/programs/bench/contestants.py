"""The contestants: one process with one worker each, all doing the same work.

Everyone listens on loopback without TLS, sends `/NAME/…` to the service of that name as
`/v1/infers/NAME/…`, writes a token of 3.9 KB, keeps connections open on both sides and verifies the
service's certificate and name. nginx and HAProxy have larger buffers than by default, which makes
bodies cheaper. The gateway alone also writes an access log.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.programs.bench import peers
from tests.programs.bench.processes import free_port
from tests.programs.bench.services import Service, go_program
from tests.programs.bench.upstream import IAM_TOKEN


@dataclass(frozen=True)
class Surroundings:
    """What a contestant is told: where the services are, whom to trust, where to put files."""

    services: Sequence[Service]
    """The first one is ours, without TLS, and IAM as well."""
    ca_file: Path
    certificate: Path
    """For `localhost`, with its key: of what listens on loopback."""
    folder: Path
    """Its own, empty and temporary."""


@dataclass(frozen=True)
class Launch:
    """How one contestant is started."""

    command: Sequence[str]
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    admin_port: int | None = None
    """Where `/readyz` says that it can serve; None: it can as soon as it listens."""


def _gateway(at: Surroundings, python: str) -> Launch:
    """Start the gateway of the environment that `python` belongs to."""
    port, admin = free_port(), free_port()
    password = at.folder / "password"
    password.write_text("bench")
    password.chmod(0o600)
    services: dict[str, object] = {}
    for service in at.services:
        tls = {"tls": {"ca_file": str(at.ca_file), "server_name": "localhost"}}
        services[service.name] = {
            "url": f"{service.url}/v1/infers/{service.name}",
            "methods": ["POST"],
            "max_body": "64MiB",
            **(tls if service.secure else {}),
        }
    config = {
        "listen": f"127.0.0.1:{port}",
        "admin_listen": f"127.0.0.1:{admin}",
        "identities": {
            "default": {
                "auth_url": f"{at.services[0].url}/v3",
                "method": "password",
                "username": "bench",
                "user_domain": "bench",
                "password_file": str(password),
                "project": "bench",
            }
        },
        "services": services,
    }
    file = at.folder / "gateway.yaml"
    file.write_text(yaml.safe_dump(config))
    # -P: what is installed in that environment, not what is in the current directory
    command = [python, "-P", "-m", "gateway", "serve", "--config", str(file)]
    return Launch(command, port, admin_port=admin)


def _interpreted(at: Surroundings) -> Launch:
    return _gateway(at, sys.executable)


def _compiled(at: Surroundings) -> Launch:
    return _gateway(at, _binary("compiled"))


def _plain(at: Surroundings) -> Launch:
    port = free_port()
    given = {
        "listen": port,
        "services": {service.name: service.url for service in at.services},
        "ca_file": str(at.ca_file),
    }
    return Launch(
        [sys.executable, "-m", "tests.programs.bench.plain_proxy", json.dumps(given)], port
    )


def _go(at: Surroundings) -> Launch:
    port = free_port()
    order = {
        "Token": IAM_TOKEN,
        "Listen": port,
        "Routes": {service.name: service.url for service in at.services},
        "CaFile": str(at.ca_file),
    }
    program = go_program()
    if program is None:
        raise FileNotFoundError("go")
    return Launch([str(program), "proxy", json.dumps(order)], port, {"GOMAXPROCS": "1"})


def _nginx(at: Surroundings) -> Launch:
    port = free_port()
    forward = "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_max_temp_file_size 0;"
    temporary = " ".join(
        f"{kind}_temp_path {at.folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    upstreams = "".join(
        f"upstream {one.name} {{ server 127.0.0.1:{one.port}; keepalive 1024; "
        "keepalive_requests 1000000000; }"
        for one in at.services
    )
    locations = "".join(
        f"location /{one.name}/ {{ proxy_pass "
        f"{'https' if one.secure else 'http'}://{one.name}/v1/infers/{one.name}/; }}"
        for one in at.services
    )
    file = at.folder / "nginx.conf"
    file.write_text(f"""
daemon off; master_process off; worker_processes 1;
{"user root;" if os.geteuid() == 0 else ""}
pid {at.folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; {temporary}
  keepalive_requests 1000000000; client_max_body_size 64m;
  client_body_buffer_size 256k;
  proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;
  {upstreams}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    proxy_request_buffering off; {forward}
    proxy_set_header X-Auth-Token {IAM_TOKEN};
    proxy_ssl_verify on; proxy_ssl_trusted_certificate {at.ca_file};
    proxy_ssl_name localhost; proxy_ssl_server_name on;
    {locations}
  }}
}}
""")
    return Launch([_binary("nginx"), "-p", str(at.folder), "-e", "stderr", "-c", str(file)], port)


def _haproxy(at: Surroundings) -> Launch:
    port = free_port()
    verify = f"ssl verify required ca-file {at.ca_file} sni str(localhost) verifyhost localhost"
    uses = "\n".join(
        f"  use_backend {one.name} if {{ path_beg /v1/infers/{one.name}/ }}" for one in at.services
    )
    backends = "\n".join(
        f"backend {one.name}\n  server one 127.0.0.1:{one.port} {verify if one.secure else ''}"
        for one in at.services
    )
    file = at.folder / "haproxy.cfg"
    file.write_text(f"""
global
  maxconn 8192
  nbthread 1
  tune.bufsize 65536
  tune.maxrewrite 8192
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  http-reuse always
frontend in
  bind 127.0.0.1:{port}
  http-request set-header X-Auth-Token {IAM_TOKEN}
  http-request set-path /v1/infers%[path]
{uses}
{backends}
""")
    return Launch([_binary("haproxy"), "-db", "-f", str(file)], port)


def _caddy(at: Surroundings) -> Launch:
    port = free_port()
    tls = f"tls_trusted_ca_certs {at.ca_file}\n tls_server_name localhost"
    proxies = "\n".join(
        f"""  @{one.name} path /v1/infers/{one.name}/*
  reverse_proxy @{one.name} {one.url} {{
    header_up X-Auth-Token {IAM_TOKEN}
    flush_interval -1
    transport http {{
      keepalive_idle_conns_per_host 1024
      {tls if one.secure else ""}
    }}
  }}"""
        for one in at.services
    )
    file = at.folder / "Caddyfile"
    file.write_text(f"""
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  rewrite * /v1/infers{{uri}}
{proxies}
}}
""")
    home = str(at.folder)
    return Launch(
        [_binary("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)],
        port,
        {"GOMAXPROCS": "1", "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home},
    )


_ENVOY_TYPES = "type.googleapis.com/envoy.extensions"


def _envoy(at: Surroundings) -> Launch:
    port = free_port()

    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    def cluster(name: str, number: int, **more: object) -> dict[str, object]:
        endpoint = {"endpoint": {"address": address(number)}}
        assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
        return {"name": name, "type": "STATIC", "load_assignment": assignment, **more}

    def route(prefix: str, name: str) -> dict[str, object]:
        action = {"cluster": name, "prefix_rewrite": f"/v1/infers{prefix}", "timeout": "60s"}
        return {"match": {"prefix": prefix}, "route": action}

    san = {"san_type": "DNS", "matcher": {"exact": "localhost"}}
    tls = {
        "@type": f"{_ENVOY_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "localhost",
        "common_tls_context": {
            "validation_context": {
                "trusted_ca": {"filename": str(at.ca_file)},
                "match_typed_subject_alt_names": [san],
            }
        },
    }
    injected = {
        "@type": f"{_ENVOY_TYPES}.http.injected_credentials.generic.v3.Generic",
        "credential": {"name": "token"},
        "header": "X-Auth-Token",
    }
    injector = {
        "@type": f"{_ENVOY_TYPES}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {
            "name": "envoy.http.injected_credentials.generic",
            "typed_config": injected,
        },
    }
    manager = {
        "@type": f"{_ENVOY_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [route(f"/{one.name}/", one.name) for one in at.services],
                }
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_ENVOY_TYPES}.filters.http.router.v3.Router"},
            },
        ],
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    socket = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    config = {
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": address(port),
                    "tcp_backlog_size": 2048,
                    "filter_chains": [chain],
                }
            ],
            "clusters": [
                cluster(one.name, one.port, **({"transport_socket": socket} if one.secure else {}))
                for one in at.services
            ],
            "secrets": [
                {"name": "token", "generic_secret": {"secret": {"inline_string": IAM_TOKEN}}},
            ],
        }
    }
    file = at.folder / "envoy.json"
    file.write_text(json.dumps(config))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    return Launch([_binary("envoy"), "-c", str(file), *options], port)


def _binary(program: str) -> str:
    path = peers.find(program)
    if path is None:
        raise FileNotFoundError(program)
    return str(path)


LAUNCHERS: dict[str, Callable[[Surroundings], Launch]] = {
    "compiled": _compiled,
    "interpreted": _interpreted,
    "plain": _plain,
    "nginx": _nginx,
    "haproxy": _haproxy,
    "envoy": _envoy,
    "go": _go,
    "caddy": _caddy,
}
"""All contestants, in the order in which they take their turns."""
OURS = frozenset({"interpreted", "plain"})
"""Those that need no binary."""
