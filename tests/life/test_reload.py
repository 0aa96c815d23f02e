"""F45: a configuration that changes under a running gateway: taken as a whole, or not at all."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.twin import Twin
from tests.cloud.serving import CALL, password_identity
from tests.exchange.test_drain import Gate
from tests.exchange.test_tls import server_context
from tests.support.client import connect
from tests.support.gateway import POST
from tests.support.rows import every_row
from tests.support.served import Served, served, settings_of
from tests.support.twin import running_twin
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Upstream, answer, scripted_upstream

OTHER = POST.replace(b"/iris/", b"/other/")


async def reload(process: Served) -> tuple[int, dict[str, Any]]:
    """Ask for a reload; return the status and what is said."""
    reply = await process.ask_admin("/reload", method="POST")
    document = json.loads(reply.body)
    assert isinstance(document, dict)
    return reply.status, document


async def ask(process: Served, request: bytes = POST) -> tuple[int, bytes]:
    """Send one request on a connection of its own; return status and body."""
    caller = await connect(process.port)
    caller.send(request)
    reply = await caller.reply()
    caller.leave()
    return reply.status, reply.body


async def verdict(process: Served) -> float | None:
    return await process.sample("gateway_config_last_reload_successful")


@pytest.fixture
async def first() -> AsyncIterator[Upstream]:
    async with scripted_upstream(answer(200, b"first")) as upstream:
        yield upstream


@pytest.fixture
async def second() -> AsyncIterator[Upstream]:
    async with scripted_upstream(answer(200, b"second")) as upstream:
        yield upstream


async def test_the_status_page_follows(first: Upstream, tmp_path: Path) -> None:
    """It shows the settings in force, the names in force may ask for it, and a failure is told."""

    async def status(host: str = "localhost") -> tuple[int, Any]:
        caller = await connect(process.admin_port)
        caller.send(f"GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        reply = await caller.reply()
        caller.leave()
        return reply.status, json.loads(reply.body) if reply.status == 200 else None

    def setting(document: Any, key: str) -> tuple[str, str]:
        [row] = [row for row in document["configuration"] if row["key"] == key]
        return row["value_shown"], row["origin"]

    async with served(tmp_path, first.port) as process:
        _, document = await status()
        assert setting(document, "allowed_hosts") == ("[]", "default")
        assert (await status("gateway.internal"))[0] == 421
        process.write(settings_of(first.port) | {"allowed_hosts": ["gateway.internal"]})
        assert (await reload(process))[0] == 200

        code, document = await status("gateway.internal")
        assert code == 200
        value, origin = setting(document, "allowed_hosts")
        assert value == "[gateway.internal]"
        assert origin.startswith("file ")
        assert document["reload"]["successful"] is True

        process.write({"services": {}})
        assert (await reload(process))[0] == 422
        _, document = await status()
        assert document["reload"]["successful"] is False
        assert setting(document, "allowed_hosts")[0] == "[gateway.internal]"


async def test_a_good_one_is_swapped_in(first: Upstream, second: Upstream, tmp_path: Path) -> None:
    """By POST and by SIGHUP: services come, move and go; counters go on, no series is late."""
    async with served(tmp_path, first.port) as process:
        began = await process.sample("gateway_config_last_reload_success_timestamp_seconds")
        assert await ask(process) == (200, b"first")
        assert (await ask(process, OTHER))[0] == 404
        moved = settings_of(second.port)
        moved["services"]["other"] = {"url": f"http://127.0.0.1:{first.port}/x", "methods": "PUT"}
        process.write(moved)

        assert await reload(process) == (200, {"reloaded": True, "problems": [], "warnings": []})

        assert await ask(process) == (200, b"second")
        assert (await ask(process, OTHER.replace(b"POST", b"PUT")))[0] == 200
        count = "gateway_requests_total"
        assert await process.sample(count, service="iris", code="200") == 2
        assert await process.sample(count, service="other", method="PUT", code="200") == 1
        failed = "gateway_errors_total"
        assert await process.sample(failed, service="other", error="connection_refused") == 0
        assert began is not None
        later = await process.sample("gateway_config_last_reload_success_timestamp_seconds")
        assert later is not None
        assert later > began

        process.write(settings_of(first.port))
        process.signal(signal.SIGHUP)
        await process.says("configuration reloaded", times=2)

        assert await ask(process) == (200, b"first")
        assert (await ask(process, OTHER))[0] == 404
        assert await process.sample(count, service="iris", code="200") == 3
        await process.sample(count)  # a service that has gone is told of once more
        assert await process.sample(count, service="other") is None


async def test_requests_in_flight_keep_what_they_began_with(
    second: Upstream, tmp_path: Path
) -> None:
    """Their service, connection and rules: an upload goes on where it began, an answer arrives."""
    gate = Gate()
    async with scripted_upstream(gate) as old, served(tmp_path, old.port) as process:
        waiting, sending = await connect(process.port), await connect(process.port)
        waiting.send(POST)
        sending.send(POST[:-1])
        await until(lambda: len(old.links) == 2)
        await until(lambda: len(old.requests) == 2)
        changed = settings_of(second.port)
        changed["services"] = {"other": changed["services"]["iris"] | {"max_body": 0}}
        process.write(changed)

        assert (await reload(process))[0] == 200

        assert await process.sample("gateway_requests_in_flight", service="iris") == 2
        sending.send(POST[-1:])
        await until(lambda: old.requests[1].whole or old.requests[0].whole)
        gate.open.set()
        for caller in (waiting, sending):
            reply = await caller.reply()
            assert (reply.status, reply.body) == (200, b"ok")
            caller.send(POST)  # on the same connection, by the new rules
            assert (await caller.reply()).status == 404
            caller.leave()
        assert await process.sample("gateway_requests_total", service="iris", code="200") == 2
    assert second.requests == []
    assert len(old.links) == 2


async def test_what_was_known_is_judged_by_the_new_rules(
    first: Upstream, second: Upstream, tmp_path: Path
) -> None:
    """A head that a connection has sent again and again goes where it now belongs."""
    async with served(tmp_path, first.port) as process:
        caller = await connect(process.port)
        for port, said in ((second.port, b"first"), (first.port, b"second")):
            for _ in range(4):
                caller.send(POST)
                assert (await caller.reply()).body == said
            process.write(settings_of(port))
            assert (await reload(process))[0] == 200
        caller.leave()


BAD = {
    "unparseable": b"services: {iris: [",
    "empty": b"",
    "partial": b'{"services": {"iris": {"url": "http://127.0.0.1:1/v1/inf',
    "invalid": b'{"services": {"iris": {"ulr": "http://127.0.0.1:1/"}}}',
    "not text": b"\xff\xfe\x00",
}


async def test_a_bad_one_changes_nothing(first: Upstream, tmp_path: Path) -> None:
    """The old one stays whole; the answer, the log and the gauge say so, until a good one comes."""
    instant = "gateway_config_last_reload_success_timestamp_seconds"
    async with served(tmp_path, first.port) as process:
        with every_row() as trying:
            for times, name in enumerate(BAD, 1):
                with trying(name):
                    began = await process.sample(instant)
                    process.file.write_bytes(BAD[name])

                    status, said = await reload(process)

                    assert (status, said["reloaded"]) == (422, False)
                    assert said["problems"]
                    await process.says("not reloaded, the old configuration stays", times=times)
                    assert await verdict(process) == 0
                    assert began == await process.sample(instant)
                    assert await ask(process) == (200, b"first")
                    assert (await process.ask_admin("/readyz")).status == 200

                    process.write(settings_of(first.port))
                    assert (await reload(process))[0] == 200
                    assert await verdict(process) == 1


async def test_what_cannot_be_read_changes_nothing(first: Upstream, tmp_path: Path) -> None:
    """A file that is gone, a secret that is empty, a certificate that is none: all are named."""
    async with served(tmp_path, first.port) as process:
        process.file.unlink()
        status, said = await reload(process)
        assert status == 422
        assert "gateway.yaml" in said["problems"][0]

        for name in ("password", "ca"):
            (tmp_path / name).write_text("")
        changed = settings_of(first.port)
        changed["identities"]["new"] = {
            "auth_url": "http://127.0.0.1:1",
            "username": "u",
            "user_domain": "d",
            "project": "p",
            "password_file": str(tmp_path / "password"),
        }
        process.write(changed)
        status, said = await reload(process)
        assert status == 422
        [problem] = said["problems"]
        assert problem.startswith("identities.new.password_file: ")

        changed = settings_of(first.port)
        for name in ("one", "two"):
            changed["services"][name] = {
                "url": "https://127.0.0.1:1/" + name,
                "tls": {"ca_file": str(tmp_path / "ca")},
            }
        process.write(changed)
        status, said = await reload(process)
        assert status == 422
        assert [p.partition(":")[0] for p in said["problems"]] == [
            "services.one.tls",
            "services.two.tls",
        ]
        assert await ask(process) == (200, b"first")
        assert (await ask(process, OTHER))[0] == 404


async def test_listeners_stay_and_that_is_said(first: Upstream, tmp_path: Path) -> None:
    """Addresses are for the start; everything else of the same file is put in force."""
    async with served(tmp_path, first.port) as process:
        changed = settings_of(first.port) | {"listen": "127.0.0.1:1", "quitquitquit": True}
        changed["services"]["other"] = changed["services"]["iris"]
        process.write(changed)

        status, said = await reload(process)

        assert status == 200
        assert [w.partition(":")[0] for w in said["warnings"]][-2:] == ["listen", "quitquitquit"]
        await process.says("listen: 127.0.0.1:1 takes effect at the next start")
        assert (await ask(process, OTHER))[0] == 200
        assert (await process.ask_admin("/quitquitquit", method="POST")).status == 404


async def test_who_may_reload_and_how_often(first: Upstream, tmp_path: Path) -> None:
    """A page that is open on this machine can send a POST, but not without these fields.

    Of many at once one reads, the others share the next one's outcome: callers cannot queue up
    work.
    """
    async with served(tmp_path, first.port) as process:
        for fields in ("Origin: http://a.example\r\n", "Sec-Fetch-Site: none\r\n"):
            reply = await process.ask_admin("/reload", method="POST", fields=fields)
            assert reply.status == 403, fields
        assert not any("reloaded" in line for line in process.log)

        done = await asyncio.gather(*(reload(process) for _ in range(20)))
        assert {status for status, _ in done} == {200}
        count = sum("configuration reloaded" in line for line in process.log)
        assert 1 <= count <= 10
        for _ in range(5):
            process.signal(signal.SIGHUP)
        assert await ask(process) == (200, b"first")


@pytest.fixture
async def twin() -> AsyncIterator[Twin]:
    async with running_twin() as running:
        yield running


def with_tokens(twin: Twin, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return settings of a gateway that logs in at the twin."""
    from gateway.twin import IRIS_ID

    settings = settings_of(1)
    settings["identities"] = {"default": password_identity(twin.auth_url, folder, **changes)}
    settings["services"] = {"iris": {"url": twin.service_url(IRIS_ID)}}
    return settings


async def logins(process: Served) -> float | None:
    return await process.sample("gateway_token_refreshes_total")


async def test_tokens_outlive_a_reload(twin: Twin, tmp_path: Path) -> None:
    """No login for an identity that has not changed, nor for one with another name or timeout;
    one for another project."""
    settings = with_tokens(twin, tmp_path)
    async with served(tmp_path, 1, settings) as process:
        assert (await ask(process, CALL))[0] == 200
        assert await logins(process) == 1

        settings["services"]["iris"]["timeouts"] = {"first_byte": "9s"}
        process.write(settings)
        assert (await reload(process))[0] == 200
        assert (await ask(process, CALL))[0] == 200
        assert await logins(process) == 1

        settings["identities"]["renamed"] = settings["identities"].pop("default")
        settings["services"]["iris"]["identity"] = "renamed"
        process.write(settings)
        assert (await reload(process))[0] == 200
        assert (await ask(process, CALL))[0] == 200
        assert await logins(process) == 0, "the series of the new name begin anew"
        assert await process.sample("gateway_token_refreshes_total", identity="default") is None
        logged_in = [line for line in process.log if "logged in" in line]
        assert len(logged_in) == 1


async def test_a_secret_is_read_again(twin: Twin, tmp_path: Path) -> None:
    """A reload tries a changed password at once, and what works goes on working meanwhile.

    The look every 2 s would not try it: it must see it twice, and by then the file is as it was.
    """
    name = "gateway_token_refreshes_total"
    async with served(tmp_path, 1, with_tokens(twin, tmp_path)) as process:
        assert (await ask(process, CALL))[0] == 200
        file = tmp_path / "password"
        right = file.read_text()
        file.write_text("wrong")
        assert (await reload(process))[0] == 200
        file.write_text(right)
        async with asyncio.timeout(PATIENCE_S):  # a login with either of them
            while not await process.sample(name, trigger="secret_change"):
                pass
        assert (await ask(process, CALL))[0] == 200


async def test_certificates_are_read_again(tmp_path: Path) -> None:
    """A file with other content is another way to the service, although its name is the same."""
    old, new = trustme.CA(), trustme.CA()
    file = tmp_path / "ca.pem"
    old.cert_pem.write_to_path(str(file))
    async with scripted_upstream(OK, tls=server_context(new)) as upstream:
        settings = settings_of(1)
        settings["services"]["iris"] = {
            "url": f"https://127.0.0.1:{upstream.port}/x",
            "tls": {"ca_file": str(file)},
        }
        async with served(tmp_path, 1, settings) as process:
            status, body = await ask(process)
            assert status == 502
            assert b"TlsCertificateError" in body
            new.cert_pem.write_to_path(str(file))
            assert (await reload(process))[0] == 200
            assert await ask(process) == (200, b"ok")
            assert (await reload(process))[0] == 200
            assert await ask(process) == (200, b"ok")
        assert len(upstream.links) == 1, "an unchanged way keeps its connections"


async def test_no_reload_while_it_ends(tmp_path: Path) -> None:
    """What drains is not changed any more; a client that asks for it is told so."""
    gate = Gate()
    async with scripted_upstream(gate) as upstream, served(tmp_path, upstream.port) as process:
        busy, idle = await connect(process.port), await connect(process.port)
        busy.send(POST)
        await until(lambda: upstream.requests)
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await idle.rest()  # the signal has been heard
        process.signal(signal.SIGHUP)
        status, said = await reload(process)
        assert (status, said["reloaded"]) == (409, False)
        gate.open.set()
        assert (await busy.reply()).body == b"ok"
        busy.leave()
        idle.leave()
        assert await process.ended() == 0
