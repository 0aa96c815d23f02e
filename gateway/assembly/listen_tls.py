"""Settings of TLS for callers → a context, and the list of those who may call."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.assembly.tls import server_context, server_digests
from gateway.downstream.client_names import ClientNames
from gateway.errors import ConfigError
from gateway.settings.listen_tls import ListenTls

_POLL_S = 2.0
_LOG = logging.getLogger("gateway.assembly")


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


async def watch_certificate(
    settings: ListenTls,
    context: ssl.SSLContext,
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Give `context` the content of its files within 5 s of a change, as an issuer renews them.

    Connections that exist stay as they are. Files must be seen twice, 2 s apart, and fit together.
    Authorities that were taken out are trusted until a reload.

    Cancellation: the only way out; a read under way ends in its thread.
    """
    used = seen = refused = await asyncio.to_thread(server_digests, settings)
    while True:
        await sleep(_POLL_S)
        found = await asyncio.to_thread(server_digests, settings)
        if found not in (used, refused) and found == seen:
            try:
                await asyncio.to_thread(server_context, settings)
                context.load_cert_chain(settings.cert_file, settings.key_file)
                if settings.client_ca_file is not None:
                    context.load_verify_locations(settings.client_ca_file)
            except (ConfigError, ssl.SSLError, OSError):
                refused = found
                _LOG.warning(
                    "listen_tls: its files have changed and cannot be used; the certificate from "
                    "before stays; compare them with `modelarts-gateway check`"
                )
            else:
                used = refused = found
                _LOG.info("listen_tls: new connections get the certificate that has changed")
        seen = found
