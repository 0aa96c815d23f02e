"""The sources that need no IAM: a token that somebody else keeps in a file, and none at all."""

import asyncio
from collections.abc import Hashable
from pathlib import Path

from pydantic import SecretStr

from gateway.identity.credential import Credential
from gateway.identity.refresh import RefreshResult
from gateway.identity.secret import SecretFile, digest
from gateway.identity.source import Login, LoginError, TokenFacts, fingerprint, token_line

_NEVER = float("inf")


class FileSource:
    """Method `file`. The token has no known expiry; another program replaces the file."""

    def __init__(self, path: Path) -> None:
        self.file = SecretFile(path)
        """To be watched, with `CredentialCache.secret_changed` to be called."""
        self._key = ("file", str(path))

    @property
    def account(self) -> Hashable:
        """See `CredentialSource`."""
        return self._key

    async def cache_key(self) -> Hashable:
        """See `CredentialSource`."""
        return self._key_of(await self._read())

    async def fetch(self) -> Login:
        """Read the token; see `CredentialSource`."""
        token = await self._read()
        try:
            line = token_line(token)
        except ValueError as error:
            raise LoginError(RefreshResult.BAD_REPLY, f"token_file: {error}") from None
        return Login(
            credential=Credential(line, stale_at=_NEVER, expires_at=_NEVER),
            cache_key=self._key_of(token),
            facts=TokenFacts(len(token.get_secret_value()), fingerprint(token)),
        )

    async def _read(self) -> SecretStr:
        content = await asyncio.to_thread(self.file.read)
        return SecretStr(content.get_secret_value().rstrip("\r\n"))

    def _key_of(self, token: SecretStr) -> Hashable:
        return (*self._key, digest(token))


class AnonymousSource:
    """Method `none`: nothing is added to requests, and it never expires."""

    account: Hashable = ("none",)

    async def cache_key(self) -> Hashable:
        """See `CredentialSource`."""
        return self.account

    async def fetch(self) -> Login:
        """See `CredentialSource`; never fails."""
        return Login(Credential(b"", stale_at=_NEVER, expires_at=_NEVER), self.account)
