"""Settings of TLS for callers → a context, and the list of those who may call."""

import ssl
from dataclasses import dataclass

from gateway.assembly.tls import server_context, server_digests
from gateway.downstream.client_names import ClientNames
from gateway.settings.listen_tls import ListenTls


@dataclass(frozen=True, slots=True)
class BuiltListenTls:
    """What the data listener needs for TLS."""

    made_of: object
    """Equal for settings and files that would make the same."""
    context: ssl.SSLContext
    names: ClientNames | None
    """None: callers need no certificate."""


def build_listen_tls(settings: ListenTls, known: BuiltListenTls | None) -> BuiltListenTls:
    """Build the context and the list, or return `known` if they would be the same. Blocks.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    made_of = (settings, server_digests(settings))
    if known is not None and known.made_of == made_of:
        return known
    names = None
    if settings.client_ca_file is not None:
        before = known.names.connections if known is not None and known.names is not None else None
        names = ClientNames(settings.allowed_clients, before)
    return BuiltListenTls(made_of, server_context(settings), names)
