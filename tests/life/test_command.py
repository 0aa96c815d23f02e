"""`modelarts-gateway run`: a gateway in a process of its own, around real commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.lifecycle.command import command_environment
from gateway.twin import IRIS_ID, LLM_ID, Twin
from tests.support.tools import lacking
from tests.support.twin import twin_in_thread

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 40

_SHOW = """
import json, os, urllib.request
call = urllib.request.Request(
    os.environ["OPENAI_BASE_URL"] + "/models", headers={"Authorization": "Bearer x"})
models = json.load(urllib.request.urlopen(call))
print(json.dumps({"models": [m["id"] for m in models["data"]], "environ": dict(os.environ)}))
"""
_NODE = """
const answer = await fetch(`${process.env.OPENAI_BASE_URL}/models`);
console.log((await answer.json()).data[0].id);
process.exitCode = 4;
"""


@pytest.fixture
def twin() -> Iterator[Twin]:
    with twin_in_thread() as running:
        yield running


@pytest.fixture
def config(twin: Twin, tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("twin-api-key")
    document: dict[str, Any] = {
        "drain": {"timeout": "2s"},
        "identities": {"default": {"method": "api_key", "key_file": str(tmp_path / "key")}},
        "services": {
            "my-iris": {"url": twin.service_url(IRIS_ID, version="v2")},
            "llm": {"url": twin.service_url(LLM_ID, version="v2"), "methods": ["GET", "POST"]},
        },
    }
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(document))
    return file


def start(config: Path, *words: str, **environ: str) -> subprocess.Popen[str]:
    """Start a command with a gateway around it, without a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "run", "--config", str(config), *words],
        env={**os.environ, "NO_PROXY": "", "no_proxy": "", **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return exit code and both outputs."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def test_the_command_calls_services_and_knows_no_credential(config: Path) -> None:
    """It finds the gateway in its environment, and nothing of ours beside it."""
    secrets = {"OS_PASSWORD": "hunter2", "OS_USERNAME": "infer", "GATEWAY_LOG_LEVEL": "INFO"}
    code, out, err = ended(
        start(config, "--openai", "llm", "--", sys.executable, "-c", _SHOW,
              HTTPS_PROXY="http://proxy.invalid:1", HTTP_PROXY="http://proxy.invalid:1", **secrets)
    )  # fmt: skip

    assert code == 0, err
    told = json.loads(out)
    assert told["models"] == ["twin-llm"]
    environ = told["environ"]
    url = environ["GATEWAY_URL"]
    assert environ["MY_IRIS_URL"] == f"{url}/my-iris"
    assert environ["LLM_URL"] == f"{url}/llm"
    assert environ["OPENAI_BASE_URL"] == f"{url}/llm/v1"
    assert environ["OPENAI_API_KEY"] == "unused"
    assert not [n for n in environ if n.startswith("OS_")]
    assert [n for n in environ if n.startswith("GATEWAY_")] == ["GATEWAY_URL"]


@pytest.mark.long
def test_node_runs_too_and_its_code_is_ours(config: Path) -> None:
    node = shutil.which("node")
    if node is None:
        lacking("node is not installed")
    code, out, err = ended(
        start(config, "--openai", "llm", "--", node, "--input-type=module", "-e", _NODE)
    )

    assert (code, out) == (4, "twin-llm\n"), err


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL),
        pytest.param(("sh", "-c", "kill -SEGV $$"), 128 + signal.SIGSEGV, marks=pytest.mark.long),
        pytest.param(("no-such-command-anywhere",), 127, marks=pytest.mark.long),
        pytest.param(("/dev/null",), 126, marks=pytest.mark.long),
    ],
)
def test_the_exit_code_is_the_command_s(config: Path, command: tuple[str, ...], code: int) -> None:
    """As a shell says it, however the command ended."""
    assert ended(start(config, "--", *command))[0] == code


def test_signals_are_passed_on(config: Path) -> None:
    """The command decides what they mean, and its options are its own."""
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = start(config, "--", "sh", "-c", script, "--openai")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)

    code, out, _ = ended(process)
    assert (code, out) == (5, "got it\n")


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_command_that_ignores_sigterm_is_killed(config: Path, times: int) -> None:
    """After `drain.timeout`, or at the second SIGTERM."""
    script = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done"
    process = start(config, "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "heard\n"
    if times == 2:
        process.send_signal(signal.SIGTERM)

    code, _, err = ended(process)
    assert code == 128 + signal.SIGKILL
    assert ("has not ended 2 s after SIGTERM" in err) == (times == 1)


def test_what_cannot_be_run_is_said(config: Path) -> None:
    """A service that does not exist, and no command at all."""
    code, _, err = ended(start(config, "--openai", "gpt", "--", "true"))
    assert code == 2
    assert "--openai: gpt is not a service; use one of: my-iris, llm" in err
    assert ended(start(config))[0] == 2


@pytest.mark.long
def test_a_gateway_may_run_within(config: Path) -> None:
    """It does not take GATEWAY_URL for a setting."""
    inner = [sys.executable, "-m", "gateway", "check", "--config", str(config)]
    code, _, err = ended(start(config, "--", *inner))

    assert code == 0, err


def test_the_environment_of_a_command_is_a_function() -> None:
    """Of ours, with what is for us left out; a base URL that ends in /v1 gets no second one."""
    services = {"maas": "/openai/v1", "a-b": ""}
    environ = {"OS_X": "1", "gateway_y": "2", "PATH": "/bin", "https_proxy": "x", "NO_PROXY": "me"}
    made = command_environment(environ, "http://127.0.0.1:1", services, openai="maas")

    assert made == {
        "PATH": "/bin",
        "https_proxy": "x",
        "NO_PROXY": "me",
        "GATEWAY_URL": "http://127.0.0.1:1",
        "MAAS_URL": "http://127.0.0.1:1/maas",
        "A_B_URL": "http://127.0.0.1:1/a-b",
        "OPENAI_BASE_URL": "http://127.0.0.1:1/maas",
        "OPENAI_API_KEY": "unused",
    }
    made = command_environment(environ | {"HTTP_PROXY": "x"}, "u", {}, openai=None)
    assert (made["NO_PROXY"], made["no_proxy"]) == ("me,127.0.0.1", "me,127.0.0.1")
