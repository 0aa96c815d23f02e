"""TLS for callers: who may call, and files that change while the gateway runs."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.assembly.tls import server_context
from gateway.settings.listen_tls import ListenTls
from tests.life.test_reload import reload
from tests.support.client import Caller
from tests.support.gateway import POST
from tests.support.served import Served, served
from tests.support.until import until
from tests.support.upstream import answer, scripted_upstream


class Pki:
    """An authority, the gateway's certificate and those of callers, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.pem")
        self.renew()

    def renew(self) -> None:
        """Write another certificate of the gateway."""
        made = self.authority.issue_cert("localhost")
        made.private_key_and_cert_chain_pem.write_to_path(self.folder / "tls.pem")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return `listen_tls`."""
        return {
            "listen_tls": {
                "cert_file": str(self.folder / "tls.pem"),
                "client_ca_file": str(self.folder / "ca.pem"),
            }
            | changes
        }

    def context(self, *names: str, authority: trustme.CA | None = None) -> ssl.SSLContext:
        """Return the context of a caller whose certificate has these names; none: without one."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        if names:
            (authority or self.authority).issue_cert(*names).configure_cert(context)
        return context


async def call(process: Served, context: ssl.SSLContext) -> tuple[int, bytes, bytes]:
    """Send one request; return status and body, and the certificate that was shown."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", process.port, ssl=context, server_hostname="localhost"
    )
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    caller = Caller(reader, writer)
    caller.send(POST)
    try:
        reply = await caller.reply()
    finally:
        caller.leave()
    return reply.status, reply.body, shown


async def test_callers_are_known_by_the_names_in_their_certificates(tmp_path: Path) -> None:
    """One of the list is served, another gets 403, and without a certificate nobody connects."""
    pki = Pki(tmp_path)
    settings = pki.settings(allowed_clients=["app.example", "10.1.2.3"])
    async with (
        scripted_upstream(answer(200, b"served")) as upstream,
        served(tmp_path, upstream.port, settings) as process,
    ):
        assert process.address.startswith("https://")
        assert (await call(process, pki.context("app.example")))[:2] == (200, b"served")
        assert (await call(process, pki.context("x.example", "10.1.2.3")))[0] == 200
        status, body, _ = await call(process, pki.context("other.example"))
        assert status == 403
        assert json.loads(body)["error_code"] == "Gateway.ClientNotAllowed"
        for context in (pki.context(), pki.context("app.example", authority=trustme.CA())):
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                await call(process, context)
        assert len(upstream.requests) == 2

        name = "gateway_client_connections_total"
        assert await process.sample(name, client="app.example") == 1
        assert await process.sample(name, client="10.1.2.3") == 1
        assert await process.sample(name, client="other") == 1
        assert await process.sample(name) == 3


def test_the_oldest_version_is_1_2(tmp_path: Path) -> None:
    """Whatever the system's OpenSSL would take."""
    Pki(tmp_path)

    context = server_context(ListenTls.model_validate({"cert_file": tmp_path / "tls.pem"}))

    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


def test_a_caller_may_resume_its_session(tmp_path: Path) -> None:
    """By the one ticket that it gets, and its certificate's names are known as before."""
    pki = Pki(tmp_path)
    caller = pki.context("app.example")
    listen_tls = ListenTls.model_validate(pki.settings()["listen_tls"])
    context = server_context(listen_tls)

    first, _ = handshake(context, caller, None)
    second, ours = handshake(context, caller, first.session)

    assert context.num_tickets == 1
    assert not first.session_reused
    assert second.session_reused
    known = ours.getpeercert()
    assert known is not None
    assert known["subjectAltName"] == (("DNS", "app.example"),)


def handshake(
    context: ssl.SSLContext, caller: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Connect a caller in memory, and let it read one byte; return its end and ours."""
    to_us, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = caller.wrap_bio(to_caller, to_us, server_hostname="localhost", session=session)
    ours = context.wrap_bio(to_us, to_caller, server_side=True)
    waiting = [theirs, ours]
    while waiting:
        one = waiting.pop(0)
        try:
            one.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(one)
    ours.write(b"x")
    assert theirs.read(1) == b"x"
    return theirs, ours


async def test_a_renewed_certificate_is_taken_by_itself(tmp_path: Path) -> None:
    """As cert-manager renews it: nobody reloads. Files that do not fit change nothing."""
    pki = Pki(tmp_path)
    context = pki.context("app.example")
    async with (
        scripted_upstream(answer(200, b"served")) as upstream,
        served(tmp_path, upstream.port, pki.settings()) as process,
    ):
        _, _, before = await call(process, context)
        good = (tmp_path / "tls.pem").read_bytes()
        (tmp_path / "tls.pem").write_text("no certificate")
        await process.says("its files have changed and cannot be used")
        assert (await call(process, context))[2] == before
        (tmp_path / "tls.pem").write_bytes(good)
        pki.renew()
        await process.says("new connections get the certificate that has changed")
        status, _, after = await call(process, context)
        assert status == 200
        assert after != before


async def test_new_files_are_taken_without_a_lost_request(tmp_path: Path) -> None:
    """Callers connect and call all the time; what cannot be used changes nothing."""
    pki = Pki(tmp_path)
    context = pki.context("app.example")
    async with (
        scripted_upstream(answer(200, b"served")) as upstream,
        served(tmp_path, upstream.port, pki.settings()) as process,
    ):
        statuses: list[int] = []
        certificates: list[bytes] = []
        stop = asyncio.Event()

        async def keep_calling() -> None:
            while not stop.is_set():
                status, _, certificate = await call(process, context)
                statuses.append(status)
                certificates.append(certificate)
                await asyncio.sleep(0.005)

        calling = [asyncio.create_task(keep_calling()) for _ in range(3)]
        for _ in range(3):
            pki.renew()
            assert (await reload(process))[0] == 200
            count = len(statuses)
            await until(lambda count=count: len(statuses) >= count + 5)  # type: ignore[misc]
        process.write(json.loads(process.file.read_text()) | pki.settings(allowed_clients=["no"]))
        assert (await reload(process))[0] == 200
        stop.set()
        await asyncio.gather(*calling)
        assert set(statuses) <= {200, 403}
        assert len(set(certificates)) == 4
        assert (await call(process, context))[0] == 403

        (tmp_path / "tls.pem").write_text("no certificate")
        status, document = await reload(process)
        assert status == 422
        assert document["problems"][0].startswith("listen_tls: a certificate or key")
        assert (await call(process, context))[0] == 403
