"""Which tokens its services take, and for how long."""

import aiohttp
import pytest

from gateway.twin import ECHO_ID, Twin
from tests.cloud.twin.given import MovableTime, predict, send, token_of
from tests.support.twin import running_twin

# The API gateway's checks


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-Auth-Token", "MIISnonsense")],
        [("X-Auth-Token", "")],
        [("X-Auth-Token", "GOOD"), ("X-Auth-Token", "GOOD")],
        [("X-Auth-Token", "GOOD"), ("Authorization", "Bearer abc")],
    ],
)
async def test_anything_but_one_good_token_is_apig_0301(
    http: aiohttp.ClientSession, twin: Twin, headers: list[tuple[str, str]]
) -> None:
    """Missing, unknown, doubled, or beside a bearer token: 401 of the API gateway."""
    token = await token_of(http, twin)
    sent = [(name, value.replace("GOOD", token)) for name, value in headers]
    answer = await send(http, "POST", twin.service_url(ECHO_ID), headers=sent)
    assert answer.status == 401
    assert answer.json["error_code"] == "APIG.0301"
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["Server"] == "api-gateway"
    assert twin.stats.services["echo"].rejected == 1
    assert twin.stats.services["echo"].predictions == 0


async def test_token_dies_exactly_at_the_end_of_its_life(
    http: aiohttp.ClientSession, time_of_twin: MovableTime
) -> None:
    """Good just before `expires_at`, APIG.0301 from then on."""
    async with running_twin(clock=time_of_twin.clock(), token_ttl_s=60) as twin:
        headers = {"X-Auth-Token": await token_of(http, twin)}
        url = twin.service_url(ECHO_ID)
        time_of_twin.pass_by(59.5)
        assert (await send(http, "POST", url, headers=headers)).status == 200
        time_of_twin.pass_by(0.5)
        answer = await send(http, "POST", url, headers=headers)
        assert (answer.status, answer.json["error_code"]) == (401, "APIG.0301")
        assert "expires" in answer.json["error_msg"]


@pytest.mark.parametrize(("how", "code"), [("revoke", "APIG.0307"), ("expire", "APIG.0301")])
async def test_all_tokens_can_be_killed(
    http: aiohttp.ClientSession, twin: Twin, how: str, code: str
) -> None:
    """`/twin/revoke` and `/twin/expire` end every good token; a new login works at once."""
    tokens = [await token_of(http, twin) for _ in range(3)]
    answer = await send(http, "POST", f"{twin.url}/twin/{how}")
    assert list(answer.json.values()) == [3]
    for token in tokens:
        headers = {"X-Auth-Token": token}
        refused = await send(http, "POST", twin.service_url(ECHO_ID), headers=headers)
        assert (refused.status, refused.json["error_code"]) == (401, code)
    assert (await predict(http, twin)).status == 200
    assert twin.revoke_tokens() == 1
    assert twin.expire_tokens() == 0


async def test_new_token_leaves_the_old_one_good(http: aiohttp.ClientSession, twin: Twin) -> None:
    """Overlap is safe, as with the real cloud."""
    old = await token_of(http, twin)
    await token_of(http, twin)
    headers = {"X-Auth-Token": old}
    assert (await send(http, "POST", twin.service_url(ECHO_ID), headers=headers)).status == 200
