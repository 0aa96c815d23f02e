"""Several gateways on one port."""

import signal
from pathlib import Path

import pytest

from tests.life.test_reload import ask
from tests.support.served import served
from tests.support.upstream import answer, scripted_upstream


async def test_two_gateways_share_a_port(tmp_path: Path) -> None:
    """The kernel gives each some of the connections, and the one that stays all of them."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    async with (
        scripted_upstream(answer(200, b"served")) as upstream,
        served(tmp_path / "first", upstream.port, {"reuse_port": True}) as first,
    ):
        both = {"reuse_port": True, "listen": f"127.0.0.1:{first.port}"}
        async with served(tmp_path / "second", upstream.port, both) as second:
            count = 0
            while not (
                await first.sample("gateway_requests_total", service="iris", code="200")
                and await second.sample("gateway_requests_total", service="iris", code="200")
            ):
                assert (await ask(first))[0] == 200
                count += 1
                assert count < 100, "one of them gets nothing"
            first.signal(signal.SIGTERM)
            assert await first.ended() == 0
            for _ in range(5):
                assert (await ask(second))[0] == 200


@pytest.mark.long
async def test_without_it_the_port_is_taken(tmp_path: Path) -> None:
    """By accident nobody else gets a gateway's requests."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    async with (
        scripted_upstream(answer(200, b"served")) as upstream,
        served(tmp_path / "first", upstream.port) as first,
    ):
        taken = {"listen": f"127.0.0.1:{first.port}"}
        with pytest.raises(AssertionError, match="cannot listen"):
            async with served(tmp_path / "second", upstream.port, taken):
                pass
