"""TLS settings → contexts, shared where the settings and the content of their files are equal."""

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

from gateway.errors import ConfigError
from gateway.settings import Tls
from gateway.settings.listen_tls import ListenTls

ContextOf = Callable[[str, Tls], ssl.SSLContext]
"""Makes a client's context for settings, or returns one; as `tls_context` does."""


def tls_context(key: str, tls: Tls) -> ssl.SSLContext:
    """Return a client's context.

    The environment's SSLKEYLOGFILE is not followed: it would write the keys to every token sent.

    Args:
        key: of the settings, for the error.
        tls: the settings.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False  # RFC 9110 section 4.3.4: SAN only
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.ca_file:
            context.load_verify_locations(tls.ca_file)
        else:
            context.load_default_certs()
        if tls.client_cert_file:
            context.load_cert_chain(tls.client_cert_file, tls.client_key_file)
    except (ssl.SSLError, OSError) as cause:
        raise ConfigError(
            [f"{key}: a certificate or key cannot be used ({type(cause).__name__}); PEM is needed"]
        ) from cause
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def server_context(tls: ListenTls) -> ssl.SSLContext:
    """Return the context of the data listener.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # OpenSSL's two are a seventh of a handshake's cost each, whether or not a caller resumes.
    context.num_tickets = 1
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.client_ca_file is not None:
            context.load_verify_locations(tls.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, OSError) as cause:
        problem = f"a certificate or key cannot be used ({type(cause).__name__}); PEM is needed"
        raise ConfigError([f"listen_tls: {problem}"]) from cause
    return context


def server_digests(tls: ListenTls) -> tuple[bytes, ...]:
    """Return digests of the data listener's files. Blocks."""
    files = (tls.cert_file, tls.key_file, tls.client_ca_file)
    return tuple(_digest_of(file) for file in files if file)


def file_digests(tls: Tls) -> tuple[bytes, ...]:
    """Return digests of the certificate and key files, the system's authorities included. Blocks.

    An unreadable file has an empty digest: the code that needs the file reports the error.
    """
    system = ssl.get_default_verify_paths().cafile
    files = (tls.ca_file or (system and Path(system)), tls.client_cert_file, tls.client_key_file)
    return tuple(_digest_of(file) for file in files if file)


class TlsContexts:
    """The contexts of one configuration. Equal settings share one: each takes a MiB and 30 ms.

    Invariant: a context is shared only while settings and content of their files are equal.
    """

    def __init__(self, previous: "TlsContexts | None" = None) -> None:
        """Take contexts from `previous`, those before a reload, where nothing has changed."""
        self._contexts: dict[tuple[Tls, tuple[bytes, ...]], ssl.SSLContext] = {}
        self._previous = {} if previous is None else previous._contexts  # noqa: SLF001  # of its own class

    def get(self, key: str, tls: Tls) -> ssl.SSLContext:
        """Return the context for `tls`; see `tls_context`. Blocks."""
        made_of = (tls, file_digests(tls))
        if made_of not in self._contexts:
            self._contexts[made_of] = self._previous.get(made_of) or tls_context(key, tls)
        return self._contexts[made_of]

    def forget_previous(self) -> None:
        """Release contexts that this configuration does not use."""
        self._previous = {}


def _digest_of(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return b""
