"""Lines of the access log: their text, their order, and what happens when nobody takes them."""

import json
import os
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.observe.access_log import AccessLog, Record
from tests.support.records import record_of

EPOCH_S = 1_767_225_599.0  # 2025-12-31T23:59:59Z
MAX_PENDING = 4 * 1024 * 1024


ONE = {
    "ended_at": 100.0,
    "service": "iris",
    "method": "POST",
    "status": 200,
    "duration_s": 0.25,
    "queue_s": 0.003,
    "credential_s": 0.001,
    "connect_s": 0.002,
    "first_byte_s": 0.2,
    "first_chunk_s": 0.21,
    "overhead_s": 0.00005,
    "request_bytes": 3,
    "response_bytes": 4,
    "retries": 1,
    "upstream_request_id": "up",
}


def record(number: int = 1, **changes: Any) -> Record:
    """A record whose request id is its number."""
    return record_of(**ONE | {"request_id": str(number)} | changes)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe."""
    read_fd, write_fd = os.pipe()
    yield read_fd, write_fd
    for fd in (read_fd, write_fd):
        with suppress(OSError):  # the test has closed it
            os.close(fd)


def drained(fd: int) -> bytes:
    """Everything that is in the pipe now."""
    data = b""
    while select.select([fd], [], [], 0)[0]:
        piece = os.read(fd, 65536)
        if not piece:
            break
        data += piece
    return data


def test_a_line_is_json_with_every_fact(pipe: tuple[int, int]) -> None:
    """In whole microseconds, with the wall time at which the request ended."""
    log = AccessLog(pipe[1])
    log.write([record()], now=101.5, wall_now=EPOCH_S + 2.0)

    assert json.loads(drained(pipe[0])) == {
        "time": "2025-12-31T23:59:59.500Z",
        "request_id": "1",
        "service": "iris",
        "method": "POST",
        "status": 200,
        "duration_us": 250_000,
        "queue_us": 3000,
        "credential_us": 1000,
        "connect_us": 2000,
        "first_byte_us": 200_000,
        "first_chunk_us": 210_000,
        "overhead_us": 50,
        "request_bytes": 3,
        "response_bytes": 4,
        "retries": 1,
        "error": "",
        "rejection": "",
        "upstream_request_id": "up",
    }
    assert log.lost == 0


def test_time_stamps_follow_each_record(pipe: tuple[int, int]) -> None:
    """Across a second, a minute and a year, and back: each line has its own."""
    ends = [0.0, 0.999, 1.0, 1.25, 61.0, 0.5]
    AccessLog(pipe[1]).write(
        [record(ended_at=100 + end) for end in ends], now=200.0, wall_now=EPOCH_S + 100
    )

    stamps = [json.loads(line)["time"] for line in drained(pipe[0]).splitlines()]
    assert stamps == [
        "2025-12-31T23:59:59.000Z",
        "2025-12-31T23:59:59.999Z",
        "2026-01-01T00:00:00.000Z",
        "2026-01-01T00:00:00.250Z",
        "2026-01-01T00:01:00.000Z",
        "2025-12-31T23:59:59.500Z",
    ]


def test_a_full_pipe_blocks_nothing_and_order_is_kept(pipe: tuple[int, int]) -> None:
    """Lines wait in memory, and come out whole and in order when the reader is back."""
    read_fd, write_fd = pipe
    log = AccessLog(write_fd)
    began = time.monotonic()
    for number in range(1000):
        log.write([record(number)], now=0.0, wall_now=EPOCH_S)
    assert time.monotonic() - began < 60

    data = b""
    while piece := drained(read_fd):
        data += piece
        log.flush()
    lines = [json.loads(line) for line in data.splitlines()]
    assert [line["request_id"] for line in lines] == [str(number) for number in range(1000)]
    assert log.lost == 0


def test_beyond_its_memory_lines_are_lost_and_counted(pipe: tuple[int, int]) -> None:
    """What was taken arrives whole; the rest is in `lost`, to the line."""
    read_fd, write_fd = pipe
    log = AccessLog(write_fd)
    batch = [record(number) for number in range(1000)]
    for _ in range(20):
        log.write(batch, now=0.0, wall_now=EPOCH_S)
        assert len(log._pending) <= MAX_PENDING + 400 * len(batch)
    lost = log.lost
    assert 0 < lost < 20_000

    data = b""
    while piece := drained(read_fd):
        data += piece
        log.flush()
    lines = data.splitlines()
    assert [json.loads(line)["status"] for line in lines] == [200] * len(lines)
    assert len(lines) + lost == 20_000
    log.write([record(7)], now=0.0, wall_now=EPOCH_S)
    assert json.loads(drained(read_fd))["request_id"] == "7"


def test_a_reader_that_has_gone_costs_lines_only(pipe: tuple[int, int]) -> None:
    """A broken pipe is counted, and raises nothing."""
    read_fd, write_fd = pipe
    os.close(read_fd)
    log = AccessLog(write_fd)
    log.write([record(), record()], now=0.0, wall_now=EPOCH_S)

    assert log.lost == 2
    assert not log._pending


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_costs_lines_only() -> None:
    """ENOSPC is counted, and raises nothing."""
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        log = AccessLog(fd)
        for count in (3, 6):
            log.write([record()] * 3, now=0.0, wall_now=EPOCH_S)
            assert log.lost == count
    finally:
        os.close(fd)


def test_a_file_takes_everything_at_once(tmp_path: Path) -> None:
    """A regular file is always ready, however large the batch."""
    with (tmp_path / "log").open("wb") as file:
        log = AccessLog(file.fileno())
        log.write([record(n) for n in range(3000)], now=0.0, wall_now=EPOCH_S)
    lines = (tmp_path / "log").read_bytes().splitlines()

    assert [json.loads(line)["request_id"] for line in lines] == [str(n) for n in range(3000)]
