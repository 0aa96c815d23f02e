"""Where its services are, and what they limit."""

import io
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.twin import ECHO_ID, Twin
from gateway.twin.services import MAX_BODY, MAX_FIELD
from tests.cloud.twin.given import _raw_call, predict, send, token_of


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/v1/infers/{ECHO_ID}", 200),
        (f"/v2/infers/{ECHO_ID}", 200),
        (f"/v1/infers/{ECHO_ID}/", 200),
        (f"/v1/infers/{ECHO_ID}/a/b%2Fc?d=e", 200),
        (f"/v1/infers/{ECHO_ID}x", 404),
        ("/v1/infers/", 404),
        ("/v3/infers/" + ECHO_ID, 404),
        ("/", 404),
        ("/twin/", 404),
    ],
)
async def test_services_are_found_by_id_and_below(
    http: aiohttp.ClientSession, twin: Twin, path: str, status: int
) -> None:
    """Ids answer at their path and below it; all else is APIG.0101."""
    headers = {"X-Auth-Token": await token_of(http, twin)}
    answer = await send(http, "POST", twin.url + path, headers=headers)
    assert answer.status == status
    if status == 404:
        assert answer.json["error_code"] == "APIG.0101"


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_limit_is_twelve_megabytes(
    http: aiohttp.ClientSession, twin: Twin, chunked: bool
) -> None:
    """12 MiB pass, one byte more is 413 `APIG.0201`, with a length or in chunks."""

    async def stream(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 1 << 20):
            yield bytes(min(1 << 20, size - start))

    for size, status in ((MAX_BODY, 200), (MAX_BODY + 1, 413)):
        answer = await predict(
            http, twin, data=stream(size) if chunked else io.BytesIO(bytes(size))
        )
        assert answer.status == status
        if status == 413:
            assert answer.json["error_code"] == "APIG.0201"
        else:
            assert answer.json["body"]["bytes"] == size


async def test_announced_body_over_the_limit_is_refused_unread(twin: Twin) -> None:
    """413 comes on the head alone: no byte of the body was sent."""
    got, _ = await _raw_call(twin, "", announced=MAX_BODY + 1)
    assert got.startswith(b"HTTP/1.1 413")


async def test_header_limits_are_the_api_gateways(http: aiohttp.ClientSession, twin: Twin) -> None:
    """One field of 32 KB or 128 KB in all pass; more is 494."""
    largest = "x" * MAX_FIELD
    assert (await predict(http, twin, headers={"A": largest})).status == 200
    assert (await predict(http, twin, headers={"A": largest + "x" * 16})).status == 494
    three = dict.fromkeys("ABC", largest)
    assert (await predict(http, twin, headers=three)).status == 200
    answer = await predict(http, twin, headers={**three, "D": largest})
    assert (answer.status, answer.json["error_code"]) == (494, "APIG.0201")
