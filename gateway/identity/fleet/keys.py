"""The fleet's keys: they hash names of entries and encrypt contents, so Redis has neither."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

_KEY_BYTES = 32


class FleetKeyError(Exception):
    """The key file cannot be used. The text shows nothing of it."""


class FleetKeys:
    """The keys of one key file. The first one encrypts, each of them decrypts.

    The last one, which is the oldest, names entries: a new key in the first line moves no entry
    until the old one is taken away.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take keys of 32 bytes each, at least one."""
        self._fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])
        self._first = Fernet(base64.urlsafe_b64encode(keys[0]))
        self._naming = keys[-1]

    def name(self, *parts: str) -> str:
        """Return the name of an entry that belongs to `parts`, in hexadecimal digits."""
        text = b"".join(b"%d:%b" % (len(part.encode()), part.encode()) for part in parts)
        return hmac.new(self._naming, text, hashlib.sha256).hexdigest()

    def encrypt(self, content: bytes) -> bytes:
        """Return `content`, readable for those who have the first key."""
        return self._fernet.encrypt(content)

    def decrypt(self, encrypted: bytes) -> bytes | None:
        """Return what was encrypted with one of the keys, else None."""
        try:
            return self._fernet.decrypt(encrypted)
        except (InvalidToken, ValueError):
            return None

    def is_by_first(self, encrypted: bytes) -> bool:
        """Return whether the first key has encrypted it."""
        try:
            self._first.decrypt(encrypted)
        except (InvalidToken, ValueError):
            return False
        return True


def keys_in(content: str) -> FleetKeys:
    """Return the keys of a key file's content: 32 bytes in URL-safe base64 on each line.

    Raises:
        FleetKeyError: a line is something else, or there is none.
    """
    keys = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            key = base64.b64decode(line.strip().encode(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != _KEY_BYTES:
            raise FleetKeyError(
                f"line {number} is not {_KEY_BYTES} bytes in URL-safe base64; make one with "
                "`openssl rand -base64 32 | tr +/ -_`"
            )
        keys.append(key)
    if not keys:
        raise FleetKeyError("it holds no key; make one with `openssl rand -base64 32 | tr +/ -_`")
    return FleetKeys(keys)
