"""Refused logins, kept in a file of the state directory for the next process.

IAM locks an account after a few wrong logins from anywhere: a gateway that crashes and is
started again, with a wrong password, would be enough.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.identity.refresh import RefusalLedger

_LOG = logging.getLogger("gateway.identity")
FILE_NAME = "refused-logins.json"
_ROUNDS = 200_000
"""Makes each guess at a password cost about 0.1 s for an attacker who has the file."""
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the file says about logins that are about to be made."""

    pauses_s: tuple[float, ...]
    """For each login, for how many seconds it must not be made; 0: it may be."""
    refusals: int
    """Of the account, in the last 15 minutes."""


class RefusalFile:
    """Remembers refused logins for 15 minutes. All methods block on the disk.

    Invariants: the file, mode 0600, holds no secret and no name, only slow hashes with a salt of
    its own; it is replaced as a whole; several processes may share it. A file that cannot be used
    is no reason not to serve: it is logged once, and counts as empty.
    """

    def __init__(self, folder: Path, wall_clock: Clock) -> None:
        """Use a file in `folder`. `wall_clock`, because no other clock outlives a restart."""
        self.path = folder / FILE_NAME
        self._wall_clock = wall_clock
        self._warned = False

    def recall(self, account: str, logins: Sequence[str]) -> Recalled:
        """Return what is known of `logins`, texts that hold all that decides about each."""
        now = self._wall_clock()
        salt, rows = self._read(now)
        mine = [row for row in rows if row["account"] == _hash(salt, account)]
        if not mine:
            return Recalled((0.0,) * len(logins), 0)
        ends = {row["login"]: row["at"] + RefusalLedger.WINDOW_S - now for row in mine}
        least_s = min(ends.values()) if len(mine) >= RefusalLedger.LIMIT else 0.0
        pauses = (max(least_s, ends.get(_hash(salt, login), 0.0)) for login in logins)
        return Recalled(tuple(pauses), len(mine))

    def note(self, account: str, login: str) -> None:
        """Remember that IAM has just refused `login`."""
        try:
            with self._locked():
                now = self._wall_clock()
                salt, rows = self._read(now)
                row = {"account": _hash(salt, account), "login": _hash(salt, login), "at": now}
                self._replace({"salt": salt.hex(), "refused": [*rows, row]})
        except OSError as error:
            self._warn(error.strerror or "no reason given")

    def _read(self, now: float) -> tuple[bytes, list[dict[str, Any]]]:
        """Return the salt, and what was refused less than 15 minutes before `now`."""
        try:
            content = json.loads(self.path.read_bytes())
            salt = bytes.fromhex(content["salt"])
            rows = [
                # A clock that was put back must not make a pause longer.
                {"account": str(r["account"]), "login": str(r["login"]), "at": min(r["at"], now)}
                for r in content["refused"]
                if now < min(r["at"], now) + RefusalLedger.WINDOW_S
            ]
        except FileNotFoundError:
            return os.urandom(_SALT_BYTES), []
        except (OSError, ValueError, TypeError, KeyError):
            self._warn("it cannot be read, or is none of ours")
            return os.urandom(_SALT_BYTES), []
        return salt, rows

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _replace(self, content: dict[str, Any]) -> None:
        other = self.path.with_suffix(".new")
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC
        with os.fdopen(os.open(other, flags, 0o600), "w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        other.replace(self.path)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "state_dir: %s cannot be used: %s; refused logins are not remembered over a "
                "restart; correct the folder's owner or mode, or remove the file",
                self.path,
                reason,
            )


def _hash(salt: bytes, text: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", text.encode(), salt, _ROUNDS, 16).hex()
