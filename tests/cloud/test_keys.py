"""API keys and AppCodes of the stand-in cloud, through real gateways."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.identity.report import KEY_REFUSED
from gateway.twin import ECHO_ID, IRIS_ID, Twin
from tests.cloud.serving import CALL, TokenGateway, token_gateway, until
from tests.support.twin import running_twin, twin_in_thread
from tests.support.upstream import OK, answering, scripted_upstream
from tests.unit.cli.conftest import Run, run  # noqa: F401  # a fixture

METHODS: dict[str, dict[str, Any]] = {
    "api_key": {"method": "api_key", "key_file": "key"},
    "header": {"method": "header", "header": "X-Apig-AppCode", "value_file": "key"},
}
GOOD = {"api_key": "twin-api-key", "header": "twin-app-code"}


def identity_of(method: str, folder: Path, key: str) -> dict[str, Any]:
    (folder / "key").write_text(key + "\n")
    return {
        name: str(folder / value) if name.endswith("_file") else value
        for name, value in METHODS[method].items()
    }


def url_of(twin: Twin, method: str, identifier: str = IRIS_ID) -> str:
    """New services take keys, old ones AppCodes."""
    version = "/v2/" if method == "api_key" else "/v1/"
    return twin.service_url(identifier).replace("/v1/", version)


async def status_of(gateway: TokenGateway) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{gateway.running.admin_port}/status") as answer,
    ):
        return await answer.json()


@pytest.mark.parametrize("method", METHODS)
async def test_a_key_is_sent_with_every_call_and_nobody_logs_in(
    tmp_path: Path, method: str
) -> None:
    """Also by `expires` known to the gauge; the caller's own field of that name is not sent."""
    identity = identity_of(method, tmp_path, GOOD[method]) | {"expires": "2099-01-31"}
    async with (
        running_twin() as twin,
        token_gateway(url_of(twin, method, ECHO_ID), identity) as gateway,
    ):
        await gateway.has_token()
        own = (
            b"POST /iris HTTP/1.1\r\nX-Apig_AppCode: a\r\nx-apig-appcode: b\r\nAuthorization: c\r\n"
        )
        for call in (CALL, CALL.replace(b"POST /iris HTTP/1.1\r\n", own)):
            reply = await gateway.running.ask(call)
            assert reply.status == 200, reply.body
            assert reply.body.count(b"sha256:") == 1
            assert b"_AppCode" not in reply.body
        assert twin.stats.login_attempts == 0
        assert gateway.gauge("gateway_token_expiry_timestamp_seconds") == 4073500800
        assert gateway.logins(trigger="startup", result="ok") == 1


async def test_any_field_of_the_name_that_the_key_has_is_the_gateways(tmp_path: Path) -> None:
    """A name that no list has: the caller's lines, and those with an underscore, are not sent."""
    (tmp_path / "key").write_text("ours")
    identity = {"method": "header", "header": "X-Team-Key", "value_file": str(tmp_path / "key")}
    identity |= {"prefix": "Key "}
    own = b"POST /iris HTTP/1.1\r\nX-Team-Key: theirs\r\nx_team_key: theirs\r\nX-Team: theirs\r\n"
    async with (
        scripted_upstream(answering(OK)) as upstream,
        token_gateway(f"http://127.0.0.1:{upstream.port}/x", identity) as gateway,
    ):
        await gateway.has_token()
        await gateway.running.ask(CALL.replace(b"POST /iris HTTP/1.1\r\n", own))
        names = [name.lower() for name, _ in upstream.only.fields]
        assert upstream.only.values(b"X-Team-Key") == [b"Key ours"]
        assert b"x-team" in names
        assert b"x_team_key" not in names


@pytest.mark.parametrize("method", METHODS)
async def test_a_refused_key_passes_and_is_named(tmp_path: Path, method: str) -> None:
    """Sent once, answered as the service did; metrics and status say what it may mean."""
    async with (
        running_twin() as twin,
        token_gateway(url_of(twin, method), identity_of(method, tmp_path, "canary")) as gateway,
    ):
        await gateway.has_token()
        reply = await gateway.call()
        assert reply.status == 401
        assert b"APIG.0303" in reply.body
        assert twin.stats.services["iris"].calls == 1
        await gateway.running.settled()
        sample = gateway.running.sample
        assert sample("gateway_errors_total", layer="identity", error="key_refused") == 1
        assert sample("gateway_errors_total", service="iris") == 1
        status = await status_of(gateway)
        refused = status["identities"]["default"]["key_refused"]
        assert refused["meaning"] == KEY_REFUSED
        assert status["identities"]["default"]["usable"]

        (tmp_path / "key").write_text(GOOD[method])
        await until(lambda: gateway.logins(trigger="secret_change", result="ok") == 1, 10)
        assert (await gateway.call()).status == 200
        status = await status_of(gateway)
        assert status["identities"]["default"]["key_refused"] is None


@pytest.mark.parametrize("method", METHODS)
def test_doctor_and_whoami_know_keys(run: Run, tmp_path: Path, method: str) -> None:  # noqa: F811
    """The doctor says what a 401 may mean; neither shows the key."""
    with twin_in_thread() as twin:
        config = {
            "identities": {"default": identity_of(method, tmp_path, GOOD[method])},
            "services": {"iris": {"url": url_of(twin, method)}},
        }
        good = run("doctor", config=config)
        online = run("check", "--online", config=config)
        config["identities"] = {"default": identity_of(method, tmp_path, "canary-key")}
        bad = run("doctor", config=config)
        config["identities"]["default"]["expires"] = "2026-01-01"
        ended = run("doctor", config=config)
        who = run("whoami", config=config)
    assert (good.code, online.code, bad.code, who.code) == (0, 0, 3, 0)
    assert KEY_REFUSED in bad.out
    assert "it has ended on 2026-01-01, says `expires`" in ended.out
    assert "10 bytes, fingerprint" in who.out
    assert "canary" not in bad.out + ended.out + who.out


@pytest.mark.parametrize("method", METHODS)
def test_check_names_a_key_that_cannot_be_sent(run: Run, tmp_path: Path, method: str) -> None:  # noqa: F811
    """Before anything is sent, with the remedy."""
    config = {
        "identities": {"default": identity_of(method, tmp_path, "can\nary")},
        "services": {"iris": {"url": "http://127.0.0.1:1/x"}},
    }
    ran = run("check", config=config)
    assert ran.code == 2
    assert "_file: the key cannot be sent: it holds a line break; write the key alone" in ran.err
    assert "ary" not in ran.err.replace(str(tmp_path), "")
