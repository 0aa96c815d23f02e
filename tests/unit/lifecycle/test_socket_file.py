"""Whose socket file it is; real processes are in tests/life/test_socket_file.py."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.lifecycle.socket_file import SocketFile


def test_nobody_can_connect_before_the_mode_is_set(tmp_path: Path) -> None:
    """The socket is bound and not listening yet: connecting is refused."""
    path = tmp_path / "s"
    made = SocketFile(str(path), 0o600)
    with socket.socket(socket.AF_UNIX) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(os.fspath(path))
    assert path.stat().st_mode & 0o777 == 0o600
    made.remove()
    assert not path.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link where the socket should be is refused, and what it names stays."""
    target = tmp_path / "target"
    (tmp_path / "s").symlink_to(target)
    with pytest.raises(OSError, match="is no socket"):
        SocketFile(str(tmp_path / "s"), 0o600)
    assert not target.exists()


def test_a_busy_one_is_not_taken_for_dead(tmp_path: Path) -> None:
    """A listener whose queue is full does not answer, and is alive."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        callers = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for caller in callers:
            caller.setblocking(False)
            with suppress(BlockingIOError):
                caller.connect(str(path))
        with pytest.raises(OSError, match="in use"):
            SocketFile(str(path), 0o600)
        for caller in callers:
            caller.close()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """And nothing is left open."""
    with pytest.raises(OSError, match="No such file"):
        SocketFile(str(tmp_path / "none" / "s"), 0o600)
