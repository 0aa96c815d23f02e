"""Refused logins in a file: what it says to whom, for how long, and what it does not hold."""

import json
import logging
import stat
from pathlib import Path

import pytest

from gateway.identity.refusal_file import FILE_NAME, RefusalFile

ACCOUNT, LOGIN, OTHER = "account-canary", "login-canary", "other-canary"


class Wall:
    """A wall clock."""

    def __init__(self) -> None:
        self.now = 1.7e9

    def __call__(self) -> float:
        return self.now


def test_refused_login_is_remembered_by_the_next_process_for_15_minutes(tmp_path: Path) -> None:
    """That login alone; a second one of the account holds up all."""
    wall = Wall()
    RefusalFile(tmp_path, wall).note(ACCOUNT, LOGIN)
    wall.now += 100
    file = RefusalFile(tmp_path, wall)
    recalled = file.recall(ACCOUNT, [LOGIN, OTHER])
    assert (recalled.pauses_s, recalled.refusals) == ((800, 0), 1)
    assert file.recall("another account", [LOGIN]).refusals == 0
    file.note(ACCOUNT, OTHER)
    assert file.recall(ACCOUNT, [LOGIN, OTHER, "third"]).pauses_s == (800, 900, 800)
    wall.now += 800
    assert file.recall(ACCOUNT, [LOGIN, OTHER, "third"]).pauses_s == (0, 100, 0)
    wall.now += 100
    assert file.recall(ACCOUNT, [LOGIN, OTHER]).refusals == 0


def test_file_holds_no_secret_and_is_the_owners(tmp_path: Path) -> None:
    """Neither is a hash in it that of another file."""
    wall = Wall()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        RefusalFile(tmp_path / folder, wall).note(ACCOUNT, LOGIN)
    first, second = (tmp_path / folder / FILE_NAME for folder in ("a", "b"))
    assert "canary" not in first.read_text()
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    one, other = (json.loads(file.read_text())["refused"][0] for file in (first, second))
    assert one["login"] != other["login"]
    assert one["account"] != other["account"]


def test_clock_that_was_put_back_prolongs_nothing(tmp_path: Path) -> None:
    """15 minutes from now on are the most."""
    wall = Wall()
    file = RefusalFile(tmp_path, wall)
    file.note(ACCOUNT, LOGIN)
    wall.now -= 86400
    assert file.recall(ACCOUNT, [LOGIN]).pauses_s == (900,)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"{}", b'{"salt":1}', b'{"salt":"00","refused":[{"at":"x"}]}']
)
def test_file_that_is_none_of_ours_counts_as_empty(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and the next refusal makes a good one of it."""
    (tmp_path / FILE_NAME).write_bytes(content)
    file = RefusalFile(tmp_path, Wall())
    for _ in range(2):
        assert file.recall(ACCOUNT, [LOGIN]).pauses_s == (0,)
    assert caplog.text.count("cannot be used") == 1
    file.note(ACCOUNT, LOGIN)
    assert file.recall(ACCOUNT, [LOGIN]).pauses_s == (900,)


def test_folder_that_cannot_be_written_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once."""
    caplog.set_level(logging.WARNING)
    file = RefusalFile(tmp_path / "missing", Wall())
    file.note(ACCOUNT, LOGIN)
    file.note(ACCOUNT, LOGIN)
    assert caplog.text.count("refused logins are not remembered") == 1
