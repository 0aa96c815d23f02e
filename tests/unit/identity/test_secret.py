"""Secrets in files: what is read, and when a change is noticed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.identity.refresh import RefreshResult
from gateway.identity.secret import SecretFile, digest
from gateway.identity.source import LoginError


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"s", "s"),
        (b"s\n", "s"),
        (b"s\r\n", "s"),
        (b"s\n\n", "s\n"),
        (b"s\r", "s\r"),
        (b" s\t", " s\t"),
        ("pässwörd\n".encode(), "pässwörd"),
    ],
)
def test_one_trailing_newline_is_no_part_of_the_secret(
    tmp_path: Path, content: bytes, secret: str
) -> None:
    """Whatever else is there, is."""
    (tmp_path / "secret").write_bytes(content)
    assert SecretFile(tmp_path / "secret").read().get_secret_value() == secret


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\r\n", "empty"),
        (b"canary\xff", "not UTF-8"),
        (b"canary" + b"x" * 131072, "larger"),
    ],
)
def test_useless_file_is_an_error_that_does_not_quote_it(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    """Missing, empty, binary, or surely the wrong file."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LoginError, match=why) as caught:
        SecretFile(path).read()
    assert caught.value.result is RefreshResult.BAD_REPLY
    assert "canary" not in str(caught.value)
    assert not isinstance(caught.value.__context__, UnicodeDecodeError)


def test_digest_tells_secrets_apart() -> None:
    """And is no plain hash that could be looked up."""
    assert digest(SecretStr("a")) == digest(SecretStr("a")) != digest(SecretStr("b"))


class Polls:
    """Stands in for `asyncio.sleep`: each poll happens when a test says so."""

    def __init__(self) -> None:
        self._go = asyncio.Semaphore(0)
        self._back = asyncio.Semaphore(0)
        self.intervals_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.intervals_s.append(seconds)
        self._back.release()
        await self._go.acquire()

    async def poll(self, times: int = 1) -> None:
        for _ in range(times):
            await self._back.acquire()
            self._go.release()
        await self._back.acquire()
        self._back.release()


@asynccontextmanager
async def watching(file: SecretFile, changed: Callable[[], None]) -> AsyncIterator[Polls]:
    polls = Polls()
    task = asyncio.create_task(file.watch(changed, sleep=polls.sleep))
    try:
        yield polls
    finally:
        task.cancel()
        await asyncio.wait({task})


class Count:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


async def test_change_is_told_once_within_five_seconds(tmp_path: Path) -> None:
    """Seen twice, two seconds apart; after that not again until it changes again."""
    path = tmp_path / "secret"
    path.write_text("one\n")
    file, count = SecretFile(path), Count()
    file.read()
    async with watching(file, count) as polls:
        await polls.poll(3)
        assert count.calls == 0
        path.write_text("two\n")
        await polls.poll()
        assert count.calls == 0
        await polls.poll()
        assert count.calls == 1
        await polls.poll(3)
        assert count.calls == 1
        file.read()
        path.write_text("one\n")
        await polls.poll(4)
        assert count.calls == 2
        assert max(polls.intervals_s) * 2 < 5


async def test_change_before_the_first_poll_is_noticed(tmp_path: Path) -> None:
    """What counts is what was read for use, not what the watcher happened to see first."""
    path = tmp_path / "secret"
    path.write_text("one")
    file, count = SecretFile(path), Count()
    file.read()
    path.write_text("two")
    async with watching(file, count) as polls:
        await polls.poll(2)
    assert count.calls == 1


async def test_secret_nobody_has_used_yet_is_no_change(tmp_path: Path) -> None:
    """The first login reads it anyway."""
    path = tmp_path / "secret"
    path.write_text("one")
    count = Count()
    async with watching(SecretFile(path), count) as polls:
        await polls.poll(3)
    assert count.calls == 0


async def test_half_written_secret_is_not_told(tmp_path: Path) -> None:
    """A login with half a password costs a refusal, and refusals lock accounts."""
    path = tmp_path / "secret"
    path.write_text("one")
    file, count = SecretFile(path), Count()
    file.read()
    async with watching(file, count) as polls:
        await polls.poll()
        path.write_text("tw")
        await polls.poll()
        path.write_text("two")
        await polls.poll()
        assert count.calls == 0
        await polls.poll()
        assert count.calls == 1


async def test_change_back_and_forth_is_told_again(tmp_path: Path) -> None:
    """A secret that was told, withdrawn before it was used, and put back is news again."""
    path = tmp_path / "secret"
    path.write_text("one")
    file, count = SecretFile(path), Count()
    file.read()
    async with watching(file, count) as polls:
        for content in ("two", "one", "two"):
            path.write_text(content)
            await polls.poll(2)
    assert count.calls == 2


async def test_kubelet_symlink_swap_is_noticed(tmp_path: Path) -> None:
    """The file's own path and link stay the same; a directory above it is swapped."""
    for version, content in (("v1", "one"), ("v2", "two")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "password").write_text(content)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "password").symlink_to("..data/password")
    file, count = SecretFile(tmp_path / "password"), Count()
    file.read()
    async with watching(file, count) as polls:
        (tmp_path / "new").symlink_to("v2")
        (tmp_path / "new").rename(tmp_path / "..data")
        await polls.poll(2)
    assert count.calls == 1
    assert file.read().get_secret_value() == "two"


async def test_unreadable_moments_are_survived_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last content stays good; a lasting fault does not fill the log."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "secret"
    path.write_text("one")
    file, count = SecretFile(path), Count()
    file.read()
    async with watching(file, count) as polls:
        path.unlink()
        await polls.poll(3)
        path.write_text("one")
        await polls.poll(2)
        assert count.calls == 0
        path.write_text("two")
        await polls.poll(2)
    assert count.calls == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
