"""Signed requests to the stand-in cloud, which checks them by code of its own."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.twin import ECHO_ID, IRIS_ID, Account, Clock, Twin
from gateway.twin.platform import POD_TOKEN, MetadataMode
from tests.cloud.serving import CALL, error_code, token_gateway, until
from tests.support.twin import running_twin, twin_in_thread
from tests.unit.cli.conftest import Run, run  # noqa: F401  # a fixture

ACCOUNT = Account()
POD_URL, POD_FILE = "HC_CONTAINER_CREDENTIALS_FULL_URI", "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE"


def identity_of(folder: Path, secret: str = ACCOUNT.secret_key) -> dict[str, Any]:
    (folder / "secret").write_text(secret + "\n")
    return {
        "method": "ak_sk",
        "access_key": ACCOUNT.access_key,
        "secret_key_file": str(folder / "secret"),
    }


def of_metadata(twin: Twin) -> dict[str, Any]:
    return {"method": "ak_sk", "from": "metadata", "metadata_url": twin.url}


@pytest.mark.parametrize(
    "tail", [b"", b"/a%20b/%e4%b8%ad", b"?b=2&a=1&b=1", b"/x?q=%2F+z&empty=&alone&~"]
)
async def test_signed_requests_are_accepted(tmp_path: Path, tail: bytes) -> None:
    """Whatever the path and query; the body is not signed; nobody logs in anywhere."""
    async with (
        running_twin() as twin,
        token_gateway(twin.service_url(ECHO_ID), identity_of(tmp_path)) as gateway,
    ):
        await gateway.has_token()
        own = b"POST /iris%b HTTP/1.1\r\nX-Sdk-Date: 1\r\nAuthorization: theirs\r\n" % tail
        for _ in range(2):
            reply = await gateway.running.ask(CALL.replace(b"POST /iris HTTP/1.1\r\n", own))
            assert reply.status == 200, reply.body
            assert b"theirs" not in reply.body
        assert twin.stats.services["echo"].rejected == 0
        assert twin.stats.login_attempts == 0
        assert gateway.gauge("gateway_token_expiry_timestamp_seconds") == float("inf")


@pytest.mark.parametrize("minutes", [-20, 20])
async def test_a_clock_that_is_20_minutes_off_is_corrected(tmp_path: Path, minutes: int) -> None:
    """By the first refusal, whose request is sent again; the gauge tells of it."""
    clock = Clock(wall=lambda: datetime.now(UTC) + timedelta(minutes=minutes))
    async with (
        running_twin(clock=clock) as twin,
        token_gateway(twin.service_url(IRIS_ID), identity_of(tmp_path)) as gateway,
    ):
        await gateway.has_token()
        assert (await gateway.call()).status == 200
        assert twin.stats.services["iris"].rejected == 1
        assert (await gateway.call()).status == 200
        assert twin.stats.services["iris"].rejected == 1
        skew = gateway.gauge("gateway_clock_skew_seconds")
        assert skew == pytest.approx(-60 * minutes, abs=3)


async def test_a_wrong_secret_passes_as_401_and_a_right_one_is_noticed(tmp_path: Path) -> None:
    """The vendor's answer reaches the caller; a changed file is read without a restart."""
    async with (
        running_twin() as twin,
        token_gateway(twin.service_url(IRIS_ID), identity_of(tmp_path, "canary")) as gateway,
    ):
        await gateway.has_token()
        reply = await gateway.call()
        assert (reply.status, error_code(reply)) == (401, "APIG.0301")
        identity_of(tmp_path)
        await until(lambda: gateway.logins(trigger="secret_change", result="ok") == 1, 10)
        assert (await gateway.call()).status == 200


async def test_a_locked_key_is_left_alone(tmp_path: Path) -> None:
    """After the vendor's lock nothing is sent, callers are told so at once, until a new key."""
    async with (
        running_twin() as twin,
        token_gateway(twin.service_url(IRIS_ID), identity_of(tmp_path, "canary")) as gateway,
    ):
        await gateway.has_token()
        reply = await gateway.call()
        while b"reach the limit" not in reply.body:
            assert reply.status == 401
            reply = await gateway.call()
        assert reply.status == 401
        calls = twin.stats.services["iris"].calls
        reply = await gateway.call()
        assert (reply.status, error_code(reply)) == (503, "Gateway.LoginRefused")
        assert 290 <= int(reply.values(b"retry-after")[0]) <= 301
        assert twin.stats.services["iris"].calls == calls
        assert gateway.gauge("gateway_identity_locked") == 1


@pytest.mark.parametrize("mode", [MetadataMode.V2, MetadataMode.V1])
async def test_temporary_keys_of_a_server_sign(mode: MetadataMode) -> None:
    """By the metadata service's second version, or its first where there is no other."""
    async with running_twin() as twin:
        twin.platform.mode = mode
        async with token_gateway(twin.service_url(IRIS_ID), of_metadata(twin)) as gateway:
            await gateway.has_token()
            assert (await gateway.call()).status == 200
            end = gateway.gauge("gateway_token_expiry_timestamp_seconds")
            left = end - datetime.now(UTC).timestamp()
            assert 3500 < left < 3600
        assert twin.platform.metadata_calls == 1


async def test_temporary_keys_are_renewed_ahead() -> None:
    """No call is refused while keys that live for seconds come and go."""
    async with running_twin() as twin:
        twin.platform.life_s = 4.0
        async with token_gateway(twin.service_url(IRIS_ID), of_metadata(twin)) as gateway:
            await gateway.has_token()
            while gateway.logins(result="ok") < 3:
                assert (await gateway.call()).status == 200
                await asyncio.sleep(0.05)
        assert twin.stats.services["iris"].rejected == 0
        assert len(twin.platform.keys) >= 3


async def test_temporary_keys_of_a_pod_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variables that the cluster sets; the token's file is read for each key."""
    (tmp_path / "token").write_text("old")
    monkeypatch.setenv(POD_FILE, str(tmp_path / "token"))
    async with running_twin() as twin:
        monkeypatch.setenv(POD_URL, f"{twin.url}/pod-identity/credentials")
        identity = {"method": "ak_sk", "from": "pod"}
        async with token_gateway(twin.service_url(IRIS_ID), identity) as gateway:
            await until(lambda: gateway.logins(result="bad_reply") > 0, 10)
            (tmp_path / "token").write_text(POD_TOKEN + "\n")
            await gateway.has_token(10)
            assert (await gateway.call()).status == 200
        assert twin.platform.pod_calls == 1


def config_of(twin: Twin, identity: dict[str, Any]) -> dict[str, Any]:
    services = {"iris": {"url": twin.service_url(IRIS_ID)}}
    return {"identities": {"default": identity}, "services": services}


def test_doctor_and_whoami_know_signatures(run: Run, tmp_path: Path) -> None:  # noqa: F811
    """The doctor proves the key by a harmless request; neither shows a secret."""
    with twin_in_thread() as twin:
        good = run("doctor", config=config_of(twin, identity_of(tmp_path)))
        who = run("whoami", config=config_of(twin, identity_of(tmp_path)))
        temporary = run("doctor", config=config_of(twin, of_metadata(twin)))
        online = run("check", "--online", config=config_of(twin, of_metadata(twin)))
        bad = run("doctor", config=config_of(twin, identity_of(tmp_path, "canary")))
    assert (good.code, who.code, temporary.code, online.code, bad.code) == (0, 0, 0, 0, 3)
    assert "access key TWIN…0001; whether it is good" in good.out
    assert "access key TWIN…0001" in who.out
    assert "temporary access key HST" in temporary.out
    assert "the signature is rejected: check access key and secret key" in bad.out
    assert ACCOUNT.secret_key not in good.out + who.out


def test_doctor_corrects_and_names_a_clock_that_is_off(run: Run, tmp_path: Path) -> None:  # noqa: F811
    """The second request is signed by the service's clock."""
    clock = Clock(wall=lambda: datetime.now(UTC) - timedelta(minutes=20))
    with twin_in_thread(clock=clock) as twin:
        said = run("doctor", config=config_of(twin, identity_of(tmp_path)))
    assert said.code == 0
    assert "clock is 20 min" in said.out
    assert "synchronise it" in said.out


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (MetadataMode.NO_AGENCY, "the cloud server has no agency: give it one"),
        (MetadataMode.DOWN, "status 500"),
    ],
)
def test_a_platform_that_gives_no_key_is_explained(
    run: Run,  # noqa: F811
    mode: MetadataMode,
    words: str,
) -> None:
    """With the remedy."""
    with twin_in_thread() as twin:
        twin.platform.mode = mode
        said = run("doctor", config=config_of(twin, of_metadata(twin)))
    assert said.code == 3
    assert words in said.out


def test_a_platform_that_does_not_answer_is_explained(run: Run) -> None:  # noqa: F811
    """As on a machine that is no cloud server."""
    identity = {"method": "ak_sk", "from": "metadata", "metadata_url": "http://127.0.0.1:1"}
    with twin_in_thread() as twin:
        said = run("doctor", config=config_of(twin, identity))
    assert said.code == 3
    assert (
        "the metadata service cannot be connected to: does this run on a cloud server" in said.out
    )


def test_check_names_what_cannot_work(
    run: Run,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key that cannot be sent; a pod without identity; a service that takes no signatures."""
    for variable in (POD_URL, POD_FILE):
        monkeypatch.delenv(variable, raising=False)
    services = {"iris": {"url": "https://models.example/v2/infers/a"}}
    config = {"identities": {"default": identity_of(tmp_path)}, "services": services}
    ran = run("check", config=config)
    assert ran.code == 0
    assert "services of the new version (/v2/infers) do not take" in ran.err

    config["identities"] = {"default": {"method": "ak_sk", "from": "pod"}}
    ran = run("check", config=config)
    assert ran.code == 2
    assert f"identities.default.from: pod, but {POD_URL}" in ran.err

    config["identities"] = {"default": identity_of(tmp_path, "two\nlines")}
    ran = run("check", config=config)
    assert ran.code == 2
    assert "identities.default: the secret key cannot be used" in ran.err
