"""`whoami`: as whom each method logs in, and what can be known of a token without showing it."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from gateway.diagnose.findings import duration_text
from gateway.twin import IRIS_ID, Account, Clock, Twin
from tests.cloud.serving import password_identity
from tests.support.twin import twin_in_thread
from tests.unit.cli.conftest import Ran, Run


def configuration(twin_url: str, **identities: Any) -> dict[str, Any]:
    service = {"url": f"{twin_url}/v1/infers/{IRIS_ID}", "identity": next(iter(identities))}
    return {"identities": identities, "services": {"iris": service}}


def rows(ran: Ran) -> dict[str, str]:
    """What is printed below the name of the one identity."""
    head, *rest = ran.lines
    assert head == "identity default"
    return {line[2:14].strip(): line[15:] for line in rest}


def credential_identity(twin: Twin, folder: Path) -> dict[str, Any]:
    account = Account()
    (folder / "secret").write_text(account.credential_secret)
    return {
        "method": "application_credential",
        "auth_url": twin.auth_url,
        "id": account.credential_id,
        "secret_file": str(folder / "secret"),
    }


@pytest.mark.parametrize("method", ["password", "application_credential"])
def test_login_is_shown_without_its_token(run: Run, tmp_path: Path, method: str) -> None:
    """User, domain, project, roles, times, length and fingerprint, after one login."""
    with twin_in_thread(token_ttl_s=5400) as twin:
        identity = (
            password_identity(twin.auth_url, tmp_path)
            if method == "password"
            else credential_identity(twin, tmp_path)
        )
        began = datetime.now(UTC)
        ran = run("whoami", config=configuration(twin.url, default=identity))
        ended = datetime.now(UTC)
        stats = requests.get(f"{twin.url}/twin/stats", timeout=60).json()
    assert ran.code == 0
    assert stats["login_attempts"] == 1
    shown, account = rows(ran), Account()
    assert shown.pop("method") == method
    assert (shown.pop("user"), shown.pop("domain")) == (account.user, account.domain)
    assert (shown.pop("project"), shown.pop("project id")) == (account.project, account.project_id)
    assert shown.pop("roles") == "te_admin"
    issued = datetime.fromisoformat(shown.pop("issued"))
    assert began - timedelta(seconds=1) <= issued <= ended
    assert datetime.fromisoformat(shown.pop("expires")) == issued + timedelta(seconds=5400)
    assert shown.pop("expires in") in {"1 h 30 min", "1 h 29 min"}
    length, _, mark = shown.pop("token").partition(", fingerprint ")
    assert length == "183 bytes"
    assert len(mark) == 8
    assert float(shown.pop("clock skew").removesuffix(" s")) == pytest.approx(0, abs=1.5)
    assert not shown
    assert "MIIS" not in ran.out + ran.err


def test_time_left_is_counted_by_iams_clock(run: Run, tmp_path: Path) -> None:
    """A clock that is an hour wrong changes when a token expires, not how long it lives."""
    clock = Clock(wall=lambda: datetime.now(UTC) + timedelta(hours=1))
    with twin_in_thread(token_ttl_s=5400, clock=clock) as twin:
        identity = password_identity(twin.auth_url, tmp_path)
        shown = rows(run("whoami", config=configuration(twin.url, default=identity)))
    assert shown["expires in"] in {"1 h 30 min", "1 h 29 min"}
    assert -3602 <= float(shown["clock skew"].removesuffix(" s")) <= -3598


def test_token_in_a_file_is_described(run: Run, tmp_path: Path) -> None:
    """Length and fingerprint are all that can be known."""
    (tmp_path / "token").write_text("MIIS-canary\n")
    identity = {"method": "file", "token_file": str(tmp_path / "token")}
    ran = run("whoami", config=configuration("http://127.0.0.1:1", default=identity))
    mark = hashlib.sha256(b"MIIS-canary").hexdigest()[:8]
    assert ran.code == 0
    assert rows(ran) == {
        "method": "file",
        "expires in": "not known; what writes the file replaces it",
        "token": f"11 bytes, fingerprint {mark}",
    }
    assert "canary" not in ran.out + ran.err


def test_nobody_is_described(run: Run) -> None:
    """Method `none`."""
    ran = run("whoami", config=configuration("http://127.0.0.1:1", default={"method": "none"}))
    assert (ran.code, rows(ran)) == (0, {"method": "none", "token": "none is sent"})


@pytest.mark.parametrize("content", ["", "two words\n"])
def test_unusable_token_file_ends_with_2(run: Run, tmp_path: Path, content: str) -> None:
    """Nothing remote has been asked, so nothing remote is wrong."""
    (tmp_path / "token").write_text(content)
    identity = {"method": "file", "token_file": str(tmp_path / "token")}
    ran = run("whoami", config=configuration("http://127.0.0.1:1", default=identity))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("identities.default: ")


def test_refused_login_ends_with_3_after_one_attempt(run: Run, tmp_path: Path) -> None:
    """With the remedy, and the other identities are shown all the same."""
    with twin_in_thread() as twin:
        config = configuration(
            twin.url,
            default=password_identity(twin.auth_url, tmp_path, password="wrong-canary"),
            other={"method": "none"},
        )
        ran = run("whoami", config=config)
        stats = requests.get(f"{twin.url}/twin/stats", timeout=60).json()
    assert ran.code == 3
    assert stats["login_attempts"] == 1
    assert "identities.default: refused: IAM refuses the password" in ran.err
    assert "identity other" in ran.out
    assert "canary" not in ran.out + ran.err


def test_wrong_configuration_ends_with_2(run: Run) -> None:
    """A key that does not exist."""
    assert run("whoami", config={"servces": {}}).code == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (86399, "23 h 59 min"),
        (86459, "1 d"),
        (90061, "1 d 1 h"),
    ],
)
def test_duration_is_written_for_people(seconds: float, text: str) -> None:
    """Its largest unit and the next, and zero for what is over."""
    assert duration_text(seconds) == text
