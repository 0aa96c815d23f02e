"""`doctor`: lines, summary, colour, exit codes, and what it must never do.

What it says of the stand-in cloud's faults is in tests/cloud/test_doctor.py.
"""

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from gateway.cli import main
from gateway.twin import IRIS_ID, Account, Clock, Twin
from tests.cloud.serving import password_identity, served_gateway
from tests.support.black_hole import black_hole
from tests.support.demo import ROOT
from tests.support.twin import fetch_token, twin_in_thread
from tests.unit.cli.conftest import https_server

NOT_OURS = ("PROXY", "CA_BUNDLE", "SSL", "GATEWAY_", "OS_", "COLOR", "TERM")
DEAD = "http://127.0.0.1:1/x"


class Doctor:
    """What it said to a configuration, and how it ended."""

    def __init__(
        self, config: dict[str, Any], folder: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        file = folder / "gateway.yaml"
        file.write_text(json.dumps({"admin_listen": "127.0.0.1:1"} | config))
        clean: dict[str, str | None] = dict.fromkeys(
            name for name in os.environ if any(part in name.upper() for part in NOT_OURS)
        )
        words = ["doctor", "--config", str(file)]
        ran = CliRunner().invoke(main, words, env=clean | dict(environ or {}), prog_name="x")
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exc_info
        assert ran.stderr == ""
        self.text = ran.stdout
        self.code = ran.exit_code
        self.lines = ran.stdout.splitlines()

    def line(self, about: str, step: str) -> str:
        """Return the one line on a step, from its level on, with single spaces."""
        lines = [" ".join(line.split()) for line in self.lines[:-1]]
        [found] = [line for line in lines if line.split(" ", 1)[1].startswith(f"{about} {step} ")]
        return found

    def about(self, about: str) -> list[str]:
        """Return the steps that have a line."""
        rows = (line.split() for line in self.lines[:-1])
        return [row[2] for row in rows if row[1] == about]


def logins(twin: Twin) -> int:
    """Logins that IAM has seen."""
    return int(requests.get(f"{twin.url}/twin/stats", timeout=60).json()["login_attempts"])


def of_twin(twin: Twin, folder: Path, **identity: Any) -> dict[str, Any]:
    """The twin's user and its service `iris`."""
    return {
        "identities": {"default": password_identity(twin.auth_url, folder, **identity)},
        "services": {"iris": {"url": twin.service_url(IRIS_ID)}},
    }


def anonymous(url: str, **keys: Any) -> dict[str, Any]:
    """One service that needs no token."""
    return {
        "identities": {"default": {"method": "none"}},
        "services": {"iris": {"url": url, **keys}},
    }


# ---- how it is said ---------------------------------------------------------------------------


def test_help_names_the_container_as_the_manifests_do() -> None:
    """So that its example can be pasted."""
    shown = CliRunner().invoke(main, ["doctor", "--help"]).output
    [container] = re.findall(r" -c (\S+) ", shown)
    manifests = sorted((ROOT / "deploy" / "kubernetes").glob("sidecar*.yaml"))
    assert manifests
    for manifest in manifests:
        assert f"- name: {container}\n" in manifest.read_text(), manifest


def test_lines_and_summary_of_a_healthy_cloud(tmp_path: Path) -> None:
    """One line per step, aligned, and at the end that it is good."""
    with twin_in_thread() as twin:
        said = Doctor(of_twin(twin, tmp_path), tmp_path)
        where = twin.url.removeprefix("http://")

    assert said.code == 0
    assert said.lines[-1] == "good"
    assert said.lines[0] == (
        f"OK    configuration  1 service, 1 identity; from {tmp_path / 'gateway.yaml'} and "
        "the environment"
    )
    assert f"OK    services.iris       tcp     connected to {where}" in said.lines
    assert all(line.startswith("OK    ") for line in said.lines[:-1])


def test_summary_says_what_to_do_first(tmp_path: Path) -> None:
    """Causes go before effects, and this machine before others."""
    config = of_twin_that_is_not_there(tmp_path)
    said = Doctor(config, tmp_path)
    assert said.code == 3
    assert said.lines[-1] == (
        "2 failures; fix first: identities.default tcp: 127.0.0.1:1 refuses connections: check "
        "address and port, and whether it is running"
    )
    config["identities"]["other"] = config["identities"]["default"] | {
        "password_file": str(tmp_path / "empty"),
        "username": "other",
    }
    (tmp_path / "empty").touch()
    said = Doctor(config, tmp_path)
    assert said.code == 2
    assert said.lines[-1].startswith("4 failures; fix first: identities.other secret: secret fi")


def of_twin_that_is_not_there(folder: Path) -> dict[str, Any]:
    """A configuration without a cloud."""
    return {
        "identities": {"default": password_identity("http://127.0.0.1:1/v3", folder)},
        "services": {"iris": {"url": DEAD}},
    }


def test_warnings_are_good(tmp_path: Path) -> None:
    """They are counted, and the exit code is 0."""
    with twin_in_thread() as twin:
        said = Doctor(of_twin(twin, tmp_path), tmp_path, {"HTTPS_PROXY": "http://127.0.0.1:1"})
    assert (said.code, said.lines[-1]) == (0, "good, 1 warning")


def test_json_is_one_document(tmp_path: Path) -> None:
    """The same findings for programs; `first` points at the one to see to first."""
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(anonymous(DEAD)))
    ran = CliRunner().invoke(main, ["doctor", "--json", "--config", str(file)])
    document = json.loads(ran.stdout)
    assert (ran.exit_code, document["exit_code"]) == (3, 3)
    assert document["findings"][document["first"]] == {
        "level": "FAIL",
        "about": "services.iris",
        "step": "tcp",
        "text": (
            "127.0.0.1:1 refuses connections: check address and port, and whether it is running"
        ),
        "code": None,
    }


def test_json_tells_of_a_wrong_configuration_too(tmp_path: Path) -> None:
    """No line is printed beside the document."""
    file = tmp_path / "gateway.yaml"
    file.write_text('{"servces": {}}')
    ran = CliRunner().invoke(main, ["doctor", "--json", "--config", str(file)])
    document = json.loads(ran.stdout)
    assert (ran.exit_code, document["exit_code"], document["first"]) == (2, 2, 0)
    assert {found["step"] for found in document["findings"]} == {"configuration"}


def in_terminal(words: list[str], environ: Mapping[str, str]) -> bytes:
    """Run a command with a terminal for its output; return what it printed."""
    master, slave = pty.openpty()
    with subprocess.Popen(words, stdout=slave, stderr=slave, env=dict(environ)) as process:
        os.close(slave)
        printed = b""
        with suppress(OSError):  # EIO: the other end of a pty has been closed
            while piece := os.read(master, 65536):
                printed += piece
        os.close(master)
        process.wait(100)
    return printed


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        pytest.param({"TERM": "xterm", "NO_COLOR": ""}, True, marks=pytest.mark.long),
        pytest.param({"TERM": "xterm", "NO_COLOR": "1"}, False, marks=pytest.mark.long),
        pytest.param({"TERM": "dumb"}, False, marks=pytest.mark.long),
    ],
)
def test_terminal_shows_colour_unless_told_otherwise(
    tmp_path: Path, environ: dict[str, str], coloured: bool
) -> None:
    """Levels are coloured; NO_COLOR counts when it is not empty (no-color.org)."""
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(anonymous(DEAD)))
    words = [sys.executable, "-m", "gateway", "doctor", "--config", str(file)]
    printed = in_terminal(words, environ)
    assert b"FAIL" in printed
    assert (b"\x1b[31m" in printed) is coloured
    assert (b"\x1b[" in printed) is coloured


def test_pipe_sees_no_colour(tmp_path: Path) -> None:
    """Whatever the terminal."""
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(anonymous(DEAD)))
    words = [sys.executable, "-m", "gateway", "doctor", "--config", str(file)]
    done = subprocess.run(
        words, capture_output=True, env={"TERM": "xterm"}, timeout=120, check=False
    )
    assert done.returncode == 3
    assert b"FAIL  services.iris       tcp " in done.stdout
    assert b"\x1b" not in done.stdout


# ---- configuration and surroundings -----------------------------------------------------------


def test_every_problem_of_the_configuration_is_a_line_and_nobody_is_asked(tmp_path: Path) -> None:
    """Exit code 2."""
    said = Doctor(anonymous(DEAD) | {"listen": "nonsense", "servces": {}}, tmp_path)
    assert said.code == 2
    assert [line.split()[:3] for line in said.lines[:-1]] == [
        ["FAIL", "configuration", "servces:"],
        ["FAIL", "configuration", "listen:"],
    ]
    assert said.lines[-1].startswith("2 failures; fix first: configuration: servces: unknown")


def test_bad_certificate_file_is_the_configurations_fault(tmp_path: Path) -> None:
    """And nobody is asked."""
    (tmp_path / "bad.pem").write_text("nothing")
    config = anonymous("https://127.0.0.1:1/x", tls={"ca_file": str(tmp_path / "bad.pem")})
    said = Doctor(config, tmp_path)
    assert said.code == 2
    assert said.lines[0].startswith("FAIL  configuration  services.iris.tls: a certificate or key")
    assert len(said.lines) == 2


def test_risky_settings_are_warnings(tmp_path: Path) -> None:
    """As `check` warns of them."""
    said = Doctor(anonymous(DEAD) | {"listen": "0.0.0.0:8080"}, tmp_path)
    assert said.lines[0].startswith("WARN  configuration  listen: 0.0.0.0:8080 can be reached")


def test_variables_that_are_ignored_are_named_and_ignored(tmp_path: Path) -> None:
    """Neither the login nor the service goes through the proxy; no TLS key is written."""
    keys = tmp_path / "keys"
    proxy = "http://user:canary@127.0.0.1:1"
    environ = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "SSLKEYLOGFILE": str(keys)}
    with https_server("127.0.0.1") as (where, ca_file):
        identity = password_identity(f"https://{where}/v3", tmp_path, tls={"ca_file": ca_file})
        service = {"url": f"https://{where}/v1/infers/{IRIS_ID}", "tls": {"ca_file": ca_file}}
        config = {"identities": {"default": identity}, "services": {"iris": service}}
        said = Doctor(config, tmp_path, environ)
    assert said.code == 0
    assert said.lines[1].startswith("WARN  environment  HTTPS_PROXY, HTTP_PROXY are set and ignor")
    assert said.lines[2].startswith("WARN  environment  SSLKEYLOGFILE is set and ignored: ")
    assert "canary" not in said.text
    assert not keys.exists()


# ---- identities -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text"),
    [("", "it is empty"), ("\n", "it is empty"), ("x" * 200_000, "it is larger than")],
)
def test_secret_that_cannot_be_used_is_a_local_fault(
    tmp_path: Path, content: str, text: str
) -> None:
    """Exit code 2; the way to IAM is looked at, and no login is made."""
    with twin_in_thread() as twin:
        said = Doctor(of_twin(twin, tmp_path, password=content), tmp_path)
        assert logins(twin) == 0
    assert said.code == 2
    assert said.line("identities.default", "secret").startswith("FAIL ")
    assert text in said.line("identities.default", "secret")
    assert said.about("identities.default") == ["secret", "tcp"]


def test_secret_file_that_is_not_there_is_the_configurations_fault(tmp_path: Path) -> None:
    """Named with its path, before anybody is asked."""
    with twin_in_thread() as twin:
        config = of_twin(twin, tmp_path)
        (tmp_path / "password").unlink()
        said = Doctor(config, tmp_path)
        assert logins(twin) == 0
    assert said.code == 2
    assert "identities.default.password_file: " in said.lines[0]
    assert "no such file; mount it or correct the path" in said.lines[0]


@pytest.mark.parametrize("secret", [" padded", "padded ", "padded\n\n", "\tpadded\n"])
def test_white_space_around_a_secret_is_warned_about(tmp_path: Path, secret: str) -> None:
    """One line break at the end is no part of it, anything more is."""
    with twin_in_thread() as twin:
        said = Doctor(of_twin(twin, tmp_path, password=secret), tmp_path)
    text = said.line("identities.default", "secret")
    assert text.startswith("WARN ")
    assert "begins or ends with white space, which counts" in text
    assert "padded" not in said.text


def test_one_line_break_after_a_secret_is_well(tmp_path: Path) -> None:
    """As every editor writes it."""
    with twin_in_thread() as twin:
        said = Doctor(of_twin(twin, tmp_path, password=Account().password + "\n"), tmp_path)
    assert said.code == 0
    assert said.line("identities.default", "secret").startswith("OK ")


def test_secret_from_the_environment_is_named_as_such(tmp_path: Path) -> None:
    """So that a user who corrects a file knows that it is not read."""
    with twin_in_thread() as twin:
        config = of_twin(twin, tmp_path)
        said = Doctor(config, tmp_path, {"OS_PASSWORD": Account().password})
    assert said.line("identities.default", "secret").endswith("read from the environment")
    assert Account().password not in said.text


def test_one_login_per_account_once_it_is_refused(tmp_path: Path) -> None:
    """Two identities of one user make one refused login; services of both are not asked."""
    with twin_in_thread() as twin:
        config = of_twin(twin, tmp_path, password="wrong")
        config["identities"]["other"] = config["identities"]["default"] | {"project": "other"}
        config["services"]["too"] = config["services"]["iris"] | {"identity": "other"}
        said = Doctor(config, tmp_path)
        assert logins(twin) == 1
    assert "not tried: the same account was refused" in said.line("identities.other", "login")
    assert said.line("services.too", "probe") == (
        "WARN services.too probe not tried: identities.other has no token; see above"
    )


def test_login_that_a_running_gateway_knows_to_be_refused_is_not_tried(tmp_path: Path) -> None:
    """It has been counted once already. With a secret of the doctor's own it is tried."""
    with twin_in_thread() as twin:
        config = of_twin(twin, tmp_path, password="wrong")
        identity, url = config["identities"]["default"], config["services"]["iris"]["url"]
        with served_gateway(tmp_path, url, identity) as gateway:
            gateway.until(lambda: gateway.sample("gateway_identity_locked") == 1)
            config["admin_listen"] = gateway.admin
            before = logins(twin)
            said = Doctor(config, tmp_path)
            assert logins(twin) == before
            good = Doctor(config, tmp_path, {"OS_PASSWORD": Account().password})
            assert logins(twin) == before + 1
        alone = Doctor(config, tmp_path)
        assert logins(twin) == before + 2
    assert said.code == 3
    where = config["admin_listen"]
    text = said.line("identities.default", "login")
    assert text.startswith(
        f"FAIL identities.default login not tried: the gateway that runs at {where} has "
    )
    assert good.code == 0
    assert "refused: IAM refuses the password" in alone.line("identities.default", "login")


def test_token_from_a_file_is_tried_at_the_service(tmp_path: Path) -> None:
    """Good or not: nothing else can tell. It is not shown."""
    with twin_in_thread() as twin:
        token = fetch_token(twin.url)
        (tmp_path / "token").write_text(token)
        config = of_twin(twin, tmp_path)
        config["identities"] = {
            "default": {"method": "file", "token_file": str(tmp_path / "token")}
        }
        good = Doctor(config, tmp_path)
        requests.post(f"{twin.url}/twin/expire", timeout=60)
        bad = Doctor(config, tmp_path)
        (tmp_path / "token").write_text("half a token")
        broken = Doctor(config, tmp_path)
        assert logins(twin) == 1
    assert good.code == 0
    assert good.line("services.iris", "clock").startswith("OK ")
    assert bad.code == 3
    assert "the token in token_file is rejected" in bad.line("services.iris", "probe")
    assert broken.code == 2
    assert broken.line("identities.default", "secret").startswith("FAIL ")
    assert token not in good.text + bad.text


def test_missing_identity_is_told_from_the_services_answer(tmp_path: Path) -> None:
    """Method `none` at a service that wants a token."""
    with twin_in_thread() as twin:
        said = Doctor(anonymous(twin.service_url(IRIS_ID)), tmp_path)
    assert said.code == 3
    assert "method none) sends none: configure a login" in said.line("services.iris", "probe")


@pytest.mark.parametrize(("ahead_s", "text"), [(3600, "behind IAM's"), (-3600, "ahead of IAM's")])
def test_clock_skew_is_a_warning(tmp_path: Path, ahead_s: float, text: str) -> None:
    """With the side, and what suffers."""
    clock = Clock(wall=lambda: datetime.now(UTC) + timedelta(seconds=ahead_s))
    with twin_in_thread(clock=clock) as twin:
        said = Doctor(of_twin(twin, tmp_path), tmp_path)
    assert said.code == 0
    assert said.line("identities.default", "clock").startswith("WARN ")
    assert text in said.line("identities.default", "clock")


# ---- networks and certificates ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth_url", "step", "text"),
    [
        ("http://127.0.0.1:1/v3", "tcp", "127.0.0.1:1 refuses connections: check address and port"),
        ("http://iam.invalid/v3", "dns", "the host name iam.invalid cannot be resolved: "),
    ],
)
def test_iam_that_cannot_be_reached(tmp_path: Path, auth_url: str, step: str, text: str) -> None:
    """No login is tried, and the services are looked at all the same."""
    with twin_in_thread() as twin:
        config = of_twin(twin, tmp_path)
        config["identities"]["default"]["auth_url"] = auth_url
        said = Doctor(config, tmp_path)
    assert said.code == 3
    assert text in said.line("identities.default", step)
    assert said.about("identities.default")[-1] == step
    assert said.about("services.iris") == ["tcp", "probe"]


def test_black_hole_is_given_up(tmp_path: Path) -> None:
    """After `timeouts.connect`: nothing refuses, nothing answers."""
    with black_hole() as where:
        said = Doctor(anonymous(f"http://{where}/x", timeouts={"connect": 0.3}), tmp_path)
    assert said.line("services.iris", "tcp") == (
        f"FAIL services.iris tcp {where} does not answer within 0.3 s: check address, routes and "
        "firewalls"
    )


@pytest.mark.parametrize(
    ("certificate", "level", "text"),
    [
        (("127.0.0.1", 100, 1), "OK", "; certificate by trustme v"),
        (("127.0.0.1", 100, 1), "OK", ", 100 d left"),
        (("127.0.0.1", 13, 1), "WARN", "its certificate expires in 13 d: renew it"),
        (("127.0.0.1", -1, 30), "FAIL", "has expired: renew it, or set this machine's clock"),
        (("127.0.0.1", 30, -1), "FAIL", "is not valid yet: set this machine's clock"),
        (("a.example", 30, 1), "FAIL", "is not for 127.0.0.1: check the host, or tls.server_na"),
    ],
)
def test_certificate_is_judged(
    tmp_path: Path, certificate: tuple[str, float, float], level: str, text: str
) -> None:
    """By its end, its name and its authority, of IAM and of services alike."""
    name, days, days_ago = certificate
    with https_server(name, days=days, days_ago=days_ago) as (where, ca_file):
        tls = {"ca_file": ca_file}
        identity = password_identity(f"https://{where}/v3", tmp_path, tls=tls)
        service = {"url": f"https://{where}/v1/infers/{IRIS_ID}", "tls": tls}
        said = Doctor(
            {"identities": {"default": identity}, "services": {"iris": service}}, tmp_path
        )
    assert said.code == (3 if level == "FAIL" else 0)
    for about in ("identities.default", "services.iris"):
        assert said.line(about, "tls").startswith(f"{level} ")
        assert text in said.line(about, "tls")
    assert ("login" in said.about("identities.default")) is (level != "FAIL")


def test_unknown_authority_is_told(tmp_path: Path) -> None:
    """With what to set; and no password is sent there."""
    with https_server("127.0.0.1") as (where, _):
        identity = password_identity(f"https://{where}/v3", tmp_path)
        service = {"url": f"https://{where}/x", "identity": "default"}
        said = Doctor(
            {"identities": {"default": identity}, "services": {"iris": service}}, tmp_path
        )
    assert said.code == 3
    for about in ("identities.default", "services.iris"):
        assert said.line(about, "tls").endswith(
            f"the certificate of {where} is not trusted: set tls.ca_file to its authority"
        )
    assert "login" not in said.about("identities.default")


def test_unverified_certificate_is_not_called_good(tmp_path: Path) -> None:
    """The risk is a warning of the configuration, and the line says that nothing was looked at."""
    with https_server("a.example", days=-1, days_ago=30) as (where, _):
        said = Doctor(anonymous(f"https://{where}/x", tls={"verify": False}), tmp_path)
    assert said.line("services.iris", "tls").endswith("is not looked at (tls.verify: false)")
    assert any("services.iris.tls.verify: false" in line for line in said.lines)


def test_plain_server_where_tls_is_expected(tmp_path: Path) -> None:
    """A wrong scheme or port."""
    with twin_in_thread() as twin:
        said = Doctor(anonymous(twin.url.replace("http:", "https:")), tmp_path)
    assert said.code == 3
    assert said.line("services.iris", "tls").endswith("can be made: check scheme and port")


def test_wrong_path_is_told_from_a_model_that_has_its_own_404(tmp_path: Path) -> None:
    """The former is published nowhere; exit code 3."""
    with twin_in_thread() as twin:
        config = of_twin(twin, tmp_path)
        config["services"]["iris"]["url"] = twin.service_url("nowhere")
        said = Doctor(config, tmp_path)
    assert said.code == 3
    assert said.line("services.iris", "url").startswith(
        "FAIL services.iris url nothing is published at this URL: copy it from"
    )


def test_services_are_asked_at_the_same_time(tmp_path: Path) -> None:
    """None of a dozen responds before all have been asked."""
    all_asked = threading.Barrier(12)

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            all_asked.wait(100)
            self.send_error(405)

        def log_message(self, *_: object) -> None:
            """Be silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x"
        config = anonymous(url, timeouts={"first_byte": "100s"})
        config["services"] = {f"s{n}": config["services"]["iris"] for n in range(12)}
        said = Doctor(config, tmp_path)
        server.shutdown()

    assert not all_asked.broken
    assert [line.split()[1] for line in said.lines if " probe " in line] == [
        f"services.s{n}" for n in range(12)
    ]
    assert said.code == 0
