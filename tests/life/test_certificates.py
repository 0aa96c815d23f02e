"""F47: a service's certificate that expires or is renewed while the gateway runs."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from tests.exchange.test_drain import Gate
from tests.support.client import Reply, connect
from tests.support.gateway import POST
from tests.support.served import Served, served, settings_of
from tests.support.until import until
from tests.support.upstream import scripted_upstream

NAME = "127.0.0.1"


async def ask(process: Served) -> Reply:
    """Send one request on a connection of its own."""
    caller = await connect(process.port)
    caller.send(POST)
    reply = await caller.reply()
    caller.leave()
    return reply


async def test_every_handshake_is_verified_anew(tmp_path: Path) -> None:
    """Expired: connections there are go on, new ones are 502 and counted; renewed: served again,
    without a restart."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(server)
    gate = Gate()
    async with scripted_upstream(gate, tls=server) as upstream:
        settings = settings_of(0)
        settings["services"]["iris"] = {
            "url": f"https://{NAME}:{upstream.port}/x",
            "tls": {"ca_file": str(tmp_path / "ca.pem")},
        }
        async with served(tmp_path, 0, settings) as process:
            busy = asyncio.create_task(ask(process))
            await until(lambda: upstream.requests)

            expired = datetime.now(UTC) - timedelta(minutes=1)
            authority.issue_cert(NAME, not_after=expired).configure_cert(server)
            reply = await ask(process)
            assert reply.status == 502
            assert b"Gateway.TlsCertificateError" in reply.body
            alarm = "gateway_errors_total"
            assert await process.sample(alarm, error="tls_certificate_error") == 1
            gate.open.set()
            assert (await busy).body == b"ok"
            assert (await ask(process)).body == b"ok", "on the connection that was verified"
            gate.open.clear()

            authority.issue_cert(NAME).configure_cert(server)
            asking = [asyncio.create_task(ask(process)) for _ in range(2)]
            await until(lambda: len(upstream.requests) == 4)
            gate.open.set()
            assert [reply.body for reply in await asyncio.gather(*asking)] == [b"ok", b"ok"]
            assert await process.sample(alarm, error="tls_certificate_error") == 1
