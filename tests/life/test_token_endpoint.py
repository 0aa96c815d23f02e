"""The token endpoint of a gateway as users run it."""

import asyncio
import hashlib
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.twin import IRIS_ID, Twin
from tests.cloud.serving import password_identity
from tests.life.test_reload import reload
from tests.life.test_sinks import good_token
from tests.support.client import Caller, Reply, connect
from tests.support.gateway import POST as IRIS
from tests.support.served import served, settings_of
from tests.support.twin import running_twin
from tests.support.upstream import OK, scripted_upstream

POST = b"POST /auth/iris/v1/x?b=c HTTP/1.1\r\nHost: api.example\r\nContent-Length: 2\r\n\r\n{}"
GET = b"GET /auth/iris HTTP/1.1\r\nHost: localhost\r\n\r\n"


def settings(folder: Path, twin: Twin, **more: Any) -> dict[str, Any]:
    """Return a configuration with a token endpoint on a socket file."""
    return settings_of(
        0,
        {
            "identities": {"default": password_identity(twin.auth_url, folder)},
            "services": {"iris": {"url": twin.service_url(IRIS_ID)}},
            "token_listen": f"unix:{folder / 'token.sock'}",
            **more,
        },
    )


@asynccontextmanager
async def caller(where: Path | int) -> AsyncIterator[Caller]:
    """A connection to the endpoint."""
    if isinstance(where, int):
        one = await connect(where)
    else:
        reader, writer = await asyncio.open_unix_connection(where)
        one = Caller(reader, writer)
    yield one
    one.leave()


async def ask(where: Path | int, request: bytes = GET) -> Reply:
    """Send one request on a connection of its own."""
    async with caller(where) as one:
        one.send(request)
        return await one.reply(to_head=request.startswith(b"HEAD"))


def fingerprint_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).hexdigest()[:8].encode()


async def test_the_endpoint_hands_out_the_token_in_use(tmp_path: Path) -> None:
    """To all who may write to its socket file, under any Host, on a connection that stays."""
    sock = tmp_path / "token.sock"
    async with running_twin() as twin, served(tmp_path, 0, settings(tmp_path, twin)) as process:
        assert sock.stat().st_mode & 0o777 == 0o600
        async with caller(sock) as one:
            for request in (
                GET,
                POST,
                b"HEAD /auth/iris HTTP/1.1\r\nHost: x\r\n\r\n",
            ):
                one.send(request)
                reply = await one.reply(to_head=request.startswith(b"HEAD"))
                assert reply.status == 200
                assert reply.values(b"x-auth-token") == [good_token(twin).encode()]
                assert reply.values(b"cache-control") == [b"private, max-age=5"]
                assert reply.body == b""
        old = await ask(sock, b"GET /auth/iris HTTP/1.0\r\n\r\n")  # as nginx by default
        assert old.status == 200
        assert old.closes
        as_json = GET.replace(b"\r\n\r\n", b"\r\nAccept: application/json\r\n\r\n")
        assert json.loads((await ask(sock, as_json)).body)["token"] == good_token(twin)
        assert (await ask(sock, GET.replace(b"iris", b"flower"))).status == 404
        web_page = GET.replace(b"\r\n\r\n", b"\r\nOrigin: https://a.example\r\n\r\n")
        assert (await ask(sock, web_page)).status == 403
        assert twin._state.stats.login_attempts == 1

        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    assert not sock.exists()


async def test_on_tcp_only_our_own_names_are_answered(tmp_path: Path) -> None:
    """A web page that rebinds a name to loopback gets nothing, and the log names the address."""
    async with (
        running_twin() as twin,
        served(tmp_path, 0, settings(tmp_path, twin, token_listen="127.0.0.1:0")) as process,
    ):
        told = json.loads(await process.says("token endpoint on"))["message"]
        port = int(told.rpartition(":")[2])
        assert (await ask(port)).status == 200
        assert (await ask(port, GET.replace(b"localhost", b"127.0.0.1"))).status == 200
        foreign = await ask(port, GET.replace(b"localhost", b"evil.example"))
        assert foreign.status == 421
        assert foreign.values(b"x-auth-token") == []


async def test_a_reported_token_is_replaced_once(tmp_path: Path) -> None:
    """Every client that has it may report it; reports of a replaced token cost nothing."""
    sock = tmp_path / "token.sock"

    def report(fingerprint: bytes) -> bytes:
        return (
            b"POST /auth/iris/rejected?fingerprint=%b HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 0\r\n\r\n" % fingerprint
        )

    async with running_twin() as twin, served(tmp_path, 0, settings(tmp_path, twin)):
        first = (await ask(sock)).values(b"x-auth-token")[0]
        assert (await ask(sock, report(b""))).status == 400
        assert (await ask(sock, report(b"00000000"))).status == 200
        assert (await ask(sock)).values(b"x-auth-token") == [first]

        twin._state.tokens.revoke_all()
        for _ in range(3):
            reply = await ask(sock, report(fingerprint_of(first.decode())))
            assert reply.status == 200
            assert json.loads(reply.body) == {"renewing": True}
        assert (await ask(sock)).values(b"x-auth-token") == [good_token(twin).encode()]
        assert twin._state.stats.login_attempts == 2


async def test_without_a_token_the_answer_says_when_to_ask_again(tmp_path: Path) -> None:
    """In the shape of our own errors; and near its end nobody keeps a token."""
    sock = tmp_path / "token.sock"
    async with (
        running_twin(token_ttl_s=4.0) as twin,
        served(tmp_path, 0, settings(tmp_path, twin)),
    ):
        near = (await ask(sock)).values(b"cache-control")[0]
        assert near in {b"private, max-age=%d" % seconds for seconds in range(4)}
        await twin.stop()
        async with asyncio.timeout(100):
            while (reply := await ask(sock)).status == 200:  # noqa: ASYNC110  # its life ends unannounced
                await asyncio.sleep(0.02)
        assert reply.status == 503
        assert int(reply.values(b"retry-after")[0]) >= 1
        assert json.loads(reply.body)["error_code"] == "Gateway.TokenUnavailable"
        assert reply.values(b"x-auth-token") == []


async def test_a_reload_changes_what_is_handed_out(tmp_path: Path) -> None:
    """New services are known, removed ones are not; the address stays until the next start."""
    sock = tmp_path / "token.sock"
    async with running_twin() as twin, served(tmp_path, 0, settings(tmp_path, twin)) as process:
        assert (await ask(sock)).status == 200
        changed = settings(tmp_path, twin, token_listen=f"unix:{tmp_path / 'other.sock'}")
        changed["services"] = {"flower": changed["services"]["iris"]}
        process.write(changed)
        status, document = await reload(process)

        assert status == 200
        assert "token_listen: unix:" in document["warnings"][0]
        assert (await ask(sock)).status == 404
        assert (await ask(sock, GET.replace(b"iris", b"flower"))).status == 200


async def test_what_is_no_request_is_refused(tmp_path: Path) -> None:
    """By the same strict reader as callers'."""
    sock = tmp_path / "token.sock"
    async with running_twin() as twin, served(tmp_path, 0, settings(tmp_path, twin)):
        for said in (
            b"GET /auth/iris HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"\x16\x03\x01",
            b"BREW / HTTP/1.1\r\n\r\n",
        ):
            reply = await ask(sock, said)
            assert reply.status in {400, 501}, said
            assert reply.closes, said


async def test_requests_that_come_at_once_are_answered_in_order(tmp_path: Path) -> None:
    """Those that wait for the first login, too."""
    sock = tmp_path / "token.sock"
    async with (
        running_twin() as twin,
        served(tmp_path, 0, settings(tmp_path, twin)),
        caller(sock) as one,
    ):
        one.send(GET + GET.replace(b"iris", b"none") + GET)
        assert [(await one.reply()).status for _ in range(3)] == [200, 404, 200]


async def test_silent_connections_to_it_keep_nobody_out(tmp_path: Path) -> None:
    """More than there are files: callers, probes and those who ask for the token are served."""
    limit = ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh"]
    more = {"token_listen": "127.0.0.1:0"}
    async with (
        scripted_upstream(OK) as upstream,
        served(tmp_path, upstream.port, more, prefix=limit) as process,
    ):
        told = json.loads(await process.says("token endpoint on"))["message"]
        port = int(told.rpartition(":")[2])
        silent = [await connect(port) for _ in range(400)]
        for _ in range(30):
            one = await connect(process.port)
            one.send(IRIS)
            assert (await one.reply()).status == 200
            silent.append(one)
        assert (await process.ask_admin("/livez")).status == 200
        assert (await ask(port)).status == 200
        for one in silent:
            one.leave()
