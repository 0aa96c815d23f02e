"""`doctor` and every fault that the stand-in cloud knows: which line says so, and in which words.

The three tables are complete: a test compares them with what the cloud offers.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from gateway.cli import main
from gateway.twin import IRIS_ID, Account, Twin
from gateway.twin.faults import FAULT_NAMES
from gateway.twin.iam_faults import ErrorShape, IamFault
from gateway.twin.reply import KNOWN_CODES
from tests.cloud.serving import password_identity
from tests.support.twin import twin_in_thread

TOKEN_BEGINS = "MIIS"
NOT_OURS = ("PROXY", "CA_BUNDLE", "SSL", "GATEWAY_", "OS_")
REACHED = (
    "OK",
    "probe",
    "the model has been reached; its own response to a bare GET is expected (status 405, MR.0105",
)
BELIEF = "bad_reply: IAM's response is invalid: "
NOT_TAKEN = "the token that IAM has just issued is rejected: check that auth_url is the IAM"
NO_PROJECT = "the token is for no project: set project or project_id"
THROTTLED = "calls are throttled: wait, call less often, or have the limit raised"
UNREACHABLE = "the model's instances cannot be reached: look at the service's state, events"
SLOW = "the model does not respond in time: check its load and logs, or add instances"
FORBIDDEN = "the user may not call this service: give it a role for ModelArts in the project"

Row = tuple[str, str, str]
"""Level, step and words of the line that tells."""


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor said."""

    code: int
    text: str
    findings: list[dict[str, Any]]

    def rows(self, about: str, *levels: str) -> list[Row]:
        """Return what was said of an identity or a service, with one of the levels."""
        return [
            (found["level"], found["step"], found["text"])
            for found in self.findings
            if found["about"] == about and found["level"] in levels
        ]

    def row(self, about: str, step: str) -> Row:
        """Return the one line for a step."""
        [row] = [row for row in self.rows(about, "OK", "WARN", "FAIL") if row[1] == step]
        return row


@pytest.fixture(scope="module")
def twin() -> Iterator[Twin]:
    """One cloud for all."""
    with twin_in_thread() as running:
        yield running


def diagnose(folder: Path, twin: Twin, plan: dict[str, Any], **identity: Any) -> Diagnosis:
    """Run the doctor on the cloud's user and service while faults are planned."""
    requests.put(f"{twin.url}/twin/faults", json=plan, timeout=60).raise_for_status()
    requests.delete(f"{twin.url}/twin/stats", timeout=60).raise_for_status()
    file = folder / "gateway.yaml"
    limit = "800ms" if "hang" in str(plan) else "40s"
    service = {"url": twin.service_url(IRIS_ID), "timeouts": {"first_byte": limit}}
    keys = password_identity(twin.auth_url, folder, **identity)
    config = {"identities": {"default": keys}, "services": {"iris": service}}
    file.write_text(json.dumps(config | {"admin_listen": "127.0.0.1:1"}))
    clean = {name: None for name in os.environ if any(part in name.upper() for part in NOT_OURS)}
    ran = CliRunner().invoke(main, ["doctor", "--json", "--config", str(file)], env=clean)
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exc_info
    assert TOKEN_BEGINS not in ran.output
    assert Account().password not in ran.output
    assert logins(twin) == 1, "a login more could lock the account"
    return Diagnosis(ran.exit_code, ran.stdout, json.loads(ran.stdout)["findings"])


def stats(twin: Twin) -> Any:
    """What the cloud has counted since the doctor began."""
    return requests.get(f"{twin.url}/twin/stats", timeout=60).json()


def logins(twin: Twin) -> int:
    """Logins that IAM has seen."""
    return int(stats(twin)["login_attempts"])


def test_healthy_cloud_is_good_and_no_model_has_worked(twin: Twin, tmp_path: Path) -> None:
    """Every step is OK, in order; one login, one request, no prediction."""
    diagnosis = diagnose(tmp_path, twin, {})

    steps = [(found["about"], found["step"], found["level"]) for found in diagnosis.findings]
    assert steps == [
        (None, "configuration", "OK"),
        (None, "environment", "OK"),
        *(("identities.default", step, "OK") for step in ("secret", "tcp", "login", "scope")),
        ("identities.default", "clock", "OK"),
        *(("services.iris", step, "OK") for step in ("tcp", "url", "probe")),
    ]
    assert diagnosis.code == 0
    assert diagnosis.rows("services.iris", "OK")[-1][2].startswith(REACHED[2])
    seen = stats(twin)["services"]["iris"]
    assert (seen["calls"], seen["rejected"], seen["predictions"]) == (1, 0, 0)


# ---- IAM --------------------------------------------------------------------------------------

IAM_FAULTS: list[tuple[dict[str, Any], Row]] = [
    ({"fault": "unauthorized"}, ("FAIL", "login", "refused: IAM refuses the ")),
    (
        {"fault": "locked"},
        ("FAIL", "login", "refused: IAM has locked the user after too many wrong logins: correct"),
    ),
    ({"fault": "forbidden"}, ("FAIL", "login", "refused: IAM forbids the login: check the user's")),
    ({"fault": "throttled"}, ("FAIL", "login", "throttled: IAM throttles logins")),
    ({"fault": "throttled", "retry_after": 3}, ("FAIL", "login", "throttled: IAM throttles")),
    ({"fault": "status"}, ("FAIL", "login", "bad_reply: IAM failed (5xx): wait")),
    ({"fault": "status", "status": 503}, ("FAIL", "login", "bad_reply: IAM failed (5xx): wait")),
    ({"fault": "status", "status": 404}, ("FAIL", "login", "bad_reply: there is no IAM at this")),
    (
        {"fault": "status", "status": 302},
        ("FAIL", "login", "bad_reply: IAM responds with a redirect, which is"),
    ),
    ({"fault": "html"}, ("FAIL", "login", "bad_reply: IAM responded with an unexpected status")),
    ({"fault": "ok-200"}, ("FAIL", "login", "bad_reply: IAM responded with an unexpected status")),
    ({"fault": "no-token"}, ("FAIL", "login", f"{BELIEF}it has 0 X-Subject-Token fields")),
    ({"fault": "empty-token"}, ("FAIL", "login", f"{BELIEF}the token is empty")),
    ({"fault": "bad-token"}, ("FAIL", "login", f"{BELIEF}the token is empty or holds something")),
    ({"fault": "large-token"}, ("OK", "login", "logged in as infer of my-account for project")),
    ({"fault": "expired"}, ("FAIL", "login", f"{BELIEF}its token has expired already")),
    ({"fault": "far-expiry"}, ("FAIL", "login", f"{BELIEF}its token is said to live for more")),
    ({"fault": "no-expiry"}, ("FAIL", "login", f"{BELIEF}it has no expires_at")),
    ({"fault": "big-body"}, ("FAIL", "login", "bad_reply: IAM's answer is larger than 1 MiB")),
    ({"fault": "slow", "delay": "200ms"}, ("OK", "login", "logged in as infer of my-account")),
    ({"fault": "hang"}, ("FAIL", "login", "timeout: IAM did not respond in time")),
    (
        {"fault": "reset"},
        ("FAIL", "login", "network: IAM closed the connection without a response"),
    ),
]


def test_the_table_of_iam_faults_is_complete() -> None:
    """Whatever the cloud's IAM can be told to do wrong is in it."""
    assert {fault["fault"] for fault, _ in IAM_FAULTS} == set(IamFault)


@pytest.mark.parametrize(("fault", "row"), IAM_FAULTS, ids=lambda value: str(value)[:60])
def test_fault_of_iam_is_named(twin: Twin, tmp_path: Path, fault: dict[str, Any], row: Row) -> None:
    """The line of the login says it, after one login; the service is looked at, not asked."""
    level, step, words = row

    diagnosis = diagnose(tmp_path, twin, {"iam": [fault]})

    said = diagnosis.row("identities.default", step)
    assert said[0] == level
    assert said[2].startswith(words)
    if level == "OK":
        assert diagnosis.code == 0
        return
    assert diagnosis.code == 3
    assert re.search(r"\b(check|correct|wait)\b", said[2]), "there is a remedy"
    assert diagnosis.rows("identities.default", "FAIL") == [said]
    assert diagnosis.rows("services.iris", "FAIL", "WARN") == [
        ("WARN", "probe", "not tried: identities.default has no token; see above")
    ]
    assert stats(twin)["services"].get("iris", {"calls": 0})["calls"] == 0


@pytest.mark.parametrize("shape", ErrorShape)
def test_code_of_iam_is_found_in_every_shape(twin: Twin, tmp_path: Path, shape: str) -> None:
    """However IAM writes an error; Keystone's own is the status once more."""
    fault = {"fault": "status", "status": 403, "shape": shape}

    diagnosis = diagnose(tmp_path, twin, {"iam": [fault]})

    [failed] = [found for found in diagnosis.findings if found["level"] == "FAIL"]
    assert failed["code"] == ("403" if shape == ErrorShape.KEYSTONE else "IAM.0006")
    assert failed["text"].startswith("refused: IAM forbids the login: check")


@pytest.mark.parametrize(
    ("identity", "step", "words"),
    [
        ({"password": "wrong-canary"}, "login", "refused: IAM refuses the password: check the"),
        ({"project": "nowhere"}, "scope", "refused: IAM refuses the project: check project"),
        ({"project_domain": "nowhere"}, "scope", "refused: IAM refuses the project: check project"),
        (
            {"project": None, "project_id": "0" * 32},
            "scope",
            "refused: IAM refuses the project: check project or project_id",
        ),
    ],
)
def test_wrong_identity_is_told_from_wrong_project(
    twin: Twin, tmp_path: Path, identity: dict[str, Any], step: str, words: str
) -> None:
    """One line fails, that of the login or that of the scope."""
    diagnosis = diagnose(tmp_path, twin, {}, **identity)

    [(_, failed, said)] = diagnosis.rows("identities.default", "FAIL")
    assert failed == step
    assert said.startswith(words)
    assert diagnosis.code == 3
    assert "canary" not in diagnosis.text


# ---- services ---------------------------------------------------------------------------------

SERVICE_FAULTS: list[tuple[dict[str, Any], Row]] = [
    ({"delay": "300ms"}, REACHED),
    ({"hang": True}, ("FAIL", "probe", "no answer within 0.8 s: the model hangs or is overloaded")),
    ({"early": True}, ("OK", "probe", "answers GET with 200")),
    ({"status": 200}, ("OK", "probe", "answers GET with 200")),
    (
        {"status": 401},
        ("WARN", "probe", "the model has been reached, and wants a login of its own"),
    ),
    (
        {"status": 404},
        ("OK", "probe", "the model has been reached; its own response to a bare GET is expected"),
    ),
    (
        {"status": 418},
        ("OK", "probe", "the model has been reached; its own response to a bare GET is expected"),
    ),
    ({"status": 500}, ("WARN", "probe", "the model has been reached, and fails on an empty")),
    ({"status": 503}, ("FAIL", "probe", "the model has been reached, and says that it cannot")),
    ({"code": "APIG.0202"}, ("FAIL", "probe", UNREACHABLE)),
    ({"code": "APIG.0308", "retry-after": 5}, ("FAIL", "probe", THROTTLED)),
    ({"size": 1_000_000}, ("OK", "probe", "answers GET with 200")),
    ({"sse": 1000, "gap": "1s"}, ("OK", "probe", "answers GET with 200")),
    ({"first-token": "20ms"}, REACHED),  # the language model's alone
    ({"chunked": True}, REACHED),
    ({"slow": "10B/5ms"}, REACHED),
    ({"cut": 5}, ("FAIL", "probe", "the response breaks off: check any proxy on the way")),
    ({"reset": "body"}, ("FAIL", "probe", "the response breaks off: check any proxy on the way")),
    ({"reset": "head"}, ("FAIL", "probe", "the connection is closed without a response: check")),
]


def test_the_table_of_service_faults_is_complete() -> None:
    """Whatever the cloud's services can be told to do wrong is in it."""
    assert {name for fault, _ in SERVICE_FAULTS for name in fault} == set(FAULT_NAMES)


@pytest.mark.parametrize(("fault", "row"), SERVICE_FAULTS, ids=lambda value: str(value)[:60])
def test_fault_of_a_service_is_named(
    twin: Twin, tmp_path: Path, fault: dict[str, Any], row: Row
) -> None:
    """The line of the harmless request says it; the identity is well."""
    assert_named(twin, tmp_path, fault, row)


CODES: list[tuple[str, int | None, Row]] = [
    ("APIG.0101", None, ("FAIL", "url", "nothing is published at this URL: copy it from the")),
    ("APIG.0201", 400, ("FAIL", "probe", "the API gateway cannot parse the request")),
    ("APIG.0201", 413, ("FAIL", "probe", "the request is too large for the API gateway")),
    ("APIG.0201", 414, ("FAIL", "probe", "the URL is too long for the API gateway")),
    ("APIG.0201", 494, ("FAIL", "probe", "the header fields are too large for the API gateway")),
    ("APIG.0201", 500, ("FAIL", "probe", UNREACHABLE)),
    ("APIG.0201", None, ("FAIL", "probe", UNREACHABLE)),
    ("APIG.0201", 504, ("FAIL", "probe", SLOW)),
    ("APIG.0202", None, ("FAIL", "probe", UNREACHABLE)),
    ("APIG.0203", None, ("FAIL", "probe", SLOW)),
    ("APIG.0301", None, ("FAIL", "probe", NOT_TAKEN)),
    ("APIG.0302", None, ("FAIL", "probe", FORBIDDEN)),
    ("APIG.0304", None, ("FAIL", "probe", "the app may not call this API: authorise it")),
    ("APIG.0306", None, ("FAIL", "probe", "the API gateway denies access: look at its access")),
    ("APIG.0307", None, ("FAIL", "probe", NOT_TAKEN)),
    ("APIG.0308", None, ("FAIL", "probe", THROTTLED)),
    ("APIG.0610", None, ("FAIL", "probe", UNREACHABLE)),
    ("APIG.0613", None, ("FAIL", "probe", "the API gateway cannot reach its own IAM: the vendor")),
    ("APIG.9999", 400, ("FAIL", "probe", "the API gateway refuses for a reason not known here")),
    ("ModelArts.0201", None, ("FAIL", "probe", NOT_TAKEN)),
    ("ModelArts.0202", None, ("FAIL", "probe", NOT_TAKEN)),
    ("ModelArts.0203", None, ("FAIL", "probe", NOT_TAKEN)),
    ("ModelArts.0203", 403, ("FAIL", "probe", NOT_TAKEN)),
    ("ModelArts.0204", None, ("FAIL", "probe", NOT_TAKEN)),
    ("ModelArts.0207", None, ("FAIL", "probe", NO_PROJECT)),
    ("ModelArts.0210", None, ("FAIL", "probe", FORBIDDEN)),
    ("ModelArts.0212", None, ("FAIL", "probe", NO_PROJECT)),
    ("ModelArts.4104", None, ("FAIL", "probe", "the request is too large, although it is empty")),
    ("ModelArts.4119", None, ("FAIL", "probe", NO_PROJECT)),
    ("ModelArts.4127", None, ("FAIL", "probe", NOT_TAKEN)),
    ("ModelArts.4201", None, ("FAIL", "probe", NOT_TAKEN)),
    ("ModelArts.4203", None, ("FAIL", "probe", "the service is not running: start it on its")),
    ("ModelArts.4204", None, ("FAIL", "url", "the service does not exist: was it deleted")),
    ("ModelArts.4206", None, ("FAIL", "probe", THROTTLED)),
    ("ModelArts.4302", None, ("FAIL", "probe", "the model's instances refuse connections")),
    ("ModelArts.4503", None, ("FAIL", "probe", "the model's instances are not there or do not")),
    ("ModelArts.4505", None, ("FAIL", "probe", SLOW)),
    ("ModelArts.9999", 500, ("FAIL", "probe", "ModelArts refuses for a reason not known here")),
    (
        "MR.0105",
        None,
        ("OK", "probe", "the model has been reached; its own response to a bare GET is expected"),
    ),
    ("MR.0105", 401, ("WARN", "probe", "the model has been reached, and wants a login of its")),
    ("MR.0100", 500, ("WARN", "probe", "the model has been reached, and fails on an empty")),
]


def test_the_table_of_codes_is_complete() -> None:
    """Every code that the cloud knows by itself is explained."""
    assert {code for code, _, _ in CODES} >= set(KNOWN_CODES)


@pytest.mark.parametrize(("code", "status", "row"), CODES, ids=lambda value: str(value)[:20])
def test_code_of_the_vendor_is_explained(
    twin: Twin, tmp_path: Path, code: str, status: int | None, row: Row
) -> None:
    """In words, with what to do; the code, its status and the request's id stand behind."""
    fault: dict[str, Any] = {"code": code} | ({} if status is None else {"status": status})

    diagnosis = assert_named(twin, tmp_path, fault, row)

    [found] = [f for f in diagnosis.findings if f["about"] == "services.iris" and f["code"]]
    assert (found["step"], found["code"]) == (row[1], code)
    assert f"(status {status or KNOWN_CODES[code][0]}, {code}, request id " in found["text"]


def assert_named(twin: Twin, folder: Path, fault: dict[str, Any], row: Row) -> Diagnosis:
    """One line says it, and the exit code follows from its level."""
    level, step, words = row

    diagnosis = diagnose(folder, twin, {"services": [{"faults": fault, "service": "iris"}]})

    assert diagnosis.rows("identities.default", "WARN", "FAIL") == []
    said = diagnosis.row("services.iris", step)
    assert said[0] == level
    assert said[2].startswith(words)
    assert diagnosis.rows("services.iris", "WARN", "FAIL") == ([] if level == "OK" else [said])
    assert diagnosis.code == (3 if level == "FAIL" else 0)
    assert stats(twin)["services"]["iris"]["predictions"] == 0
    return diagnosis
