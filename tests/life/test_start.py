"""What cannot work is said at the start, in a sentence each, and not at the first request."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__, build
from tests.support.process import run
from tests.support.served import served, settings_of

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
