"""The gateway's own listeners: the certificate that callers see, and the token's socket."""

import socket
import ssl
import stat
from pathlib import Path
from typing import Any

from gateway.clock import wall_clock
from gateway.diagnose.findings import Finding, Level, Step, duration_text
from gateway.diagnose.reachability import RENEWAL_DAYS
from gateway.settings import Settings
from gateway.settings.listen_tls import ListenTls

_DAY_S = 86400.0
_TURNS = 6
"""More than a handshake in memory takes."""
_EXPIRED, _NOT_YET = 10, 9


def examine_listeners(settings: Settings) -> list[Finding]:
    """Return what is found about `listen_tls` and `token_listen`; nothing if neither is set.

    Blocks: reads files, and connects to a socket file.
    """
    found = []
    if settings.listen_tls is not None:
        found.append(_certificate(settings.listen_tls))
    address = settings.token_listen
    if address is not None and address.path:
        found.append(_token_socket(Path(address.path)))
    return found


def _certificate(tls: ListenTls) -> Finding:
    key, step = "listen_tls", Step.LISTENER
    try:
        certificate = certificate_in(tls.cert_file, tls.key_file)
    except ssl.SSLCertVerificationError as error:
        text = f"{tls.cert_file}: {_refusal(error.verify_code)}"
        return Finding(Level.FAIL, key, step, text, is_local=True)
    left_s = float(ssl.cert_time_to_seconds(certificate["notAfter"])) - wall_clock()
    names = [value for _, value in certificate.get("subjectAltName", ())]
    if not names:
        text = (
            f"{tls.cert_file} has no alternative names, so clients refuse it: have it issued with "
            "the names that callers use"
        )
        return Finding(Level.FAIL, key, step, text, is_local=True)
    if left_s < RENEWAL_DAYS * _DAY_S:
        text = (
            f"{tls.cert_file} expires in {duration_text(left_s)}: renew it; the gateway takes it "
            "by itself"
        )
        return Finding(Level.WARN, key, step, text)
    callers = "without certificates" if tls.client_ca_file is None else "with certificates"
    if tls.allowed_clients:
        callers = f"with one of {len(tls.allowed_clients)} name(s)"
    shown = ", ".join("".join(c if c.isprintable() else "?" for c in name[:80]) for name in names)
    text = f"certificate for {shown}, {duration_text(left_s)} left; callers {callers}"
    return Finding(Level.OK, key, step, text)


def _refusal(code: int) -> str:
    if code == _EXPIRED:
        return "has expired, so callers refuse it: renew it; the gateway takes it by itself"
    if code == _NOT_YET:
        return "is not valid yet: set this machine's clock"
    return f"is not accepted as a server's (OpenSSL's code {code}): have it issued for servers"


def certificate_in(cert_file: Path, key_file: Path | None) -> dict[str, Any]:
    """Return a certificate as a client sees it, by a handshake in memory. Blocks on the disk.

    Raises:
        ssl.SSLCertVerificationError: a client that trusts exactly this certificate refuses it.
        ssl.SSLError, OSError: the files cannot be used.
    """
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(cert_file, key_file)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(cert_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = own.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_TURNS):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.getpeercert() or {}


def _token_socket(path: Path) -> Finding:
    key, step = "token_listen", Step.LISTENER
    try:
        mode = path.stat().st_mode
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(2.0)
            caller.connect(str(path))
    except FileNotFoundError:
        text = f"{path} is not there: no gateway with this configuration runs here"
        return Finding(Level.WARN, key, step, text)
    except PermissionError:
        text = f"{path}: this user may not connect; token_listen_mode and the file's group say who"
        return Finding(Level.WARN, key, step, text)
    except OSError:
        text = f"{path} takes no connection: start the gateway that it belongs to"
        return Finding(Level.WARN, key, step, text)
    return Finding(Level.OK, key, step, f"{path} takes connections; mode {stat.S_IMODE(mode):04o}")
