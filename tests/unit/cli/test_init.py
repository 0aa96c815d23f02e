"""`init`: what it writes is what `check` accepts, holds no secret, and never waits in a pipe."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.identity.secret import PLACEHOLDER
from gateway.settings.template import KINDS, target_of

OLD = "https://modelarts-infers-1.example/v1/infers/eb3e0c54-3dfa-4750-af0c-95c45e5d3e83"
NEW = "https://infer.ap-southeast-3.example/v2/infers/eb3e0c54"
OPENSTACK = {
    "OS_AUTH_URL": "https://iam.example/v3",
    "OS_USERNAME": "infer: #1",
    "OS_USER_DOMAIN_NAME": "account",
    "OS_PROJECT_NAME": "region",
    "OS_PASSWORD": "password-canary",
}


def init(folder: Path, *words: str, environ: dict[str, str] | None = None) -> Result:
    """Run it with its file in `folder`, without a terminal."""
    clean = dict.fromkeys(name for name in os.environ if name.startswith(("OS_", "GATEWAY_")))
    words = ("init", "--output", str(folder / "gateway.yaml"), *words)
    return CliRunner().invoke(main, words, env={**clean, **(environ or {})})


def check(folder: Path, environ: dict[str, str] | None = None) -> Result:
    words = ["check", "--config", str(folder / "gateway.yaml")]
    clean = dict.fromkeys(name for name in os.environ if name.startswith(("OS_", "GATEWAY_")))
    return CliRunner().invoke(main, words, env={**clean, **(environ or {})})


@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize("url", [OLD, NEW, "http://127.0.0.1:8081/x"])
def test_check_accepts_what_init_writes(tmp_path: Path, method: str, url: str) -> None:
    """Every method, with nothing but a URL; where a secret belongs it says what is missing."""
    ran = init(tmp_path, "--url", url, "--method", method)
    assert ran.exit_code == 0, ran.output

    checked = check(tmp_path)
    assert checked.exit_code == 0, checked.output
    assert ("still holds init's placeholder" in checked.output) == (method != "none")
    settings = yaml.safe_load((tmp_path / "gateway.yaml").read_text())
    assert settings["identities"]["default"]["method"] == method
    assert settings["services"]["model"]["url"] == url
    if method != "none":
        secret = tmp_path / KINDS[method].secret_name
        assert secret.read_text().strip() == PLACEHOLDER
        assert secret.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "row",
    [
        (OLD, "password", "model", OLD, ["POST"]),
        (NEW, "api_key", "model", NEW, ["GET", "POST"]),
        (f"{NEW}/v1/chat/completions", "api_key", "llm", NEW, ["GET", "POST"]),
        (
            "https://api-ap-southeast-1.modelarts-maas.com/openai/v1/chat/completions",
            "api_key",
            "llm",
            "https://api-ap-southeast-1.modelarts-maas.com/openai",
            ["GET", "POST"],
        ),
    ],
)
def test_the_url_says_what_is_most_likely(
    tmp_path: Path, row: tuple[str, str, str, str, list[str]]
) -> None:
    """New services and MaaS take API keys; a complete chat URL is shortened to the service's."""
    url, method, name, written, methods = row
    assert init(tmp_path, "--url", url).exit_code == 0
    settings = yaml.safe_load((tmp_path / "gateway.yaml").read_text())
    assert settings["identities"]["default"]["method"] == method
    assert settings["services"][name] == {"url": written, "methods": methods}
    assert check(tmp_path).exit_code == 0


def test_openstacks_variables_are_taken_but_the_password(tmp_path: Path) -> None:
    """Values that YAML would read otherwise are quoted."""
    ran = init(tmp_path, "--url", OLD, environ=OPENSTACK)
    assert ran.exit_code == 0
    text = (tmp_path / "gateway.yaml").read_text()
    identity = yaml.safe_load(text)["identities"]["default"]
    assert identity == {
        "method": "password",
        "auth_url": "https://iam.example/v3",
        "username": "infer: #1",
        "user_domain": "account",
        "project": "region",
        "password_file": "iam-password",
    }
    assert "CHANGE" not in text
    assert "canary" not in text + ran.output
    assert check(tmp_path).exit_code == 0
    assert check(tmp_path, OPENSTACK).exit_code == 0


def test_flags_set_keys_and_files(tmp_path: Path) -> None:
    """A secret that exists is left alone, and `check` has nothing to say."""
    (tmp_path / "mine").write_text("key-canary\n")
    ran = init(
        tmp_path, "--url", OLD, "--method", "header", "--name", "iris", "--secret-file", "mine",
        "--set", "header=apikey",
    )  # fmt: skip
    assert ran.exit_code == 0
    assert (tmp_path / "mine").read_text() == "key-canary\n"
    settings = yaml.safe_load((tmp_path / "gateway.yaml").read_text())
    assert settings["identities"]["default"]["header"] == "apikey"
    checked = check(tmp_path)
    assert (checked.exit_code, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "--url: required; the service's page shows it"),
        (("--url", "models.example"), "--url: 'models.example' is not a URL"),
        (("--url", "https://u:canary@h/x"), "--url: holds user information"),
        (("--url", OLD, "--name", "My Model"), "did you mean my-model?"),
        (("--url", OLD, "--set", "password=canary"), "'password' is not a key to be set here"),
        (
            ("--url", OLD, "--method", "header", "--set", "header=Host"),
            "identities.default.header: 'Host' may not be set",
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    tmp_path: Path, words: tuple[str, ...], problem: str
) -> None:
    """With the flag or key, and without repeating what may be a secret."""
    ran = init(tmp_path, *words)
    assert ran.exit_code == 2
    assert problem in ran.output
    assert "canary" not in ran.output
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_not_replaced_unless_forced(tmp_path: Path) -> None:
    """Somebody may have spent an hour on it."""
    (tmp_path / "gateway.yaml").write_text("mine")
    ran = init(tmp_path, "--url", OLD)
    assert ran.exit_code == 2
    assert (tmp_path / "gateway.yaml").read_text() == "mine"
    assert init(tmp_path, "--url", OLD, "--force").exit_code == 0
    assert "services" in (tmp_path / "gateway.yaml").read_text()


def test_it_can_be_printed(tmp_path: Path) -> None:
    """To standard output, and no secret file is made."""
    ran = init(tmp_path, "--url", NEW, "--output", "-")
    assert ran.exit_code == 0
    assert yaml.safe_load(ran.stdout)["services"]["model"]["url"] == NEW
    assert list(tmp_path.iterdir()) == []


def test_the_placeholder_is_never_sent(tmp_path: Path) -> None:
    """`serve` and `doctor` refuse it before anybody is asked: a wrong password locks an account."""
    assert init(tmp_path, "--url", OLD, "--set", "auth_url=http://127.0.0.1:1").exit_code == 0
    config = str(tmp_path / "gateway.yaml")
    served = CliRunner().invoke(main, ["serve", "--config", config])
    assert served.exit_code == 2
    assert "it still holds init's placeholder; write the secret into it" in served.output


def test_a_pipe_never_hangs(tmp_path: Path) -> None:
    """Without a URL it ends at once, even if nobody closes its standard input."""
    read_fd, write_fd = os.pipe()
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "gateway", "init", "--output", str(tmp_path / "g.yaml")],
            stdin=read_fd,
            capture_output=True,
            text=True,
            timeout=60,
            env={k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")},
            check=False,
        )
    finally:
        os.close(read_fd)
        os.close(write_fd)
    assert ended.returncode == 2
    assert "--url: required" in ended.stderr


def test_a_terminal_is_asked(tmp_path: Path) -> None:
    """URL, kind, name, and what the kind needs; a wrong URL is asked for again; no secret is."""
    answers = ["nonsense", NEW, "header", "llm", "apikey"]
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OS_"))}
        os.execve(sys.executable, [sys.executable, "-m", "gateway", "init"], clean)
    said = b""
    try:
        for answer in answers:
            said += _until_prompt(fd)
            os.write(fd, f"{answer}\n".encode())
        said += _rest(fd)
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 0, said
    settings = yaml.safe_load((tmp_path / "gateway.yaml").read_text())
    assert settings["services"]["llm"]["url"] == NEW
    assert settings["identities"]["default"]["header"] == "apikey"
    assert b"is not a URL" in said
    assert check(tmp_path).exit_code == 0


def _until_prompt(fd: int) -> bytes:
    """Read until it asks something: its line ends with a colon and a space."""
    said = b""
    while not said.endswith(b": "):
        ready, _, _ = select.select([fd], [], [], 60)
        assert ready, said
        said += os.read(fd, 4096)
    return said


def _rest(fd: int) -> bytes:
    said = b""
    try:
        while piece := os.read(fd, 4096):
            said += piece
    except OSError:  # the terminal is gone
        pass
    return said


def test_a_region_is_taken_from_the_host() -> None:
    """Or one that exists."""
    assert target_of("https://infer.cn-north-4.example/x").region == "cn-north-4"
    assert target_of("https://models.example/x").region == "ap-southeast-1"
