"""nginx before the token endpoint, as token-gate.yaml has it: who gets the token, and who not."""

import asyncio
import json
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from gateway.twin import IRIS_ID
from tests.cloud.serving import password_identity
from tests.data_planes.test_token_life import program, running
from tests.support.keystone import _free_port
from tests.support.served import served, settings_of
from tests.support.twin import running_twin

MANIFEST = Path(__file__).parents[2] / "deploy" / "kubernetes" / "token-gate.yaml"
SECRET = "a" * 64

pytestmark = pytest.mark.timeout(300, func_only=True)


def adapted(folder: Path, port: int, endpoint: int) -> Path:
    """Return a copy of the manifest's nginx.conf with this test's places in it."""
    documents = yaml.safe_load_all(MANIFEST.read_text())
    (text,) = (one["data"]["nginx.conf"] for one in documents if one["kind"] == "ConfigMap")
    (folder / "run" / "nginx").mkdir(parents=True)
    for shipped, here in (
        ("/run/", f"{folder}/run/"),
        ("listen 8443", f"listen 127.0.0.1:{port}"),
        ("127.0.0.1:9095", f"127.0.0.1:{endpoint}"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    file = folder / "nginx.conf"
    file.write_text(text)
    return file


async def asked(port: int, context: ssl.SSLContext, *fields: str) -> tuple[int, bytes]:
    """Ask for the token as External Secrets does; return status and body."""
    lines = ["GET /auth/iris HTTP/1.1", "Host: modelarts-token.default.svc:8443", *fields]
    async with asyncio.timeout(30):
        reader, writer = await connected(port, context)
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        reply = await reader.read()
        writer.close()
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


async def connected(
    port: int, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect as soon as nginx listens."""
    while True:
        try:
            return await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="localhost"
            )
        except ConnectionError:
            await asyncio.sleep(0.02)


async def test_only_who_shows_the_secret_or_a_certificate_gets_the_token(tmp_path: Path) -> None:
    """As JSON for External Secrets; without, 403."""
    authority = trustme.CA()
    secrets = tmp_path / "run" / "secrets"
    (secrets / "asker").mkdir(parents=True)
    (secrets / "token-tls").mkdir()
    (secrets / "asker" / "allowed.conf").write_text(f'"Bearer {SECRET}" 1;')
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(secrets / "token-tls" / "tls.crt")
    issued.private_key_pem.write_to_path(secrets / "token-tls" / "tls.key")
    authority.cert_pem.write_to_path(secrets / "token-tls" / "ca.crt")
    trusting, known = (
        ssl.create_default_context(cafile=str(secrets / "token-tls" / "ca.crt")) for _ in range(2)
    )
    authority.issue_cert("traefik").configure_cert(known)
    port, endpoint = _free_port(), _free_port()
    async with running_twin() as twin:
        settings: dict[str, Any] = {
            "identities": {"default": password_identity(twin.auth_url, tmp_path)},
            "services": {"iris": {"url": twin.service_url(IRIS_ID)}},
            "token_listen": f"127.0.0.1:{endpoint}",
        }
        config = adapted(tmp_path, port, endpoint)
        user = "user root; " if os.geteuid() == 0 else ""
        nginx = [program("nginx"), "-p", str(tmp_path), "-c", str(config)]
        async with (
            served(tmp_path, 0, settings_of(0, settings)) as gateway,
            running([*nginx, "-g", f"{user}daemon off;"], tmp_path),
        ):
            await gateway.says("logged in")
            as_json, bearer = "Accept: application/json", f"Authorization: Bearer {SECRET}"
            status, body = await asked(port, trusting, as_json, bearer)
            assert status == 200
            (grant,) = twin._state.tokens._good()
            assert json.loads(body)["token"] == grant.token
            assert json.loads(body)["expires_at"].endswith("Z")
            assert (await asked(port, known))[0] == 200
            for fields in ([], ["Authorization: Bearer b"], [f"{bearer}b"]):
                status, body = await asked(port, trusting, as_json, *fields)
                assert status == 403
                assert grant.token.encode() not in body
