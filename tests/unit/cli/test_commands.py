"""The command line as users meet it: exit codes, sentences, examples."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway import __version__, build
from gateway.cli import main
from tests.support.process import run
from tests.support.served import served
from tests.unit.cli.conftest import Run

COMMANDS = [
    "serve",
    "run",
    "demo",
    "twin",
    "init",
    "check",
    "doctor",
    "whoami",
    "wait",
    "healthcheck",
]
GOOD = {
    "listen": "127.0.0.1:0",
    "admin_listen": "127.0.0.1:0",
    "identities": {"default": {"method": "none"}},
    "services": {"iris": {"url": "http://127.0.0.1:1/v1/infers/abc"}},
}
BAD = {
    "listen": "nonsense",
    "identities": {"default": {"method": "passwort"}},
    "services": {"iris": {"ulr": "http://127.0.0.1:1/"}},
}


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def command(
    *words: str, environment: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run a command in a process of its own, without any configuration around it."""
    return await run(
        sys.executable, "-m", "gateway", *words,
        env={key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        | dict(environment or {}),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["serve", pytest.param("demo", marks=pytest.mark.long)])
async def test_start_refuses_without_compiled_parser(tmp_path: Path, name: str) -> None:
    """One sentence with the remedy, and nothing listens: the parser in Python is too lenient.

    `serve` writes it as JSON where nobody sits, `demo` always as text.
    """
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(GOOD))
    options = ["--config", str(file)] if name == "serve" else ["--listen", "127.0.0.1:0"]
    code, out, err = await command(name, *options, environment={"AIOHTTP_NO_EXTENSIONS": "1"})

    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    line = json.loads(last)["message"] if name == "serve" else last
    assert line.startswith("aiohttp")
    assert "install" in line


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_exist(name: str) -> None:
    """Every command shows how it is called, and no example names an option that is not there."""
    ended = CliRunner().invoke(main, [name, "--help"], prog_name="modelarts-gateway")
    examples = [
        line.strip() for line in ended.output.splitlines() if f"modelarts-gateway {name}" in line
    ]

    assert ended.exit_code == 0
    assert "Examples:" in ended.output
    assert len(examples) > 1, "the usage line is not an example"
    options = ended.output.partition("Options:")[2].partition("Examples:")[0]
    for example in examples[1:]:
        for word in example.split():
            if word.startswith("--"):
                assert word in options


def test_help_lists_every_command_and_the_exit_codes() -> None:
    """One line each; asked for without a command as well."""
    ended = CliRunner().invoke(main, ["--help"], prog_name="modelarts-gateway")

    assert ended.exit_code == 0
    listed = ended.output.partition("Commands:")[2].partition("Examples:")[0]
    assert re.findall(r"^  (\w+) ", listed, re.MULTILINE) == COMMANDS
    assert "Exit codes:" in ended.output


def test_version() -> None:
    """The version that is installed."""
    ended = CliRunner().invoke(main, ["--version"], prog_name="modelarts-gateway")

    said = f"modelarts-gateway, version {__version__} ({build.NAME})\n"
    assert (ended.exit_code, ended.output) == (0, said)


@pytest.mark.parametrize("words", [["nothing"], ["serve", "--nothing"], ["wait", "--max", "soon"]])
def test_a_wrong_command_line_is_2(words: list[str]) -> None:
    """With a sentence that says what is wrong."""
    ended = CliRunner().invoke(main, words)

    assert ended.exit_code == 2
    assert "Error:" in ended.stderr


@pytest.mark.parametrize(
    ("mistyped", "told"),
    [
        ("serv", "Did you mean 'serve'?"),
        ("helthcheck", "Did you mean 'healthcheck'?"),
        ("xyz", "Commands: serve, run, demo"),
    ],
)
def test_a_mistyped_command_is_told_what_was_meant(mistyped: str, told: str) -> None:
    """Or what there is, if nothing is near."""
    ended = CliRunner().invoke(main, [mistyped])

    assert ended.exit_code == 2
    assert f"No such command '{mistyped}'. {told}" in ended.stderr


def test_check_is_0_for_a_good_configuration(run: Run) -> None:
    """It says so, on standard output."""
    ran = run("check", config=GOOD)

    assert ran.code == 0
    assert ran.out == "good: 1 service, 1 identity\n"


@pytest.mark.parametrize("name", ["check", "serve", "whoami"])
def test_every_problem_is_printed_at_once(name: str, run: Run) -> None:
    """With its key, and what may have been meant; nothing is started, and the exit code is 2."""
    ran = run(name, config=BAD)

    assert ran.code == 2
    assert ran.out == ""
    for text in ("listen:", "identities.default.method", "services.iris.ulr", "url", "password"):
        assert text in ran.err


@pytest.mark.parametrize("name", ["check", "serve"])
def test_a_file_that_is_not_there_is_2(name: str, tmp_path: Path) -> None:
    """Named in the sentence."""
    ended = CliRunner().invoke(main, [name, "--config", str(tmp_path / "none.yaml")], env={})

    assert ended.exit_code == 2
    assert "none.yaml" in ended.stderr


@pytest.mark.parametrize("key", ["listen", pytest.param("admin_listen", marks=pytest.mark.long)])
async def test_a_port_in_use_is_2_with_a_sentence(key: str, tmp_path: Path) -> None:
    """Not a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        file = tmp_path / "gateway.yaml"
        file.write_text(json.dumps({**GOOD, key: address}))
        code, out, err = await command("serve", "--config", str(file))

    assert code == 2
    assert out == ""
    assert f"{key}: cannot listen on {address}: it is in use by another program" in err
    assert f"GATEWAY_{key.upper()}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["wait", "healthcheck"])
async def test_probes_of_nobody_are_3(name: str) -> None:
    """With the address that was asked."""
    port = _free_port()
    more = ["--max", "0.1"] if name == "wait" else []
    code, _, err = await command(name, "--admin-listen", f"127.0.0.1:{port}", *more)

    assert code == 3
    assert f"127.0.0.1:{port}" in err


@pytest.mark.parametrize("name", ["wait", "healthcheck"])
def test_probes_of_nonsense_are_2(name: str) -> None:
    """An address that is none is a wrong command line."""
    ended = CliRunner().invoke(main, [name, "--admin-listen", "nonsense"], env={})

    assert ended.exit_code == 2
    assert ended.stderr


async def test_probes_of_a_running_gateway(tmp_path: Path) -> None:
    """`healthcheck` and `wait` are 0 on one that is alive and ready."""
    async with served(tmp_path, 1) as process:
        address = f"127.0.0.1:{process.admin_port}"
        for words in (["healthcheck"], ["wait", "--max", "5s"]):
            code, out, err = await command(*words, "--admin-listen", address)
            assert (code, out, err) == (0, "ok\n", "")


async def test_wait_gives_up_on_one_that_is_not_ready(tmp_path: Path) -> None:
    """Alive but without a token: `healthcheck` is 0, `wait` 3 with the reason."""
    empty = tmp_path / "token"
    empty.touch()
    settings = {"identities": {"default": {"method": "file", "token_file": str(empty)}}}
    async with served(tmp_path, 1, settings) as process:
        address = f"127.0.0.1:{process.admin_port}"
        assert (await command("healthcheck", "--admin-listen", address))[0] == 0
        code, out, err = await command("wait", "--max", "0.3", "--admin-listen", address)

    assert (code, out) == (3, "")
    assert "no service has a usable token" in err


def test_probes_start_without_the_gateway() -> None:
    """They run every few seconds: neither aiohttp nor the rooms that serve are imported."""
    listing = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, gateway.cli.healthcheck, gateway.cli.wait; print(*sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    heavy = {"aiohttp", "prometheus_client", "difflib", "gateway.serve", "gateway.proxy"}
    assert not heavy & set(listing)


@pytest.mark.parametrize(
    ("words", "settings", "code"),
    [(["check", "--show"], GOOD, 0), (["check"], BAD, 2), (["healthcheck"], GOOD, 3)],
)
def test_the_verdict_stands_where_nothing_can_be_written(
    words: list[str], settings: Mapping[str, object], code: int, tmp_path: Path
) -> None:
    """A full disk must not make a probe fail, nor a wrong configuration another thing."""
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps({**settings, "admin_listen": f"127.0.0.1:{_free_port()}"}))
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "gateway", *words, "--config", str(file)],
            stdout=full, stderr=full, timeout=100, check=False,
            env={"PATH": os.environ["PATH"]},  # without PYTHONUNBUFFERED
        )  # fmt: skip
    assert ended.returncode == code
