"""The stand-in cloud as a whole: what it tells, and its life."""

import aiohttp
import pytest
import trustme

from gateway.twin import ECHO_ID, Twin
from tests.cloud.twin.given import WRONG, _raw_call, log_in, predict, send, token_of
from tests.support.twin import login_body, running_twin

# Statistics, life cycle


async def test_one_login_for_any_number_of_calls_can_be_seen(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """`/twin/stats` tells logins, calls, rejections, predictions and statuses."""
    headers = {"X-Auth-Token": await token_of(http, twin)}
    await log_in(http, twin, WRONG)
    for _ in range(3):
        await send(http, "POST", twin.service_url(ECHO_ID), headers=headers)
    await send(http, "POST", twin.service_url(ECHO_ID))
    url = twin.url + "/twin/stats"
    assert (await send(http, "GET", url)).json == {
        "login_attempts": 2,
        "logins": 1,
        "login_status": {"201": 1, "401": 1},
        "services": {
            "echo": {
                "calls": 4,
                "rejected": 1,
                "predictions": 3,
                "status": {"200": 3, "401": 1},
            }
        },
        "tokens_good": 1,
    }
    cleared = (await send(http, "DELETE", url)).json
    assert (cleared["logins"], cleared["services"], cleared["tokens_good"]) == (0, {}, 1)


async def test_twins_share_nothing(http: aiohttp.ClientSession, twin: Twin) -> None:
    """A token of one cloud is unknown to another."""
    async with running_twin() as other:
        headers = {"X-Auth-Token": await token_of(http, twin)}
        assert (await send(http, "POST", other.service_url(ECHO_ID), headers=headers)).status == 401


async def test_twin_speaks_tls(http: aiohttp.ClientSession) -> None:
    """With a server's context the listener is HTTPS, resets included."""
    import ssl

    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with running_twin(ssl_context=server) as twin:
        assert twin.url.startswith("https://")
        token = (
            await send(http, "POST", twin.auth_url + "/auth/tokens", json=login_body(), ssl=client)
        ).headers["X-Subject-Token"]
        call = {"headers": {"X-Auth-Token": token}, "ssl": client}
        assert (await send(http, "POST", twin.service_url(ECHO_ID), **call)).status == 200
        with pytest.raises(aiohttp.ClientOSError):
            await send(http, "POST", twin.service_url(ECHO_ID) + "?twin-reset=head", **call)


async def test_twin_can_be_stopped_twice_and_refuses_a_taken_port() -> None:
    """Stopping is idempotent; a port in use is an `OSError` and leaves nothing behind."""
    async with running_twin() as first:
        second = Twin()
        with pytest.raises(OSError, match="address already in use"):
            await second.start(port=int(first.url.rpartition(":")[2]))
        await second.stop()
        await first.stop()


async def test_twin_writes_nothing_to_the_log(
    http: aiohttp.ClientSession, twin: Twin, caplog: pytest.LogCaptureFixture
) -> None:
    """Not for good calls, refusals, resets or hanging up."""
    caplog.set_level("DEBUG")
    await predict(http, twin)
    await _raw_call(twin, "?twin-reset=head")
    await _raw_call(twin, "?twin-cut=1")
    await send(http, "POST", twin.url + "/nowhere")
    assert [r for r in caplog.records if not r.name.startswith("asyncio")] == []
