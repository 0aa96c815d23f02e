"""`check`: what it says of the cloud, the network and certificates, and that it logs in once."""

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from gateway.cli import main
from gateway.twin import IRIS_ID, Account, Clock, Twin
from tests.cloud.serving import password_identity
from tests.support.black_hole import black_hole
from tests.support.twin import twin_in_thread
from tests.unit.cli.conftest import Run, https_server

LOGGED_IN = (
    "OK    identities.default  logged in as infer of my-account for project ap-southeast-1; "
    "roles: te_admin; token of 183 bytes"
)


def login_attempts(twin: Twin) -> int:
    """Logins that IAM has seen."""
    return int(requests.get(f"{twin.url}/twin/stats", timeout=60).json()["login_attempts"])


def configuration(
    twin: Twin, folder: Path, *, services: Any = None, **identity: Any
) -> dict[str, Any]:
    """The twin's user and its service `iris`, or `services`."""
    return {
        "identities": {"default": password_identity(twin.auth_url, folder, **identity)},
        "services": services or {"iris": {"url": twin.service_url(IRIS_ID)}},
    }


def anonymous(url: str, **keys: Any) -> dict[str, Any]:
    """One service that needs no token."""
    return {
        "identities": {"default": {"method": "none"}},
        "services": {"iris": {"url": url, **keys}},
    }


# ---- without --online -------------------------------------------------------------------------


def test_good_configuration_is_good_without_asking_anybody(run: Run, tmp_path: Path) -> None:
    """Nothing is connected to: neither IAM nor the service is there."""
    identity = password_identity("http://127.0.0.1:1/v3", tmp_path)
    services = {"iris": {"url": "http://127.0.0.1:1/x"}}
    ran = run("check", config={"identities": {"default": identity}, "services": services})
    assert (ran.code, ran.out) == (0, "good: 1 service, 1 identity\n")


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ("", "it is empty; write the secret into it"),
        ("\n", "it is empty; write the secret into it"),
        (" \t\n\n", "nothing but white space; write the secret into it"),
        ("x" * 4097, "longer than 4096 characters, which no password is; name the file"),
    ],
)
def test_secret_that_cannot_be_one_is_a_problem(
    run: Run, tmp_path: Path, content: str, remedy: str
) -> None:
    """Without asking IAM, which would count it towards the account's lock."""
    identity = password_identity("http://127.0.0.1:1/v3", tmp_path, password=content)
    services = {"iris": {"url": "http://127.0.0.1:1/x"}}
    ran = run("check", config={"identities": {"default": identity}, "services": services})
    assert (ran.code, ran.out) == (2, "")
    assert "identities.default.password_file: " in ran.err
    assert remedy in ran.err


def test_next_password_may_be_missing_or_empty_but_not_anything(run: Run, tmp_path: Path) -> None:
    """It is looked at as the first one is."""
    file = tmp_path / "next"
    identity = password_identity("http://127.0.0.1:1/v3", tmp_path, next_password_file=str(file))
    config = {
        "identities": {"default": identity},
        "services": {"iris": {"url": "http://127.0.0.1:1/x"}},
    }
    assert run("check", config=config).code == 0
    file.touch()
    assert run("check", config=config).code == 0
    file.write_text(" ")
    ran = run("check", config=config)
    assert ran.code == 2
    assert "identities.default.next_password_file: " in ran.err


def test_secret_that_looks_wrong_or_is_open_to_all_is_warned_of(run: Run) -> None:
    """With the remedy; not if a folder above keeps the others out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        identity = password_identity("http://127.0.0.1:1/v3", folder, password=" canary ")
        services = {"iris": {"url": "http://127.0.0.1:1/x"}}
        config = {"identities": {"default": identity}, "services": services}
        (folder / "password").chmod(0o644)
        ran = run("check", config=config)
        assert (ran.code, "can read" in ran.err) == (0, False)
        assert "begins or ends with white space" in ran.err
        folder.chmod(0o755)
        ran = run("check", config=config)
        assert f"every user of this machine can read {folder / 'password'}; chmod 600" in ran.err
        (folder / "password").chmod(0o640)
        assert "can read" not in run("check", config=config).err
        assert "canary" not in ran.err


def test_refusals_that_a_restart_forgets_are_warned_of(run: Run, tmp_path: Path) -> None:
    """Unless there is a directory for them, which can be written."""
    identity = password_identity("http://127.0.0.1:1/v3", tmp_path)
    config: dict[str, Any] = {
        "identities": {"default": identity},
        "services": {"iris": {"url": "http://127.0.0.1:1/x"}},
    }
    assert (
        "state_dir: not set, so refused logins are not remembered"
        in run("check", config=config).err
    )
    config["state_dir"] = str(tmp_path / "missing")
    assert "is not there, so refused logins are not" in run("check", config=config).err
    config["state_dir"] = str(tmp_path)
    assert run("check", config=config).err == ""


@pytest.mark.parametrize("words", [("check",), ("check", "--online")])
def test_every_bad_certificate_file_is_named(
    run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Before anybody is asked, and all at once."""
    (tmp_path / "bad.pem").write_text("no certificate")
    tls = {"ca_file": str(tmp_path / "bad.pem")}
    identity = password_identity("https://127.0.0.1:1/v3", tmp_path, tls=tls)
    services = {"iris": {"url": "https://127.0.0.1:1/x", "tls": tls}}
    ran = run(*words, config={"identities": {"default": identity}, "services": services})
    assert (ran.code, ran.out) == (2, "")
    assert "services.iris.tls: a certificate or key cannot be used" in ran.err
    assert "identities.default.tls: a certificate or key cannot be used" in ran.err


def test_wrong_configuration_ends_with_2(run: Run) -> None:
    """A key that does not exist."""
    assert run("check", "--online", config={"servces": {}}).code == 2


def test_what_is_in_force_is_shown_with_its_origin(run: Run, tmp_path: Path) -> None:
    """Every value, one line each, in columns; a default is one, too."""
    identity = password_identity("http://127.0.0.1:1/v3", tmp_path, password="canary")
    services = {"iris": {"url": "http://127.0.0.1:1/x"}}
    ran = run("check", "--show", config={"identities": {"default": identity}, "services": services})
    assert ran.code == 0
    rows = [line.split(maxsplit=2) for line in ran.lines[:-1]]
    file = tmp_path / "gateway.yaml"
    assert ["services.iris.url", "http://127.0.0.1:1/x", f"file {file}:1"] in rows
    assert ["services.iris.max_body", "12MiB", "default"] in rows
    assert len({line.rindex("default") for line in ran.lines if line.endswith(" default")}) == 1
    assert ran.lines[-1].startswith("good: ")
    assert "canary" not in ran.out


def test_secret_from_the_environment_is_masked(tmp_path: Path) -> None:
    """That there is one, and which variable holds it, is all that is shown."""
    identity = password_identity("http://127.0.0.1:1/v3", tmp_path, password_file=None)
    file = tmp_path / "gateway.yaml"
    services = {"iris": {"url": "http://127.0.0.1:1/x"}}
    file.write_text(json.dumps({"identities": {"default": identity}, "services": services}))
    environ = {"OS_PASSWORD": "hunter2-canary"}
    ran = CliRunner().invoke(main, ["check", "--show", "--config", str(file)], env=environ)
    assert ran.exit_code == 0, ran.output
    [line] = [line for line in ran.stdout.splitlines() if ".password " in line]
    assert line.split() == ["identities.default.password", "********", "env", "OS_PASSWORD"]
    assert "canary" not in ran.output


# ---- identities -------------------------------------------------------------------------------


def test_all_is_well(run: Run, tmp_path: Path) -> None:
    """One line for each identity and service, one login, and no secret."""
    with twin_in_thread() as twin:
        ran = run("check", "--online", config=configuration(twin, tmp_path))
        assert login_attempts(twin) == 1
    where = twin.url.removeprefix("http://")
    assert ran.lines == [
        LOGGED_IN,
        f"OK    services.iris  connected to {where} without TLS",
        "good: 1 service, 1 identity",
    ]
    assert ran.code == 0
    assert "MIIS" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("identity", "remedy"),
    [
        ({"password": "wrong-canary"}, "refused: IAM refuses the password: check the secret"),
        ({"user_domain": "nowhere", "project_domain": "my-account"}, "user_domain"),
        ({"project": "nowhere"}, "refused: IAM refuses the project: check project"),
        ({"project_domain": "nowhere"}, "project_domain and the user's role"),
    ],
)
def test_refused_login_is_explained(
    run: Run, tmp_path: Path, identity: dict[str, str], remedy: str
) -> None:
    """With what to correct; and it is tried once only, because more would lock the account."""
    with twin_in_thread() as twin:
        ran = run("check", "--online", config=configuration(twin, tmp_path, **identity))
        assert login_attempts(twin) == 1
    assert ran.code == 3
    assert ran.lines[0].startswith("FAIL  identities.default  refused: ")
    assert remedy in ran.lines[0]
    assert ran.lines[1].startswith("OK    services.iris  ")
    assert "canary" not in ran.out + ran.err
    assert "good" not in ran.out


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ({"fault": "locked"}, "refused: IAM has locked the user"),
        ({"fault": "forbidden"}, "refused: IAM forbids the login"),
        ({"fault": "throttled"}, "throttled: IAM throttles logins"),
        ({"fault": "status"}, "bad_reply: IAM failed"),
        ({"fault": "no-token"}, "bad_reply: IAM's response is invalid"),
        ({"fault": "reset"}, "network: IAM closed the connection without a response"),
    ],
)
def test_failed_login_is_explained(
    run: Run, tmp_path: Path, fault: dict[str, str], finding: str
) -> None:
    """Whatever IAM does, one line says it, after one login."""
    with twin_in_thread() as twin:
        requests.put(f"{twin.url}/twin/faults", json={"iam": [fault]}, timeout=60)
        ran = run("check", "--online", config=configuration(twin, tmp_path))
        assert login_attempts(twin) == 1
    assert ran.code == 3
    assert ran.lines[0].startswith(f"FAIL  identities.default  {finding}")


def test_refused_account_is_not_tried_again(run: Run, tmp_path: Path) -> None:
    """Two identities of one user with a wrong password make one refused login, not two."""
    with twin_in_thread() as twin:
        config = configuration(twin, tmp_path, password="wrong")
        config["identities"]["other"] = config["identities"]["default"] | {"project": "other"}
        ran = run("check", "--online", config=config)
        assert login_attempts(twin) == 1
    assert ran.lines[1].startswith("FAIL  identities.other  not tried: the same account")
    assert ran.code == 3


@pytest.mark.parametrize(
    ("ahead_s", "text"),
    [
        (28, None),
        (-28, None),
        (40, "behind IAM's"),
        (-40, "ahead of IAM's"),
    ],
)
def test_clock_skew_is_warned_about(
    run: Run, tmp_path: Path, ahead_s: float, text: str | None
) -> None:
    """Beyond 30 s, with the side; it is no failure, since tokens do not suffer."""
    clock = Clock(wall=lambda: datetime.now(UTC) + timedelta(seconds=ahead_s))
    with twin_in_thread(clock=clock) as twin:
        ran = run("check", "--online", config=configuration(twin, tmp_path))
    warnings = [line for line in ran.lines if line.startswith("WARN  identities.default  ")]
    assert ran.code == 0
    assert [text in line for line in warnings if text] == ([True] if text else [])
    assert len(warnings) == (text is not None)


def test_clock_skew_is_told_even_if_the_login_fails(run: Run, tmp_path: Path) -> None:
    """A clock may be why."""
    clock = Clock(wall=lambda: datetime.now(UTC) + timedelta(hours=1))
    with twin_in_thread(clock=clock) as twin:
        ran = run("check", "--online", config=configuration(twin, tmp_path, password="wrong"))
    assert ran.lines[1].startswith("WARN  identities.default  this machine's clock is ")
    assert ran.code == 3


@pytest.mark.parametrize(
    ("auth_url", "text"),
    [
        ("http://127.0.0.1:1/v3", "127.0.0.1:1 refuses connections: check address and port"),
        ("http://iam.invalid/v3", "the host name iam.invalid cannot be resolved"),
    ],
)
def test_iam_that_cannot_be_reached(run: Run, tmp_path: Path, auth_url: str, text: str) -> None:
    """Said of the identity; the services are looked at all the same."""
    with twin_in_thread() as twin:
        config = configuration(twin, tmp_path)
        config["identities"]["default"]["auth_url"] = auth_url
        ran = run("check", "--online", config=config)
    assert ran.code == 3
    assert ran.lines[0].startswith(f"FAIL  identities.default  {text}")
    assert ran.lines[1].startswith("OK    services.iris  ")


def test_iam_with_an_unknown_certificate_gets_no_password(run: Run, tmp_path: Path) -> None:
    """The certificate is judged first; with its authority the login is made."""
    with https_server("127.0.0.1", days=13) as (where, ca_file):
        config = {
            "identities": {"default": password_identity(f"https://{where}/v3", tmp_path)},
            "services": {"iris": {"url": f"https://{where}/x", "tls": {"ca_file": ca_file}}},
        }
        ran = run("check", "--online", config=config)
        assert ran.lines[0] == (
            f"FAIL  identities.default  the certificate of {where} is not trusted: set "
            "tls.ca_file to its authority"
        )
        assert ran.code == 3
        config["identities"]["default"]["tls"] = {"ca_file": ca_file}
        ran = run("check", "--online", config=config)
        assert ran.lines[0] == (
            "WARN  identities.default  its certificate expires in 13 d: renew it"
        )
        assert ran.lines[1] == LOGGED_IN
        assert ran.code == 0


def test_secret_that_cannot_be_used_is_the_configurations_fault(run: Run, tmp_path: Path) -> None:
    """An empty file: exit code 2, and IAM is not asked."""
    with twin_in_thread() as twin:
        ran = run("check", "--online", config=configuration(twin, tmp_path, password=""))
        assert login_attempts(twin) == 0
    assert ran.code == 2
    assert ran.lines[0].startswith("FAIL  identities.default  secret file ")


def test_identities_that_need_no_login(run: Run, tmp_path: Path) -> None:
    """A token in a file is measured, not tried; without a token there is nothing to try."""
    (tmp_path / "token").write_text("MIIS-canary")
    with twin_in_thread() as twin:
        url = twin.service_url(IRIS_ID)
        config = {
            "identities": {
                "default": {"method": "file", "token_file": str(tmp_path / "token")},
                "nobody": {"method": "none"},
            },
            "services": {"iris": {"url": url}, "open": {"url": url, "identity": "nobody"}},
        }
        ran = run("check", "--online", config=config)
        assert login_attempts(twin) == 0
    assert ran.code == 0
    assert ran.lines[0].startswith("OK    identities.default  token of 11 bytes; ")
    assert ran.lines[1] == "OK    identities.nobody  no token is sent"
    assert "canary" not in ran.out


def test_application_credential_is_logged_in(run: Run, tmp_path: Path) -> None:
    """Once, for the project it brings."""
    account = Account()
    (tmp_path / "secret").write_text(account.credential_secret)
    with twin_in_thread() as twin:
        config = configuration(twin, tmp_path)
        config["identities"]["default"] = {
            "method": "application_credential",
            "auth_url": twin.auth_url,
            "id": account.credential_id,
            "secret_file": str(tmp_path / "secret"),
        }
        ran = run("check", "--online", config=config)
        assert login_attempts(twin) == 1
    assert ran.lines[0] == LOGGED_IN
    assert ran.code == 0


# ---- services ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://127.0.0.1:1/x", "127.0.0.1:1 refuses connections: check address and port"),
        ("http://models.invalid/x", "the host name models.invalid cannot be resolved"),
    ],
)
def test_service_that_cannot_be_reached(run: Run, url: str, text: str) -> None:
    """Refused, and unknown to DNS."""
    ran = run("check", "--online", config=anonymous(url))
    assert ran.code == 3
    assert ran.lines[1].startswith(f"FAIL  services.iris  {text}")


def test_service_that_is_a_black_hole(run: Run) -> None:
    """Given up after `timeouts.connect`: nothing refuses, nothing answers."""
    with black_hole() as where:
        config = anonymous(f"http://{where}/x", timeouts={"connect": 0.2})
        ran = run("check", "--online", config=config)
    assert ran.code == 3
    assert ran.lines[1] == (
        f"FAIL  services.iris  {where} does not answer within 0.2 s: check address, routes and "
        "firewalls"
    )


def test_service_without_tls_where_it_is_expected(run: Run) -> None:
    """A wrong scheme or port."""
    with twin_in_thread() as twin:
        ran = run("check", "--online", config=anonymous(twin.url.replace("http:", "https:")))
    assert ran.code == 3
    assert "no TLS connection to" in ran.lines[1]
    assert ran.lines[1].endswith("can be made: check scheme and port")


@pytest.mark.parametrize(
    ("days", "warning"),
    [
        (15, None),
        (14, None),
        (13, "its certificate expires in 13 d: renew it"),
        (0.5, "its certificate expires in 12 h: renew it"),
    ],
)
def test_certificate_that_ends_soon_is_warned_about(
    run: Run, days: float, warning: str | None
) -> None:
    """From less than 14 days on; it is no failure yet."""
    with https_server("127.0.0.1", days=days) as (where, ca_file):
        ran = run(
            "check", "--online", config=anonymous(f"https://{where}/x", tls={"ca_file": ca_file})
        )
    assert ran.code == 0
    assert ran.lines[1] == f"OK    services.iris  connected to {where} over TLS"
    rest = [f"WARN  services.iris  {warning}"] if warning else []
    assert ran.lines[2:-1] == rest


@pytest.mark.parametrize(
    ("names", "days", "days_ago", "text"),
    [
        (["127.0.0.1"], -1, 30, "has expired: renew it, or set this machine's clock"),
        (["127.0.0.1"], 30, -1, "is not valid yet: set this machine's clock"),
        (["127.0.0.9"], 30, 1, "is not for 127.0.0.1: check the host, or tls.server_name"),
        (["a.example"], 30, 1, "is not for 127.0.0.1: check the host, or tls.server_name"),
    ],
)
def test_bad_certificate_is_explained(
    run: Run, names: list[str], days: float, days_ago: float, text: str
) -> None:
    """Each in its own words, with the remedy."""
    with https_server(*names, days=days, days_ago=days_ago) as (where, ca_file):
        ran = run(
            "check", "--online", config=anonymous(f"https://{where}/x", tls={"ca_file": ca_file})
        )
    assert ran.code == 3
    assert ran.lines[1] == f"FAIL  services.iris  the certificate of {where} {text}"


@pytest.mark.parametrize(
    ("tls", "code", "text"),
    [
        ({}, 3, "is not trusted: set tls.ca_file to its authority"),
        ({"verify": False}, 0, "connected to"),
        ({"ca_file": "ours", "server_name": "models.example"}, 0, "connected to"),
        ({"ca_file": "ours", "server_name": "other.example"}, 3, "is not for other.example"),
    ],
)
def test_tls_settings_are_those_of_the_service(
    run: Run, tls: dict[str, Any], code: int, text: str
) -> None:
    """As `serve` would connect: authority, name and, if told so, without looking."""
    with https_server("models.example") as (where, ca_file):
        if "ca_file" in tls:
            tls = tls | {"ca_file": ca_file}
        ran = run("check", "--online", config=anonymous(f"https://{where}/x", tls=tls))
    assert ran.code == code
    assert text in ran.lines[1]
