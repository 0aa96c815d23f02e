"""Lines of the process's own log: their form, their length, their number, and what is left out."""

import asyncio
import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from gateway.observe.process_log import (
    BURST,
    MAX_LINE_BYTES,
    FloodFilter,
    JsonFormatter,
    LineFormatter,
    log_loop_fault,
)
from tests.support.fake_time import FakeTime

SECRET = "sesame-sesame"


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def written(time: FakeTime) -> Iterator[io.StringIO]:
    """What `gateway` loggers write through handler, formatter and filter."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(LineFormatter())
    handler.addFilter(FloodFilter(lambda: time.now))
    log = logging.getLogger("gateway")
    log.addHandler(handler)
    yield text
    log.removeHandler(handler)


LOG = logging.getLogger("gateway.test")


def fail(text: str) -> None:
    raise ValueError(text)


def test_a_line_has_time_level_name_and_text(written: io.StringIO) -> None:
    """In this order."""
    LOG.warning("%s is %d", "it", 1)

    stamp, line = written.getvalue()[:23], written.getvalue()[23:]
    assert line == " WARNING gateway.test: it is 1\n"
    assert stamp[:2] == "20"


def test_an_error_is_told_by_type_and_place(written: io.StringIO) -> None:
    """And those it came after; the text of none of them."""
    try:
        try:
            fail(SECRET)
        except ValueError as cause:
            raise KeyError(SECRET) from cause
    except KeyError:
        LOG.exception("bug")

    [line] = written.getvalue().splitlines()
    name = "test_an_error_is_told_by_type_and_place (test_process_log.py:"
    assert f"bug: KeyError in {name}" in line
    assert "; after ValueError in fail (test_process_log.py:" in line
    assert SECRET not in line


def test_an_endless_chain_of_errors_ends(written: io.StringIO) -> None:
    """Three are told."""
    error: Exception = ValueError()
    for _ in range(50):
        later = ValueError()
        later.__cause__ = error
        error = later
    LOG.error("bug", exc_info=error)

    assert written.getvalue().count("ValueError") == 3


def test_no_exception_under_way_is_no_exception_told(written: io.StringIO) -> None:
    """`exc_info=True` outside a handler."""
    assert sys.exc_info() == (None, None, None)
    LOG.error("quiet", exc_info=True)  # noqa: LOG014  # that is what is tested

    assert written.getvalue().endswith("quiet\n")


@pytest.mark.parametrize("text", ["x" * 10_000, "\u6a21" * 10_000, "\ud800" * 5_000])
def test_a_line_is_cut(written: io.StringIO, text: str) -> None:
    """At 2 KiB, line end included, and never within a character."""
    LOG.warning(text)

    [line] = written.getvalue().splitlines()
    assert MAX_LINE_BYTES - 8 < len(f"{line}\n".encode(errors="replace")) <= MAX_LINE_BYTES
    assert line.endswith("…")


def test_a_line_stays_one_line(written: io.StringIO) -> None:
    """Whatever is in it: line ends, escape sequences, separators."""
    LOG.warning("a\r\nb\x1b[31m\x85\u2028c")

    assert written.getvalue().endswith(r"a\r\nb\x1b[31m\x85\u2028c" + "\n")
    assert len(written.getvalue().splitlines()) == 1


def test_a_place_that_logs_too_often_is_held_back(written: io.StringIO) -> None:
    """Whatever it says; other places are not held back with it."""
    for number in range(BURST + 30):
        LOG.warning("flood %d", number)
    LOG.warning("another place")
    lines = written.getvalue().splitlines()

    assert len(lines) == BURST + 1
    assert lines[BURST].endswith("another place")


def test_the_next_line_tells_what_was_left_out(written: io.StringIO, time: FakeTime) -> None:
    """As a number, once."""
    for wait_s in [0.0] * (BURST + 30) + [1.0, 0.0, 1.0]:
        time.now += wait_s
        LOG.warning("flood")
    lines = written.getvalue().splitlines()

    assert len(lines) == BURST + 2
    assert lines[BURST].endswith("flood (30 more from here were not logged)")
    assert lines[BURST + 1].endswith("flood (1 more from here were not logged)")


async def test_the_loops_faults_are_told_without_what_they_quote(written: io.StringIO) -> None:
    """Neither the arguments of a callback nor an error that nobody has asked for."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_fault)
    loop.call_soon(fail, SECRET)
    task = asyncio.create_task(asyncio.to_thread(fail, SECRET), name="lost")
    await asyncio.wait([task])
    del task
    await asyncio.sleep(0)
    loop.call_exception_handler({"message": f"Exception in callback f('{SECRET}')"})
    loop.call_exception_handler({})

    assert "event loop: Exception in callback: ValueError in fail (" in written.getvalue()
    assert "event loop: Task exception was never retrieved: ValueError in " in written.getvalue()
    assert "event loop: fault\n" in written.getvalue()
    assert SECRET not in written.getvalue()


@pytest.fixture
def collected(time: FakeTime) -> Iterator[io.StringIO]:
    """What `gateway` loggers write as JSON."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(FloodFilter(lambda: time.now))
    log = logging.getLogger("gateway")
    log.addHandler(handler)
    yield text
    log.removeHandler(handler)


def test_json_has_the_same_in_fields(collected: io.StringIO) -> None:
    """Time in UTC as the access log writes it; nothing that there is not."""
    LOG.warning("%s is %d", "it", 1)

    record = json.loads(collected.getvalue())
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert record == {"level": "WARNING", "logger": "gateway.test", "message": "it is 1"}


def test_json_tells_errors_and_what_was_left_out(collected: io.StringIO, time: FakeTime) -> None:
    """Each in a field of its own; never the text of an error."""
    for wait_s in [0.0] * (BURST + 30) + [1.0]:
        time.now += wait_s
        LOG.error("bug", exc_info=ValueError(SECRET))

    last = json.loads(collected.getvalue().splitlines()[-1])
    assert (last["message"], last["error"], last["held_back"]) == ("bug", "ValueError", 30)
    assert SECRET not in collected.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_000,
        "\u6a21" * 10_000,
        "\ud800" * 5_000,
        "\x00" * 5_000,
        '"' * 5_000,
        "a\r\n\x85\u2028b",
    ],
)
def test_json_is_one_line_that_is_bounded_and_can_be_read(
    collected: io.StringIO, text: str
) -> None:
    """Whatever is in it, and never cut within an escape."""
    LOG.warning(text)

    [line, rest] = collected.getvalue().split("\n")
    assert rest == ""
    assert len(line.encode()) < MAX_LINE_BYTES
    assert len(line.splitlines()) == 1
    message = json.loads(line)["message"]
    if len(text) < 100:
        assert message == text
    else:
        assert message.endswith("…")
        assert len(line.encode()) > MAX_LINE_BYTES // 2
