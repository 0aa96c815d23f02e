"""Secrets in files: reading them by content, and noticing when the content is another.

By content, never by inode or time: the kubelet swaps a symbolic link two directories up.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import SecretStr

from gateway.identity.refresh import RefreshResult
from gateway.identity.source import LoginError

_LOG = logging.getLogger("gateway.identity")
_LARGEST_SECRET = 128 * 1024
_POLL_S = 2.0
_PROCESS_KEY = os.urandom(32)  # so that a digest is of no use outside this process


PLACEHOLDER = "placeholder-written-by-modelarts-gateway-init"
"""What `init` writes in place of a secret; never sent anywhere."""


def is_placeholder(path: Path) -> bool:
    """Return whether a file still holds what `init` wrote. Blocks."""
    try:
        return path.read_bytes().strip() == PLACEHOLDER.encode()
    except OSError:
        return False


def digest(secret: SecretStr) -> bytes:
    """Return a digest of a secret, with a random salt of this process."""
    value = secret.get_secret_value().encode()
    return hashlib.blake2b(value, key=_PROCESS_KEY, digest_size=16).digest()


class SecretFile:
    """A file that holds one secret: all of its content but one newline at the end.

    That newline, LF or CRLF, is what editors and `echo` add; a second one is part of the secret.
    """

    def __init__(
        self, path: Path, tell: Callable[[SecretStr], bytes] = digest, *, optional: bool = False
    ) -> None:
        """Prepare to read `path`; contents of which `tell` returns the same are the same secret.

        If `optional`, a file that is missing or empty holds the empty secret.
        """
        self._path = path
        self._tell = tell
        self._optional = optional
        self._used: bytes | None = None

    def read(self) -> SecretStr:
        """Read the secret, to be used now. Blocks on the disk: call it in a thread.

        Raises:
            LoginError: the file cannot be read, is empty or white space, too large or not UTF-8.
        """
        try:
            secret = self._read()
        except LoginError:
            if not self._optional:
                raise
            secret = SecretStr("")  # `watch` says what is wrong
        self._used = self._tell(secret)
        return secret

    def is_stale(self) -> bool:
        """Return whether the content differs from what `read` last returned. Blocks as `read` does.

        Raises:
            LoginError: as `read`.
        """
        found = self._tell(self._read())
        return self._used is not None and found != self._used

    async def watch(
        self,
        changed: Callable[[], None],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Call `changed()` within 5 s of the content no longer being what `read` last returned.

        A new content must be seen twice, 2 s apart: half a password costs a refused login. An
        unreadable file changes nothing and is logged once until it is readable again.

        Cancellation: the only way out; a read under way ends in its thread.
        """
        seen = told = None
        readable = True
        while True:
            await sleep(_POLL_S)
            try:
                found = self._tell(await asyncio.to_thread(self._read))
            except LoginError as error:
                if readable:
                    _LOG.warning("%s; going on with its last content", str(error))
                readable = False
                continue
            if not readable:
                _LOG.info("secret file %s is readable again", self._path)
            readable = True
            if found == self._used:
                told = None
            elif self._used is not None and found == seen and found != told:
                told = found
                changed()
            seen = found

    def _read(self) -> SecretStr:
        try:
            with self._path.open("rb") as file:
                content = file.read(_LARGEST_SECRET + 1)
        except OSError as error:
            if self._optional and isinstance(error, FileNotFoundError):
                return SecretStr("")
            reason = error.strerror or "no reason given"
        else:
            if content.endswith(b"\n"):
                content = content[:-1].removesuffix(b"\r")
            if content == PLACEHOLDER.encode():
                reason = "it still holds init's placeholder; write the secret into it"
            elif content and not content.strip():
                reason = "it holds nothing but white space; write the secret into it"
            elif (content or self._optional) and len(content) <= _LARGEST_SECRET:
                try:
                    return SecretStr(content.decode())
                except UnicodeDecodeError:
                    reason = "it is not UTF-8; write the secret alone, as text"
            elif content:
                reason = f"it is larger than {_LARGEST_SECRET} bytes; name the secret's own file"
            else:
                reason = "it is empty; write the secret into it"
        # Raised here, outside every handler: a UnicodeDecodeError carries the whole content, and
        # as a context it would travel along.
        raise LoginError(
            RefreshResult.BAD_REPLY, f"secret file {self._path} cannot be used: {reason}"
        )
