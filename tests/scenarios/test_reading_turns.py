"""Many clients that send at once: what is read late in a turn of the event loop waits for another.

The clock passes by itself only where a scenario says so, so that reading takes a client's time.
"""

from contextlib import suppress

import pytest

from gateway.downstream.connection import CROWD
from gateway.downstream.reading_turns import LONG_S, SMALL_BYTES
from tests.scenarios.messages import GET, OK, upload
from tests.support.memory import OpenStage, Stage
from tests.support.memory_transport import Client, Fate

LARGE = upload(10 * SMALL_BYTES, b"x" * SMALL_BYTES)


class _DefectError(Exception):
    """Stands for a defect of ours."""


def crowd(stage: Stage, count: int) -> list[Client]:
    """Let so many clients connect that what the last `count` send may have to wait."""
    for _ in range(CROWD):
        stage.new_client()
    return [stage.new_client() for _ in range(count)]


def long_turn(stage: Stage, first: Client) -> None:
    """Begin to read in a turn of the loop, which is long then."""
    first.sends(b"GET /iris HTTP/1.1\r\n")
    stage.clock.advance(LONG_S * 2)


async def test_late_read_waits_for_the_next_turn(open_stage: OpenStage) -> None:
    """
    It is acted on then, and its client is read again.
    """
    stage = open_stage()
    first, late = crowd(stage, 2)
    long_turn(stage, first)
    late.sends(GET)
    assert not stage.service.received

    await stage.until(lambda: stage.service.received)
    stage.service.answers(OK)
    assert late.reply.status == 200
    late.sends(GET)
    await stage.until(lambda: stage.service.received.count(b"GET ") == 2)
    stage.service.answers(OK)


async def test_first_clients_never_wait(open_stage: OpenStage) -> None:
    """
    While there are few, nobody looks at the turns.
    """
    stage = open_stage()
    first = stage.new_client()
    long_turn(stage, first)
    stage.client.sends(GET)
    assert stage.service.received
    stage.service.answers(OK)


async def test_small_requests_overtake_large_ones(open_stage: OpenStage) -> None:
    """
    Of two that wait.
    """
    stage = open_stage()
    first, large, small = crowd(stage, 3)
    long_turn(stage, first)
    large.sends(LARGE)
    small.sends(GET)
    await stage.until(lambda: len(stage.services) > 1)
    assert [end.received.split(b" ")[0] for end in stage.services] == [b"GET", b"POST"]
    for end in stage.services:
        end.answers(OK)
    large.leaves()


async def test_what_waits_counts_as_memory(open_stage: OpenStage) -> None:
    """
    As an unfinished head does; it is dropped when its client is gone.
    """
    stage = open_stage()
    first, late, gone = crowd(stage, 3)
    long_turn(stage, first)
    before = stage._listener.memory.waiting().heads
    late.sends(GET)
    gone.sends(GET)
    gone.vanish()
    assert stage._listener.memory.waiting().heads == before + len(GET)

    await stage.until(lambda: stage.service.received)
    stage.service.answers(OK)
    assert late.reply.status == 200
    assert stage.service.received.count(b"GET ") == 1


async def test_failure_ends_one_client_and_holds_nobody(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    As where the loop calls us itself: the connection is closed, others are read.
    """
    stage = open_stage()
    first, fails, late = crowd(stage, 3)
    long_turn(stage, first)
    fails.sends(b"no request\r\n\r\n")
    late.sends(GET)

    def fail(_data: bytes) -> None:
        raise _DefectError

    monkeypatch.setattr(fails._transport, "write", fail)
    with suppress(_DefectError):
        await stage.until(lambda: stage.service.received)
    await stage.until(lambda: stage.service.received)
    stage.service.answers(OK)
    assert late.reply.status == 200
    assert fails.fate is not Fate.OPEN


async def test_rest_of_what_waits_keeps_its_order(open_stage: OpenStage) -> None:
    """
    One more read may come although its client is not read any more (TLS).
    """
    stage = open_stage()
    first, late = crowd(stage, 2)
    long_turn(stage, first)
    late.sends(GET[:10])
    late._transport._protocol.data_received(GET[10:])
    await stage.until(lambda: stage.service.received)
    stage.service.answers(OK)
    assert late.reply.status == 200
    assert late.fate is Fate.OPEN
