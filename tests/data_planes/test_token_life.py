"""Real proxies with the configurations that deploy/data-planes ships, over a token's whole life."""

import asyncio
import hashlib
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from gateway.twin import IRIS_ID, Account, Twin
from gateway.twin.iam_faults import IamFault, IamFaultSpec
from tests.cloud.serving import FLOWER
from tests.life.test_token_endpoint import ask
from tests.programs.bench.peers import find, how_to_install
from tests.support.client import connect
from tests.support.keystone import _free_port
from tests.support.served import served
from tests.support.tools import lacking
from tests.support.twin import running_twin

SHIPPED = Path(__file__).parents[2] / "deploy" / "data-planes"
LIFE_S = 8.0
HOST = "modelarts-infers-1.example"

pytestmark = pytest.mark.timeout(300, func_only=True)

Plane = Callable[["Scene"], list[list[str]]]


class Scene:
    """Where everything is; the shipped files, adapted to it."""

    def __init__(self, folder: Path, twin: Twin, service_port: int) -> None:
        self.folder, self.twin = folder, twin
        self.service_port = service_port
        self.port = _free_port()
        self.endpoint_port = 0
        """Of the token endpoint, for a proxy that knows no socket files; 0: it is one."""

    def adapted(self, name: str) -> Path:
        """Return a copy of a shipped file with this scene's places in it."""
        text = (SHIPPED / name).read_text()
        for shipped, here in (
            (f"{HOST}:443", f"localhost:{self.service_port}"),
            (f"{HOST}, port_value: 443", f"127.0.0.1, port_value: {self.service_port}"),
            (f"https://{HOST}", f"https://localhost:{self.service_port}"),
            (HOST, "localhost"),
            ("http://:8000", f"http://:{self.port}"),
            ("127.0.0.1:8000", f"127.0.0.1:{self.port}"),
            ("port_value: 8000", f"port_value: {self.port}"),
            ("127.0.0.1:9095", f"127.0.0.1:{self.endpoint_port}"),
            ("/etc/traefik/", f"{self.folder}/"),
            ("/etc/ssl/certs/ca-certificates.crt", str(self.folder / "ca.pem")),
            ("/run/", f"{self.folder}/run/"),
        ):
            text = text.replace(shipped, here)
        file = self.folder / name
        file.write_text(text)
        file.chmod(0o700)
        return file

    def gateway_settings(self) -> dict[str, Any]:
        """Return the shipped configuration of the gateway, for the stand-in cloud."""
        settings = yaml.safe_load(self.adapted("gateway.yaml").read_text())
        account, password = Account(), self.folder / "password"
        password.write_text(account.password)
        settings["listen"] = settings["admin_listen"] = "127.0.0.1:0"
        settings["identities"]["default"] |= {
            "auth_url": self.twin.auth_url,
            "username": account.user,
            "user_domain": account.domain,
            "project": account.project,
            "password_file": str(password),
            "tls": {"ca_file": str(self.folder / "ca.pem")},
        }
        assert isinstance(settings, dict)
        if self.endpoint_port:
            settings["token_listen"] = f"127.0.0.1:{self.endpoint_port}"
        return settings

    @property
    def endpoint(self) -> Path | int:
        """The token endpoint's socket file, or its port."""
        return self.endpoint_port or self.folder / "run" / "gateway" / "token.sock"

    async def call(self) -> tuple[int, list[bytes]]:
        """Call the service through the proxy, with a token that must not win; 200: it predicted."""
        caller = await connect(self.port)
        caller.send(
            b"POST /iris HTTP/1.1\r\nHost: models\r\nContent-Type: application/json\r\n"
            b"X-Auth-Token: of-the-caller\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (len(FLOWER), FLOWER)
        )
        reply = await caller.reply()
        caller.leave()
        assert reply.status != 200 or b"predictresult" in reply.body, "not the service's answer"
        return reply.status, reply.values(b"retry-after")

    async def becomes(self, status: int, *, within_s: float = 25.0) -> list[bytes]:
        """Call until this is the status; return the values of Retry-After."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    found, retry_after = await self.call()
                except (ConnectionError, EOFError):  # it has not begun to listen
                    found, retry_after = 0, []
                if found == status:
                    return retry_after


def program(name: str) -> str:
    found = find(name)
    if found is None:
        lacking(f"{name} is not installed ({how_to_install(name)})")
    return str(found)


def nginx(scene: Scene) -> list[list[str]]:
    (scene.folder / "run" / "nginx").mkdir()
    config = scene.adapted("nginx.conf")
    user = "user root; " if os.geteuid() == 0 else ""
    paths = f"{user}daemon off; pid {scene.folder}/nginx.pid;"
    return [[program("nginx"), "-p", str(scene.folder), "-c", str(config), "-g", paths]]


def caddy(scene: Scene) -> list[list[str]]:
    config = scene.adapted("Caddyfile")
    return [[program("caddy"), "run", "--adapter", "caddyfile", "--config", str(config)]]


def haproxy(scene: Scene) -> list[list[str]]:
    run = scene.folder / "run"
    (run / "haproxy").mkdir()
    program("socat")
    feed = [str(scene.adapted("haproxy-feed.sh")), f"{run}/tokens/haproxy.map"]
    return [
        [program("haproxy"), "-db", "-f", str(scene.adapted("haproxy.cfg"))],
        [*feed, f"{run}/haproxy/feed.sock"],
    ]


def envoy(scene: Scene, name: str) -> list[list[str]]:
    number = str(os.getpid() * 7 % 30000 + scene.port % 1000)
    options = ["--concurrency", "1", "--base-id", number, "--log-level", "error"]
    return [[program("envoy"), "-c", str(scene.adapted(name)), *options]]


def envoy_injector(scene: Scene) -> list[list[str]]:
    return envoy(scene, "envoy-credential-injector.yaml")


def envoy_ext_authz(scene: Scene) -> list[list[str]]:
    return envoy(scene, "envoy-ext-authz.yaml")


def traefik(scene: Scene) -> list[list[str]]:
    scene.endpoint_port = _free_port()
    scene.adapted("traefik-services.yaml")
    return [[program("traefik"), f"--configFile={scene.adapted('traefik.yaml')}"]]


@asynccontextmanager
async def running(command: list[str], folder: Path) -> AsyncIterator[None]:
    """Run a program until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=sys.stderr, stderr=sys.stderr, env=os.environ | {"HOME": str(folder)}
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.mark.parametrize(
    ("plane", "without_token"),
    [
        (nginx, 503),
        (caddy, 503),
        (haproxy, 503),
        (envoy_injector, 401),
        (envoy_ext_authz, 503),
        (traefik, 503),
    ],
)
async def test_a_proxy_sends_our_token_for_as_long_as_it_is_good(
    tmp_path: Path, plane: Plane, without_token: int
) -> None:
    """Fresh, renewed, revoked and reported, and with IAM away: until it expires, and not longer."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    for name in ("gateway", "tokens"):
        (tmp_path / "run" / name).mkdir(parents=True)
    async with running_twin(token_ttl_s=LIFE_S, ssl_context=context) as twin:
        assert IRIS_ID in (SHIPPED / "gateway.yaml").read_text()
        port = int(twin.auth_url.split(":")[2].partition("/")[0])
        scene = Scene(tmp_path, twin, port)
        commands = plane(scene)
        async with (
            served(tmp_path, 0, scene.gateway_settings()),
            AsyncExitStack() as stack,
        ):
            for command in commands:
                await stack.enter_async_context(running(command, tmp_path))
            await scene.becomes(200)  # fresh

            before = twin._state.stats.logins
            async with asyncio.timeout(LIFE_S * 3):
                while twin._state.stats.logins < before + 2:  # what was fresh is dead by now
                    await scene.call()
            await scene.becomes(200)  # renewed

            token = (await ask(scene.endpoint)).values(b"x-auth-token")[0]
            twin._state.tokens.revoke_all()
            fingerprint = hashlib.sha256(token).hexdigest()[:8]
            await ask(
                scene.endpoint,
                b"POST /auth/iris/rejected?fingerprint=%b HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 0\r\n\r\n" % fingerprint.encode(),
            )
            await scene.becomes(200)  # revoked, reported and replaced

            twin._state.plan.iam.append(IamFaultSpec(IamFault.STATUS))
            retry_after = await scene.becomes(without_token)  # IAM away, and the token has expired
            if without_token == 503 and plane is not envoy_ext_authz:
                assert retry_after
            assert not twin._state.tokens._good() or (await scene.call())[0] == without_token

            twin._state.plan.iam.clear()
            await scene.becomes(200, within_s=45)  # and back
