"""Tries to reach a host step by step: its name, a TCP connection, TLS. Sends no request."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.clock import wall_clock
from gateway.diagnose.findings import Finding, Level, Step, duration_text
from gateway.errors import UpstreamError
from gateway.http.connect import (
    EgressProxy,
    connect_request,
    connect_status,
    refusal_of,
    tunnel_error,
)

RENEWAL_DAYS = 14.0
"""A certificate that expires sooner gets a warning."""
_DAY_S = 86400.0

# X509_V_ERR_… of OpenSSL's x509_vfy.h
_NOT_YET, _EXPIRED = 9, 10
_UNKNOWN_ISSUERS = frozenset({2, 18, 19, 20, 21})
_OTHER_NAMES = frozenset({62, 64})

Lookup = Callable[..., list[Any]]
"""`socket.getaddrinfo`, or a test's replacement."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """When to give up."""

    at: float
    """On the loop's clock."""
    seconds: float
    """Of all steps together, for the text."""

    def __str__(self) -> str:
        return f"within {self.seconds:g} s"


class _BlockedError(Exception):
    """A step cannot be done; the text says why and what to do."""

    def __init__(self, step: Step, text: str) -> None:
        super().__init__(text)
        self.step = step


async def walk(
    key: str,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None,
    server_name: str | None,
    limit_s: float,
    proxy: EgressProxy | None = None,
    lookup: Lookup = socket.getaddrinfo,
) -> list[Finding]:
    """Try each step until one fails; return a finding per step.

    Args:
        key: what the findings are about.
        host: name or address; an address needs no look-up and gets no line for it.
        port: 1 to 65535.
        tls: how to verify the other side; None for plain TCP.
        server_name: the name to ask for and verify instead of `host`.
        limit_s: seconds for all steps together.
        proxy: what opens a tunnel to the host, which is then not looked up here.
        lookup: resolves names; blocks.

    Cancellation: safe; leaves no connection behind. A look-up under way ends in its thread, which
    does not keep the process.
    """
    findings: list[Finding] = []
    writer: asyncio.StreamWriter | None = None
    try:
        limit = _Limit(asyncio.get_running_loop().time() + limit_s, limit_s)
        hop, hop_port = (host, port) if proxy is None else (proxy.host, proxy.port)
        addresses = await _resolve(hop, hop_port, limit, lookup)
        if addresses != [hop]:
            told = f"{hop} is {', '.join(addresses[:4])}{', …' if len(addresses) > 4 else ''}"
            findings.append(Finding(Level.OK, key, Step.DNS, told))
        reader, writer, address = await _connect(hop, addresses, hop_port, limit)
        told = f"connected to {_joined(address, hop_port)}"
        findings.append(Finding(Level.OK, key, Step.TCP, told))
        if proxy is not None:
            await _ask_for_tunnel(reader, writer, proxy, limit, (host, port))
            told = f"the egress proxy opens a tunnel to {_joined(host, port)}"
            findings.append(Finding(Level.OK, key, Step.PROXY, told))
        if tls is not None:
            name = server_name or host
            await _shake_hands(writer, f"{host}:{port}", name, tls, limit)
            findings.append(_certificate(key, writer))
    except _BlockedError as error:
        findings.append(Finding(Level.FAIL, key, error.step, str(error)))
    finally:
        if writer is not None:
            writer.transport.abort()
    return findings


async def _resolve(host: str, port: int, limit: _Limit, lookup: Lookup) -> list[str]:
    """Return addresses in the order in which they are tried, each once."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def tell(result: list[Any] | Exception) -> None:
        if found.done():
            return
        if isinstance(result, Exception):
            found.set_exception(result)
        else:
            found.set_result(result)

    def look() -> None:
        try:
            result: list[Any] | Exception = lookup(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            result = error
        with suppress(RuntimeError):  # the loop is closed: nothing waits for the result
            loop.call_soon_threadsafe(tell, result)

    # Not in the loop's own threads: those are waited for at the end, and a resolver may take 30 s.
    threading.Thread(target=look, name="lookup", daemon=True).start()
    try:
        async with asyncio.timeout_at(limit.at):
            infos = await found
    except TimeoutError:
        text = (
            f"the host name {host} is not resolved {limit}: no name server answers; "
            "check /etc/resolv.conf and the way to it"
        )
    except socket.gaierror as error:
        why = (
            "no name server answers properly; check /etc/resolv.conf and the way to it"
            if error.errno == socket.EAI_AGAIN
            else "check its spelling and DNS"
        )
        text = f"the host name {host} cannot be resolved: {why}"
    except (OSError, UnicodeError):
        text = f"the host name {host} cannot be resolved: check its spelling and DNS"
    else:
        return list(dict.fromkeys(info[4][0] for info in infos))
    raise _BlockedError(Step.DNS, text)


async def _connect(
    host: str, addresses: list[str], port: int, limit: _Limit
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """Connect to the first address that accepts; return it, too."""
    where = f"{host}:{port}"
    text = f"{where} has no address"
    for address in addresses:
        try:
            async with asyncio.timeout_at(limit.at):
                reader, writer = await asyncio.open_connection(address, port)
        except TimeoutError:
            text = f"{where} does not answer {limit}: check address, routes and firewalls"
            break
        except ConnectionRefusedError:
            text = f"{where} refuses connections: check address and port, and whether it is running"
        except OSError as error:
            text = f"{where} cannot be connected to: {error.strerror or type(error).__name__}"
        else:
            return reader, writer, address
    raise _BlockedError(Step.TCP, text)


async def _ask_for_tunnel(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    proxy: EgressProxy,
    limit: _Limit,
    target: tuple[str, int],
) -> None:
    received = b""
    where = f"the egress proxy {proxy.authority}"
    try:
        async with asyncio.timeout_at(limit.at):
            writer.write(connect_request(*target, proxy.authorization))
            while (status := connect_status(received)) is None:
                data = await reader.read(4096)
                if not data:
                    raise tunnel_error("it closed the connection without a response")
                received += data
        text = refusal_of(status)
    except TimeoutError:
        text = f"it does not answer {limit}: check its load and its way out"
    except UpstreamError as error:
        text = str(error).removeprefix("egress proxy: ")
    except OSError as error:
        text = f"the connection to it breaks ({type(error).__name__})"
    if text:
        raise _BlockedError(Step.PROXY, f"{where}: {text}")


async def _shake_hands(
    writer: asyncio.StreamWriter,
    where: str,
    name: str,
    tls: ssl.SSLContext,
    limit: _Limit,
) -> None:
    try:
        async with asyncio.timeout_at(limit.at):
            await writer.start_tls(tls, server_hostname=name)
    except TimeoutError:
        text = (
            f"{where} accepts connections, but no TLS handshake ends {limit}: check "
            "port and firewalls"
        )
    except ssl.SSLCertVerificationError as error:
        text = _distrust_text(where, name, error.verify_code)
    except (OSError, EOFError):  # ssl.SSLError is one
        text = f"no TLS connection to {where} can be made: check scheme and port"
    else:
        return
    raise _BlockedError(Step.TLS, text)


def _distrust_text(where: str, name: str, code: int) -> str:
    if code == _EXPIRED:
        return f"the certificate of {where} has expired: renew it, or set this machine's clock"
    if code == _NOT_YET:
        return f"the certificate of {where} is not valid yet: set this machine's clock"
    if code in _OTHER_NAMES:
        return f"the certificate of {where} is not for {name}: check the host, or tls.server_name"
    if code in _UNKNOWN_ISSUERS:
        return f"the certificate of {where} is not trusted: set tls.ca_file to its authority"
    return f"the certificate of {where} is not accepted (OpenSSL's code {code})"


def _certificate(key: str, writer: asyncio.StreamWriter) -> Finding:
    version = writer.get_extra_info("ssl_object").version()
    certificate = writer.get_extra_info("peercert")
    if not certificate:  # it is not even read when it is not verified
        text = f"{version}; the certificate is not looked at (tls.verify: false)"
        return Finding(Level.OK, key, Step.TLS, text)
    left_s = float(ssl.cert_time_to_seconds(certificate["notAfter"])) - wall_clock()
    if left_s < RENEWAL_DAYS * _DAY_S:
        text = f"its certificate expires in {duration_text(left_s)}: renew it"
        return Finding(Level.WARN, key, Step.TLS, text)
    issuer = next(_names(certificate["issuer"]), "somebody without a name")
    text = f"{version}; certificate by {issuer}, {duration_text(left_s)} left"
    return Finding(Level.OK, key, Step.TLS, text)


def _names(distinguished: tuple[tuple[tuple[str, str], ...], ...]) -> Iterator[str]:
    """Yield the names of a certificate's issuer, the common name first."""
    known = {kind: value for group in distinguished for kind, value in group}
    for kind in ("commonName", "organizationName", "organizationalUnitName"):
        if name := known.get(kind):
            yield "".join(char if char.isprintable() else "?" for char in name[:80])


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
