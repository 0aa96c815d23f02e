"""What IAM and the network say to a configuration: connects everywhere, logs in once per identity.

Nothing here prints a token or a secret, and no login is made that could only lock an account.
"""

import asyncio
import socket
import ssl
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum

from gateway.cli.build import build_identity, tls_context, wall_clock
from gateway.errors import ConfigError
from gateway.identity.refresh import RefreshResult
from gateway.identity.source import Login, LoginError
from gateway.settings import Identity, Service, Settings, Tls
from gateway.settings.values import parse_url

LARGEST_SKEW_S = 30.0
"""Beyond it logs and certificates mislead; a `Date` field tells the time to the second."""
RENEWAL_DAYS = 14.0
"""A certificate that ends sooner is worth a warning."""
_CONNECT_TO_IAM_S = 5.0
_DAY_S = 86400.0

# X509_V_ERR_… of OpenSSL's x509_vfy.h
_NOT_YET, _EXPIRED = 9, 10
_UNKNOWN_ISSUERS = frozenset({2, 18, 19, 20, 21})
_OTHER_NAMES = frozenset({62, 64})


class Level(StrEnum):
    """How much a finding matters."""

    OK = "OK"
    WARN = "WARN"
    """It works, and deserves a second look."""
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found out; as text one line."""

    level: Level
    key: str
    """What it is about, as in the configuration: `services.iris`."""
    text: str
    """With the remedy, unless all is well."""
    is_local: bool = False
    """The fault is in files of this machine: nothing remote was asked."""

    def __str__(self) -> str:
        return f"{self.level:<4}  {self.key}  {self.text}"


class UnreachableError(Exception):
    """There is no good connection; the text says why and what to do."""


async def examine(settings: Settings) -> list[Finding]:
    """Log in with each identity, one after the other, and connect to each service.

    Cancellation: safe; leaves no connection behind.
    """
    findings: list[Finding] = []
    refused: set[Hashable] = set()
    for name, identity in settings.identities.items():
        findings += await _examine_identity(name, identity, refused)
    for found in await asyncio.gather(
        *(_examine_service(name, service) for name, service in settings.services.items())
    ):
        findings += found
    return findings


async def log_in(name: str, identity: Identity) -> Login:
    """Log in once.

    Raises:
        ConfigError: a certificate, secret or token file cannot be used; nobody was asked.
        LoginError: IAM refuses, or cannot be asked.
    """
    source = build_identity(name, identity).source
    try:
        await source.cache_key()  # reads the secret
        if identity.method == "file":
            return await source.fetch()
    except LoginError as error:
        raise ConfigError([f"identities.{name}: {error}"]) from None
    return await source.fetch()


def duration_text(seconds: float) -> str:
    """Write a duration for people: its largest unit and the next."""
    left = max(0, int(seconds))
    for unit, size, lesser, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if left >= size:
            return _joined(left // size, unit, left % size // part, lesser)
    return _joined(left // 60, "min", left % 60, "s") if left >= 60 else f"{left} s"


def _joined(count: int, unit: str, rest: int, lesser: str) -> str:
    return f"{count} {unit} {rest} {lesser}" if rest else f"{count} {unit}"


async def _examine_identity(name: str, identity: Identity, refused: set[Hashable]) -> list[Finding]:
    key = f"identities.{name}"
    account = build_identity(name, identity).source.account
    if account in refused:
        text = "not tried: the same account was refused above, and refused logins lock it"
        return [Finding(Level.FAIL, key, text)]
    findings: list[Finding] = []
    try:
        if identity.auth_url is not None:
            findings += await _examine_way(key, identity)
        login = await log_in(name, identity)
    except UnreachableError as error:
        return [Finding(Level.FAIL, key, str(error))]
    except ConfigError as error:
        texts = (problem.removeprefix(f"{key}: ") for problem in error.problems)
        return [Finding(Level.FAIL, key, text, is_local=True) for text in texts]
    except LoginError as error:
        if error.result is RefreshResult.REFUSED:
            refused.add(account)
        findings.append(Finding(Level.FAIL, key, f"{error.result}: {error}"))
        return findings + _examine_skew(key, error.skew_s)
    findings.append(Finding(Level.OK, key, _login_text(login)))
    return findings + _examine_skew(key, login.skew_s)


async def _examine_way(key: str, identity: Identity) -> list[Finding]:
    """Connect to IAM before any login is spent; what is good about it goes without saying."""
    url = parse_url(identity.auth_url or "")
    tls = tls_context(f"{key}.tls", identity.tls) if url.scheme == "https" else None
    ends_at = await _connect(url.host, url.port, tls, identity.tls, _CONNECT_TO_IAM_S)
    return _examine_end(key, ends_at)


async def _examine_service(name: str, service: Service) -> list[Finding]:
    key = f"services.{name}"
    tls = tls_context(f"{key}.tls", service.tls) if service.scheme == "https" else None
    try:
        ends_at = await _connect(
            service.host, service.port, tls, service.tls, service.timeouts.connect
        )
    except UnreachableError as error:
        return [Finding(Level.FAIL, key, str(error))]
    way = "without TLS" if tls is None else "over TLS"
    good = Finding(Level.OK, key, f"connected to {service.host}:{service.port} {way}")
    return [good, *_examine_end(key, ends_at)]


async def _connect(
    host: str, port: int, tls: ssl.SSLContext | None, settings: Tls, limit_s: float
) -> float | None:
    """Connect and leave; return when the certificate ends, seconds since the epoch, if known.

    Raises:
        UnreachableError: it cannot be done.
    """
    where = f"{host}:{port}"
    name = (settings.server_name or host) if tls is not None else None
    try:
        async with asyncio.timeout(limit_s):
            _, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=name)
    except TimeoutError:
        text = f"{where} does not answer within {limit_s:g} s: check address, routes and firewalls"
    except socket.gaierror:
        text = f"the host name {host} cannot be resolved: check its spelling and DNS"
    except ssl.SSLCertVerificationError as error:
        text = _distrust_text(where, str(name), error.verify_code)
    except ssl.SSLError:
        text = f"no TLS connection to {where} can be made: check scheme and port"
    except ConnectionRefusedError:
        text = f"{where} refuses connections: check address and port, and whether it is running"
    except OSError as error:
        text = f"{where} cannot be connected to: {error.strerror or type(error).__name__}"
    else:
        certificate = writer.get_extra_info("peercert")  # empty when it is not verified
        writer.transport.abort()
        return float(ssl.cert_time_to_seconds(certificate["notAfter"])) if certificate else None
    raise UnreachableError(text)


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


def _examine_end(key: str, ends_at: float | None) -> list[Finding]:
    if ends_at is None or (left_s := ends_at - wall_clock()) >= RENEWAL_DAYS * _DAY_S:
        return []
    text = f"its certificate expires in {duration_text(left_s)}: renew it"
    return [Finding(Level.WARN, key, text)]


def _examine_skew(key: str, skew_s: float | None) -> list[Finding]:
    if skew_s is None or abs(skew_s) <= LARGEST_SKEW_S:
        return []
    side = "ahead of" if skew_s > 0 else "behind"
    text = (
        f"this machine's clock is {duration_text(abs(skew_s))} {side} IAM's: tokens do not suffer, "
        "certificates and logs do; synchronise it (NTP)"
    )
    return [Finding(Level.WARN, key, text)]


def _login_text(login: Login) -> str:
    facts = login.facts
    if facts is None:
        return "no token is sent"
    token = f"token of {facts.length} bytes"
    if facts.user is None:
        return f"{token}; whose it is, and until when, is known to whoever writes the file"
    return (
        f"logged in as {facts.user} of {facts.domain} for project {facts.project}; "
        f"roles: {', '.join(facts.roles) or 'none'}; {token}"
    )
