"""The contestants: one process with one worker each, all doing the same work.

Everyone listens on loopback without TLS, answers `/bench/…` from the plain upstream and
`/benchtls/…` from the TLS one, rewrites both to `/v1/infers/…`, writes the token, keeps
connections open on both sides and verifies the upstream's certificate and name. nginx and HAProxy
have larger buffers than by default, which makes bodies cheaper. The gateway alone also writes an
access log.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.bench import peers
from tests.bench.processes import free_port
from tests.bench.upstream import TOKEN


@dataclass(frozen=True)
class Surroundings:
    """What a contestant is told: where the upstreams are, whom to trust, where to put files."""

    plain: int
    secure: int
    ca_file: Path
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


def _gateway(at: Surroundings) -> Launch:
    port, admin = free_port(), free_port()
    password = at.folder / "password"
    password.write_text("bench")
    password.chmod(0o600)

    def service(url: str, **more: object) -> dict[str, object]:
        return {"url": url, "methods": ["POST"], "max_body": "64MiB", **more}

    config = {
        "listen": f"127.0.0.1:{port}",
        "admin_listen": f"127.0.0.1:{admin}",
        "identities": {
            "default": {
                "auth_url": f"http://127.0.0.1:{at.plain}/v3",
                "method": "password",
                "username": "bench",
                "user_domain": "bench",
                "password_file": str(password),
                "project": "bench",
            }
        },
        "services": {
            "bench": service(f"http://127.0.0.1:{at.plain}/v1/infers/bench"),
            "benchtls": service(
                f"https://127.0.0.1:{at.secure}/v1/infers/benchtls",
                tls={"ca_file": str(at.ca_file), "server_name": "localhost"},
            ),
        },
    }
    file = at.folder / "gateway.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(file)]
    return Launch(command, port, admin_port=admin)


def _plain(at: Surroundings) -> Launch:
    port = free_port()
    given = {
        "listen": port,
        "plain": at.plain,
        "secure": at.secure,
        "ca_file": str(at.ca_file),
    }
    return Launch([sys.executable, "-m", "tests.bench.plain_proxy", json.dumps(given)], port)


def _nginx(at: Surroundings) -> Launch:
    port = free_port()
    forward = "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_max_temp_file_size 0;"
    temporary = " ".join(
        f"{kind}_temp_path {at.folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
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
  upstream plain {{ server 127.0.0.1:{at.plain}; keepalive 64; keepalive_requests 1000000000; }}
  upstream secure {{ server 127.0.0.1:{at.secure}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    proxy_request_buffering off; {forward}
    proxy_set_header X-Auth-Token {TOKEN};
    location /bench/ {{ proxy_pass http://plain/v1/infers/bench/; }}
    location /benchtls/ {{
      proxy_pass https://secure/v1/infers/benchtls/;
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {at.ca_file};
      proxy_ssl_name localhost; proxy_ssl_server_name on;
    }}
  }}
}}
""")
    return Launch([_binary("nginx"), "-p", str(at.folder), "-e", "stderr", "-c", str(file)], port)


def _haproxy(at: Surroundings) -> Launch:
    port = free_port()
    verify = f"ssl verify required ca-file {at.ca_file} sni str(localhost) verifyhost localhost"
    file = at.folder / "haproxy.cfg"
    file.write_text(f"""
global
  maxconn 8192
  nbthread 1
  tune.bufsize 65536
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  http-reuse always
frontend in
  bind 127.0.0.1:{port}
  http-request set-header X-Auth-Token {TOKEN}
  http-request set-path /v1/infers%[path]
  use_backend secure if {{ path_beg /v1/infers/benchtls/ }}
  default_backend plain
backend plain
  server upstream 127.0.0.1:{at.plain}
backend secure
  server upstream 127.0.0.1:{at.secure} {verify}
""")
    return Launch([_binary("haproxy"), "-db", "-f", str(file)], port)


def _caddy(at: Surroundings) -> Launch:
    port = free_port()
    file = at.folder / "Caddyfile"
    file.write_text(f"""
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  rewrite * /v1/infers{{uri}}
  @secure path /v1/infers/benchtls/*
  reverse_proxy @secure https://127.0.0.1:{at.secure} {{
    header_up X-Auth-Token {TOKEN}
    transport http {{
      tls_trusted_ca_certs {at.ca_file}
      tls_server_name localhost
      keepalive_idle_conns_per_host 64
    }}
  }}
  reverse_proxy http://127.0.0.1:{at.plain} {{
    header_up X-Auth-Token {TOKEN}
    transport http {{
      keepalive_idle_conns_per_host 64
    }}
  }}
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
                    "routes": [route("/benchtls/", "secure"), route("/bench/", "plain")],
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
            "listeners": [{"name": "in", "address": address(port), "filter_chains": [chain]}],
            "clusters": [
                cluster("plain", at.plain),
                cluster("secure", at.secure, transport_socket=socket),
            ],
            "secrets": [
                {"name": "token", "generic_secret": {"secret": {"inline_string": TOKEN}}},
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
    "gateway": _gateway,
    "plain": _plain,
    "nginx": _nginx,
    "haproxy": _haproxy,
    "envoy": _envoy,
    "caddy": _caddy,
}
"""All contestants, in the order in which they take their turns."""
OURS = frozenset({"gateway", "plain"})
"""Those that need no binary."""
