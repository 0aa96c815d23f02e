"""Sinks: what each format holds, and that a file never holds a dead token."""

import asyncio
import math
import stat
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from gateway.identity.credential import Credential
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.sink_file import SinkFile, SinkFormat, content_of, expiry_in
from gateway.identity.sinks import SinkResult, Sinks
from tests.support.fake_time import FakeTime
from tests.support.until import until

WALL = 1_790_000_000.0
"""The wall clock, when the cache's clock says 1000."""
HARD = "a\"b\\c: #'{}"
"""Visible ASCII that means something to YAML."""


def credential(token: str, life_s: float = 100.0) -> Credential:
    line = f"X-Auth-Token: {token}\r\n".encode()
    return Credential(line, stale_at=0.0, expires_at=1000.0 + life_s, wall_expires_at=WALL + life_s)


def sink(
    folder: Path, kind: SinkFormat = "plain", *, mode: int = 0o600, remove_on_exit: bool = False
) -> SinkFile:
    return SinkFile(folder / f"token.{kind}", kind, "modelarts", mode, remove_on_exit)


class Counting:
    """Implements `SinkObserver`."""

    def __init__(self) -> None:
        self.logins: list[RefreshResult] = []
        self.writes: list[SinkResult] = []

    def refreshed(
        self,
        trigger: RefreshTrigger,  # noqa: ARG002  # as `SinkObserver` has it
        result: RefreshResult,
        duration_s: float,  # noqa: ARG002  # as above
    ) -> None:
        self.logins.append(result)

    def sink_written(self, result: SinkResult) -> None:
        self.writes.append(result)


class Bench:
    """An identity's sinks with time under the test's control."""

    def __init__(self, files: Iterable[SinkFile]) -> None:
        self.time = FakeTime()
        self.counts = Counting()
        self.sinks = Sinks(
            "default",
            files,
            observer=self.counts,
            clock=self.time.clock,
            wall_clock=lambda: WALL + self.time.now - 1000.0,
            alarm=self.time.alarm,
        )

    def log_in(self, result: RefreshResult, token: Credential | None = None) -> None:
        """Tell the sinks what a cache tells them of a login."""
        if token is not None:
            self.sinks.credential_changed(token)
        self.sinks.refreshed(RefreshTrigger.STARTUP, result, 0.1)

    async def waiting(self) -> None:
        """Return when the sinks have nothing to do before the next alarm."""
        await until(lambda: self.time.next_alarm is not None)


@asynccontextmanager
async def bench(*files: SinkFile) -> AsyncIterator[Bench]:
    made = Bench(files)
    made.sinks.start()
    try:
        yield made
    finally:
        await made.sinks.aclose()


@pytest.mark.parametrize("token", ["MIIabc", HARD, "x" * 20_000])
def test_each_format_holds_the_token_as_its_reader_wants_it(tmp_path: Path, token: str) -> None:
    """Envoy reads YAML, HAProxy a key and a value, everybody else the token alone."""
    one = credential(token)

    assert content_of(sink(tmp_path), one) == token.encode()
    secret = yaml.safe_load(content_of(sink(tmp_path, "envoy_sds"), one))["resources"][0]
    assert secret["@type"].endswith("transport_sockets.tls.v3.Secret")
    assert secret["name"] == "modelarts"
    assert secret["generic_secret"] == {"secret": {"inline_string": token}}
    lines = content_of(sink(tmp_path, "haproxy_map"), one).decode().splitlines()
    assert [line for line in lines if line[0] != "#"] == [f"modelarts {token}"]


def test_without_a_token_each_format_takes_the_old_one_away(tmp_path: Path) -> None:
    """Envoy keeps the old token unless the text is empty; HAProxy needs no line."""
    assert content_of(sink(tmp_path), None) == b""
    assert content_of(sink(tmp_path, "haproxy_map"), None) == b""
    secret = yaml.safe_load(content_of(sink(tmp_path, "envoy_sds"), None))["resources"][0]
    assert secret["generic_secret"] == {"secret": {"inline_string": ""}}


def test_a_file_says_when_its_token_expires(tmp_path: Path) -> None:
    """So that the next process to start knows; `plain` has no room for it."""
    for kind in ("envoy_sds", "haproxy_map"):
        assert expiry_in(content_of(sink(tmp_path, kind), credential("t", 100))) == WALL + 100
        assert expiry_in(content_of(sink(tmp_path, kind), credential("t", math.inf))) is None
    assert expiry_in(content_of(sink(tmp_path), credential("t"))) is None
    assert expiry_in(b"# expires 2026-99-99T99:99:99Z\n") is None


def test_a_reader_sees_one_content_or_the_other(tmp_path: Path) -> None:
    """However often the file is replaced, it is there, whole, and of the right mode."""
    file = sink(tmp_path, mode=0o640)
    contents = {b"a" * 20_000, b"b" * 20_000}
    file.replace(b"a" * 20_000)
    seen: list[tuple[bytes, int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append((file.path.read_bytes(), stat.S_IMODE(file.path.stat().st_mode)))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        while len(seen) < 200 or {content for content, _ in seen} != contents:
            for content in contents:
                file.replace(content)
    finally:
        done.set()
        reader.join()

    assert {content for content, _ in seen} == contents
    assert {mode for _, mode in seen} == {0o640}
    assert list(tmp_path.iterdir()) == [file.path]


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """A file half written is replaced, and its mode is not taken over."""
    file = sink(tmp_path)
    (tmp_path / ".token.plain.modelarts-gateway").write_bytes(b"half")

    file.replace(b"token")

    assert file.path.read_bytes() == b"token"
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file.path]


async def test_a_missing_file_is_made_before_the_first_login_has_ended(tmp_path: Path) -> None:
    """Envoy does not start without it."""
    file = sink(tmp_path, "envoy_sds")

    async with bench(file):
        await until(file.path.exists)

        assert file.path.read_bytes() == content_of(file, None)


async def test_each_new_token_is_written_to_every_file(tmp_path: Path) -> None:
    """And counted once for each."""
    files = [sink(tmp_path, kind) for kind in ("plain", "envoy_sds", "haproxy_map")]

    async with bench(*files) as it:
        for token in ("first", "second"):
            one = credential(token)
            it.log_in(RefreshResult.OK, one)
            expected = [content_of(file, one) for file in files]
            await until(lambda: [file.read() for file in files] == expected)  # noqa: B023

        assert it.counts.logins == [RefreshResult.OK] * 2
        assert it.counts.writes == [SinkResult.OK] * len(it.counts.writes)


async def test_a_token_that_expires_or_is_rejected_leaves_the_file(tmp_path: Path) -> None:
    """The file stays, because Envoy would keep the token if it went."""
    file = sink(tmp_path, "envoy_sds")

    async with bench(file) as it:
        it.log_in(RefreshResult.OK, credential("first"))
        await until(lambda: b"first" in (file.read() or b""))
        await it.waiting()
        await it.time.advance(99.9)
        assert b"first" in (file.read() or b"")
        await it.time.advance(0.2)
        await until(lambda: file.read() == content_of(file, None))

        it.log_in(RefreshResult.OK, credential("second", 1000))
        await until(lambda: b"second" in (file.read() or b""))
        it.sinks.credential_changed(None)
        await until(lambda: file.read() == content_of(file, None))


async def test_a_restart_does_not_take_a_good_token_away(tmp_path: Path) -> None:
    """A token from before stays until the expiry that its file names, whatever logins come to."""
    file = sink(tmp_path, "envoy_sds")
    file.replace(content_of(file, credential("earlier", 50)))

    async with bench(file) as it:
        it.log_in(RefreshResult.NETWORK)
        await it.waiting()
        await it.time.advance(49)
        assert b"earlier" in (file.read() or b"")
        await it.time.advance(2)
        await until(lambda: file.read() == content_of(file, None))


async def test_a_token_without_a_known_expiry_stays_until_the_first_login_has_ended(
    tmp_path: Path,
) -> None:
    """Nobody knows for how long it is good, so it is not kept for longer."""
    file, other = sink(tmp_path), sink(tmp_path, "haproxy_map")
    file.replace(b"earlier")

    async with bench(file, other) as it:
        await until(other.path.exists)
        assert file.read() == b"earlier"
        it.log_in(RefreshResult.NETWORK)
        await until(lambda: file.read() == b"")


async def test_a_token_from_before_that_has_expired_goes_at_once(tmp_path: Path) -> None:
    """The gateway may have been away for long."""
    file = sink(tmp_path, "haproxy_map")
    file.replace(content_of(file, credential("earlier", -1)))

    async with bench(file):
        await until(lambda: file.read() == b"")


async def test_what_cannot_be_written_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sink that fails stops neither logins nor other sinks."""
    broken, good = sink(tmp_path / "missing"), sink(tmp_path)

    async with bench(broken, good) as it:
        it.log_in(RefreshResult.OK, credential("first", 1000))
        await until(lambda: good.read() == b"first")
        for _ in range(3):
            await it.waiting()
            await it.time.advance(5.1)
        assert SinkResult.FAILED in it.counts.writes
        (tmp_path / "missing").mkdir()
        await it.waiting()
        await it.time.advance(5.1)
        await until(lambda: broken.read() == b"first")

    assert len([r for r in caplog.records if "cannot be written" in r.message]) == 1
    assert "first" not in caplog.text


class _Faulty(SinkFile):
    """One that fails as only a defect of ours makes it."""

    def replace(self, content: bytes) -> None:
        raise ValueError(len(content))


async def test_a_defect_is_told_and_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for the task that writes, and the gateway starts all the same."""
    faulty = _Faulty(tmp_path / "token", "plain", "iris", 0o600, remove_on_exit=False)
    async with bench(faulty) as on:
        await on.sinks.begun()

    [line] = caplog.messages
    assert "not written any more because of a defect" in line


async def test_the_end_leaves_what_remove_on_exit_says(tmp_path: Path) -> None:
    """By default the last token, so that a restart interrupts nobody."""
    stays = sink(tmp_path)
    goes = sink(tmp_path, "envoy_sds", remove_on_exit=True)
    taken_over = sink(tmp_path, "haproxy_map", remove_on_exit=True)

    async with bench(stays, goes, taken_over) as it:
        it.log_in(RefreshResult.OK, credential("first"))
        await until(lambda: all(b"first" in (f.read() or b"") for f in (stays, goes, taken_over)))
        await it.sinks.aclose(left=[taken_over.path])

    assert stays.read() == b"first"
    assert goes.read() == content_of(goes, None)
    assert b"first" in (taken_over.read() or b"")


async def test_the_next_sinks_begin_after_the_ones_before_have_ended(tmp_path: Path) -> None:
    """A reload hands a file over: the sinks that give it up write no more."""
    file = sink(tmp_path, remove_on_exit=True)

    async with bench(file) as before:
        before.log_in(RefreshResult.OK, credential("first"))
        await until(lambda: file.read() == b"first")
        after = Bench([file])
        after.log_in(RefreshResult.OK, credential("second"))
        after.sinks.start(after=[asyncio.create_task(before.sinks.aclose())])
        await until(lambda: file.read() == b"second")
        await after.sinks.aclose(left=after.sinks.paths())

    assert file.read() == b"second"
