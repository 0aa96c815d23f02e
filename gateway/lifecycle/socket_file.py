"""A Unix socket's file: who owns it, who may connect, and its removal at the end."""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path


class SocketFile:
    """A listening Unix socket and its file, owned from `SocketFile(...)` to `remove`.

    A file that a killed process left behind is replaced, that of a running one is not; nobody can
    connect before the mode is set. `remove` leaves a file alone that a successor has put there.
    """

    def __init__(self, path: str, mode: int) -> None:
        """Bind; listening is the server's part.

        Raises:
            OSError: the path is in use, is no socket, or cannot be written.
        """
        self._path = Path(path)
        _make_way(self._path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.setblocking(False)
            self.socket.bind(path)
            self._path.chmod(mode)
            self._inode = self._path.stat().st_ino
        except OSError as error:
            self.socket.close()
            raise OSError(error.errno, f"{path}: {error.strerror}") from error

    def remove(self) -> None:
        """Close the socket, and remove the file if it is still ours."""
        self.socket.close()
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


def _make_way(path: Path) -> None:
    """Remove the socket file that a killed process has left at `path`."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(0, f"{path} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # somebody listens, and has a full queue
    raise OSError(0, f"{path} is in use: another process listens there")
