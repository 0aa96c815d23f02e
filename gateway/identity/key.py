"""Methods `api_key` and `header`: a key that goes into one header field, without any login."""

import asyncio
from collections.abc import Callable, Hashable
from datetime import datetime

from pydantic import SecretStr

from gateway.identity.credential import Credential
from gateway.identity.refresh import RefreshResult
from gateway.identity.secret import digest
from gateway.identity.source import Login, LoginError, TokenFacts, fingerprint, is_visible_ascii

LONGEST_KEY = 32 * 1024
"""Bytes; the vendor's gateways take no longer header line."""
_NEVER = float("inf")


class KeySource:
    """Methods `api_key` and `header`. A key that a service refuses stays in use: there is no other.

    The issuer of keys replaces the file's content, which `CredentialCache.secret_changed` tells.
    """

    def __init__(
        self,
        field_name: str,
        prefix: str,
        read_secret: Callable[[], SecretStr],
        *,
        expires: datetime | None = None,
    ) -> None:
        """Prepare `field_name: prefix + key`.

        Args:
            field_name: visible ASCII, as checked by the settings.
            prefix: printable ASCII.
            read_secret: called in a thread. May raise `LoginError`.
            expires: when the key ends, for people and gauges.
        """
        self._name = field_name
        self._prefix = prefix
        self._read_secret = read_secret
        self._expires = expires

    @property
    def account(self) -> Hashable:
        """See `CredentialSource`; no login is counted against it."""
        return ("key", self._name)

    async def cache_key(self) -> Hashable:
        """See `CredentialSource`."""
        return self._key_of(await asyncio.to_thread(self._read_secret))

    async def fetch(self) -> Login:
        """Read the key; see `CredentialSource`."""
        secret = await asyncio.to_thread(self._read_secret)
        line = key_line(self._name, self._prefix, secret)
        wall_end = _NEVER if self._expires is None else self._expires.timestamp()
        return Login(
            credential=Credential(
                line,
                stale_at=_NEVER,
                expires_at=_NEVER,
                wall_expires_at=wall_end,
                renewable=False,
            ),
            cache_key=self._key_of(secret),
            facts=TokenFacts(
                len(secret.get_secret_value()), fingerprint(secret), expires_at=self._expires
            ),
        )

    def _key_of(self, secret: SecretStr) -> Hashable:
        return ("key", self._name, self._prefix, self._expires, digest(secret))


def key_line(field_name: str, prefix: str, secret: SecretStr) -> bytes:
    """Return the header line that carries a key.

    Raises:
        LoginError: the key is empty, too long, or holds anything but visible ASCII. The text says
            what to do, and does not show it.
    """
    value = secret.get_secret_value()
    if not is_visible_ascii(value):
        raise LoginError(
            RefreshResult.BAD_REPLY, f"the key cannot be sent: {_what_is_wrong(value)}"
        )
    if len(value) > LONGEST_KEY:
        text = f"the key cannot be sent: it is longer than {LONGEST_KEY} bytes; write the key alone"
        raise LoginError(RefreshResult.BAD_REPLY, text)
    return f"{field_name}: {prefix}{value}\r\n".encode("ascii")


def _what_is_wrong(value: str) -> str:
    if not value:
        return "it is empty; write the key into the file"
    if "\n" in value or "\r" in value:
        hint = ", of a CSV file only the field api_key" if "," in value else ""
        return f"it holds a line break; write the key alone, on one line{hint}"
    if any(char.isspace() for char in value):
        return "it holds white space; write the key alone, and what stands before it as `prefix`"
    return "it holds something else than visible ASCII; copy it again"
