"""What cannot work is said at the start, in a sentence each, and not at the first request."""

import json
import os
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway import __version__, build
from tests.support.client import connect
from tests.support.fake_iam import FakeIam, reply, token_body
from tests.support.gateway import POST
from tests.support.process import run
from tests.support.served import served, settings_of
from tests.support.upstream import OK, scripted_upstream

LOGIN = {"auth_url": "http://127.0.0.1:1", "username": "u", "user_domain": "d", "project": "p"}


async def start(folder: Path, settings: dict[str, Any]) -> tuple[int, list[str]]:
    """Start one that cannot; return its exit code and what it says."""
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(settings))
    code, _, said = await run(sys.executable, "-m", "gateway", "serve", "--config", str(file))
    return code, [json.loads(line)["message"] for line in said.splitlines()]


async def test_the_log_begins_with_what_runs(tmp_path: Path) -> None:
    """Before warnings about the configuration: a reader of the log knows what wrote it."""
    async with served(tmp_path, 1, {"listen": "0.0.0.0:0", "allowed_hosts": ["*"]}) as process:
        await process.says("configuration: ")
        [first] = process.log[0].splitlines()

    assert json.loads(first)["message"].startswith(
        f"modelarts-gateway {__version__} ({build.NAME}), Python 3."
    )


async def test_a_secret_without_content(tmp_path: Path) -> None:
    """A mount that came up empty is found before a login is wasted on it."""
    (tmp_path / "password").write_text("\n")
    settings = settings_of(1)
    settings["identities"] = {"default": LOGIN | {"password_file": "password"}}
    code, said = await start(tmp_path, settings)

    assert code == 2
    assert any(line.strip().startswith("identities.default.password_file: ") for line in said)
    assert "it is empty" in said[-1]


async def test_certificates_that_are_none(tmp_path: Path) -> None:
    """All of them are named, not only the first."""
    (tmp_path / "ca.pem").write_text("none")
    settings = settings_of(1)
    for name in ("one", "two"):
        tls = {"ca_file": "ca.pem"}
        settings["services"][name] = {"url": f"https://127.0.0.1:1/{name}", "tls": tls}
    code, said = await start(tmp_path, settings)

    assert code == 2
    assert [line.partition(":")[0] for line in said[1:]] == ["services.one.tls", "services.two.tls"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"listen_mode": 432}, "listen_mode: 432 is not a mode; use octal digits"),
        pytest.param(
            {"listen_mode": "rw"}, "listen_mode: 'rw' is not a mode", marks=pytest.mark.long
        ),
        pytest.param(
            {"listen_mode": "1777"}, "listen_mode: '1777' is not a mode", marks=pytest.mark.long
        ),
        pytest.param(
            {"listen": "unix:relative"},
            "listen: 'unix:relative' is not a socket file",
            marks=pytest.mark.long,
        ),
        (
            {"listen": "unix:/nowhere/at/all.sock"},
            "listen: cannot listen on unix:/nowhere/at/all.sock: No such file or directory; make",
        ),
    ],
)
async def test_a_socket_that_cannot_be(
    changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    """Modes that YAML has misread, and places that are none."""
    code, said = await start(tmp_path, settings_of(1) | changes)

    assert code == 2
    assert any(problem in line for line in said), said
    assert not any("Traceback" in line for line in said)


COUNTED = """
import gc
from gateway.cli import main
seen = []
gc.callbacks.append(lambda phase, facts: seen.append(phase == "stop"))
try:
    main(["serve", "--config", "missing.yaml"])
finally:
    print(sum(seen))
"""
"""How often garbage is looked for until everything that serves is imported."""


async def test_garbage_is_looked_for_rarely_while_it_starts() -> None:
    """What is imported makes hardly any; by default it is looked for over a hundred times."""
    code, counted, said = await run(sys.executable, "-c", COUNTED)

    assert code == 2
    assert "missing.yaml" in said
    assert int(counted) < 20


async def test_no_authorities_are_read_where_nothing_is_https(tmp_path: Path) -> None:
    """The system's take a megabyte and 30 ms each time. Who opens this pipe waits for ever."""
    pipe = tmp_path / "authorities.pem"
    os.mkfifo(pipe)
    async with (
        scripted_upstream(OK) as upstream,
        served(tmp_path, upstream.port, environ={"SSL_CERT_FILE": str(pipe)}) as gateway,
    ):
        caller = await connect(gateway.port)
        caller.send(POST)
        assert (await caller.reply()).status == 200
        caller.leave()


async def test_authorities_of_the_environment_are_trusted(tmp_path: Path) -> None:
    """Those that `SSL_CERT_FILE` names, by a login and by a service."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authorities.pem"))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    environ = {"SSL_CERT_FILE": str(tmp_path / "authorities.pem")}
    (tmp_path / "password").write_text("secret")
    expires_at = datetime.now(UTC) + timedelta(days=1)
    token = token_body(issued_at=None, expires_at=expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"))
    async with (
        FakeIam(reply(201, token, {"X-Subject-Token": "token"}), tls=serving) as iam,
        scripted_upstream(OK, tls=serving) as upstream,
    ):
        there = {"auth_url": f"https://127.0.0.1:{iam.port}/v3", "project": "region-1"}
        who = {"user_domain": "my-account", "password_file": "password"}
        login = LOGIN | there | who
        settings = settings_of(upstream.port, {"identities": {"default": login}})
        settings["services"]["iris"]["url"] = f"https://127.0.0.1:{upstream.port}/v1/infers/abc"
        async with served(tmp_path, upstream.port, settings, environ=environ) as gateway:
            caller = await connect(gateway.port)
            caller.send(POST)
            assert (await caller.reply()).status == 200
            caller.leave()
    assert upstream.requests[0].values(b"x-auth-token") == [b"token"]
