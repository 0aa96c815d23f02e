"""Many clients that send at once: what is read late in a turn of the event loop waits for another.

The clock passes by itself only where a scenario says so, so that reading takes a client's time.
"""

import os
from contextlib import suppress
from typing import cast

import pytest

from gateway.downstream.client_stream import FOR_EXCHANGE, FOR_MEMORY, FOR_TURN
from gateway.downstream.connection import CROWD, ClientConnection
from gateway.downstream.memory_budget import READ_TOGETHER
from gateway.downstream.reading_turns import LONG_S, MOST_BYTES, READERS
from gateway.http.small_request import SMALL_BYTES
from tests.scenarios.messages import CHUNKED, GET, OK, upload
from tests.support.memory import OpenStage, Stage
from tests.support.memory_transport import Client, Fate

LARGE = upload(10 * SMALL_BYTES, b"x" * SMALL_BYTES)


HEAD = b"GET /iris HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n" % (b"x" * 30_000)
"""A part of a head that is not small."""

PART = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 30_000
"""The first half of a response that is not small."""


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


async def test_first_clients_wait_where_they_send_large_heads(open_stage: OpenStage) -> None:
    """
    Thirty of them would make a turn of thirty milliseconds. An upload's head is small.
    """
    stage = open_stage()
    first, late, upload_ = stage.new_client(), stage.new_client(), stage.new_client()
    first.sends(HEAD)
    stage.clock.advance(LONG_S * 2)
    late.sends(HEAD)
    upload_.sends(LARGE)
    protocol = cast(ClientConnection, late._transport._protocol)
    assert protocol.stream.waiting_bytes == len(HEAD)
    assert stage.service.received.startswith(b"POST")

    await stage.until(lambda: not protocol.stream.waiting_bytes)
    await stage.until(lambda: late._transport.is_read)
    late.sends(b"\r\n")
    await stage.until(lambda: len(stage.services) == 2)
    stage.services[1].answers(OK)
    assert late.reply.status == 200
    upload_.vanish()
    first.vanish()


async def test_nobody_looks_whether_a_client_has_left_that_waits_for_its_turn(
    stage: Stage,
) -> None:
    """
    It is read again soon. In a flood, a thousand timers would end in one turn of the loop.
    """
    stream = cast(ClientConnection, stage.client._transport._protocol).stream
    stream.hold(FOR_TURN)
    stream.hold(FOR_MEMORY)
    assert stream._looking is None
    stream.pause_reading()
    assert stream._looking is not None
    for reason in (FOR_TURN, FOR_MEMORY, FOR_EXCHANGE):
        stream.release(reason)


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


async def test_whole_requests_overtake_unfinished_ones(open_stage: OpenStage) -> None:
    """
    A small part of a body may wait for others for ever.
    """
    stage = open_stage()
    first, unfinished, whole, other = crowd(stage, 4)
    long_turn(stage, first)
    unfinished.sends(CHUNKED + b"1\r\nx\r\n")
    whole.sends(GET)
    other.sends(CHUNKED + b"1\r\nx\r\n")
    await stage.until(lambda: len(stage.services) > 2)
    assert [end.received.split(b" ")[0] for end in stage.services] == [b"GET", b"POST", b"POST"]
    for end in stage.services:
        end.answers(OK)
    unfinished.leaves()
    other.leaves()


async def test_newest_and_oldest_small_requests_are_worked_off_in_turn(
    open_stage: OpenStage,
) -> None:
    """
    In a flood, a new one would else wait for hundreds, or an old one for ever.
    """
    stage = open_stage()
    first, *late = crowd(stage, 6)
    long_turn(stage, first)
    for number, client in enumerate(late):
        client.sends(b"GET /iris/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
    await stage.until(lambda: len(stage.services) == len(late))
    tails = [end.received.split(b" ")[1].rpartition(b"/")[2] for end in stage.services]
    assert tails == [b"4", b"0", b"3", b"1", b"2"]
    for end in stage.services:
        end.answers(OK)


async def test_what_waits_counts_as_memory(open_stage: OpenStage) -> None:
    """
    As an unfinished head does; it is dropped when its client is gone.
    """
    stage = open_stage()
    first, late, gone = crowd(stage, 3)
    long_turn(stage, first)
    before = stage.waiting().heads
    late.sends(GET)
    gone.sends(GET)
    gone.vanish()
    assert stage.waiting().heads == before + len(GET)

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


async def test_few_of_those_that_send_much_are_read_in_a_turn(open_stage: OpenStage) -> None:
    """
    After a large read the others come first; a client that sends little is read at once.
    """
    stage = open_stage()
    *many, small = crowd(stage, 2 * READERS + 1)
    for client in many:
        client.sends(HEAD)
    small.sends(GET[:10])
    assert [client._transport.is_read for client in (many[0], many[-1], small)] == [0, 0, 1]

    read = 0
    while read < len(many):
        before, read = read, sum(client._transport.is_read for client in many)
        assert read - before <= READERS
        await stage.settle_once()


async def test_parts_of_heads_wait_however_many_there_are(open_stage: OpenStage) -> None:
    """
    To act on them would take long and let go of nothing. Beyond 2 MiB nobody is read in that turn.
    """
    stage = open_stage(max_memory=8 * MOST_BYTES, max_connections=1000)
    count = MOST_BYTES // len(HEAD) + 3
    first, small, *many = crowd(stage, count + 2)
    long_turn(stage, first)
    for client in many:
        client.sends(HEAD)
    assert stage.waiting().heads > MOST_BYTES
    assert [client._transport.is_read for client in (many[-1], small)] == [False, False]

    stage.clock.advance(0.01)
    await stage.until(lambda: small._transport.is_read)


async def test_large_request_does_not_wait_where_much_does(open_stage: OpenStage) -> None:
    """
    It is sent on, so that its memory is free again.
    """
    stage = open_stage(max_memory=8 * MOST_BYTES, max_connections=1000)
    first, late, *many = crowd(stage, MOST_BYTES // len(HEAD) + 4)
    long_turn(stage, first)
    for client in many:
        client.sends(HEAD)
    stage.clock.advance(0.01)
    protocol = cast(ClientConnection, late._transport._protocol)
    protocol.data_received(LARGE)
    assert protocol.request is not None
    await stage.settle()
    assert stage.service.received.startswith(b"POST")
    late.vanish()


async def test_large_parts_of_responses_have_their_turns(open_stage: OpenStage) -> None:
    """
    A thousand responses that come at once would make a turn of a tenth of a second.
    """
    stage = open_stage(max_connections=1000)
    readers = crowd(stage, 3 * READERS)
    for reader in readers:
        reader.sends(GET)
    await stage.settle()
    services = stage.services
    assert len(services) == len(readers)
    for service in services:
        service.answers(PART)
    read = 0
    assert not any(service.is_read for service in services)
    while read < len(services):
        before, read = read, sum(service.is_read for service in services)
        assert read - before <= READERS // 4
        await stage.settle_once()
    for service in services:
        service.answers(PART[-30_000:])
    assert {len(reader.reply.body) for reader in readers} == {60_000}


async def test_response_to_one_of_few_has_no_turns(stage: Stage) -> None:
    """
    Its next part is read at once.
    """
    stage.client.sends(GET)
    stage.service.answers(PART)
    assert stage.service.is_read
    stage.service.answers(PART[-30_000:])
    assert stage.client.reply.status == 200


async def test_first_clients_have_turns_once_there_are_many(open_stage: OpenStage) -> None:
    """
    Thirty readers of large responses would make each turn long for all that come behind them.
    """
    stage = open_stage(max_connections=1000)
    stage.client.sends(GET)
    crowd(stage, 1)
    stage.service.answers(PART)
    assert not stage.service.is_read
    await stage.until(lambda: stage.service.is_read)
    stage.service.answers(PART[-30_000:])
    assert stage.client.reply.status == 200


async def test_turn_ends_with_the_response(open_stage: OpenStage) -> None:
    """
    The client's next request has not to wait for it.
    """
    stage = open_stage()
    [reader] = crowd(stage, 1)
    reader.sends(GET, GET)
    await stage.settle()
    stage.service.answers(PART + PART[-30_000:])
    assert stage.service.received.count(b"GET ") == 2
    stage.service.answers(OK)


async def test_who_leaves_has_no_turn_any_more(open_stage: OpenStage) -> None:
    """
    Nothing of a client is kept for a turn that it will not need.
    """
    stage = open_stage()
    [reader] = crowd(stage, 1)
    reader.sends(GET)
    await stage.settle()
    stage.service.answers(PART)
    assert len(stage._listener.turns._resting) == 1
    reader.vanish()
    assert not stage._listener.turns._resting


async def test_client_that_does_not_read_gets_no_more_in_its_turn(open_stage: OpenStage) -> None:
    """
    Until it reads again.
    """
    stage = open_stage()
    [reader] = crowd(stage, 1)
    reader.sends(GET)
    await stage.settle()
    reader.stops_reading()
    stage.service.answers(PART)
    await stage.settle()
    assert not stage.service.is_read
    reader.reads_again()
    await stage.settle()
    assert stage.service.is_read
    stage.service.answers(PART[-30_000:])
    assert reader.reply.status == 200


async def test_who_has_sent_little_is_read_first_after_a_stop(open_stage: OpenStage) -> None:
    """
    What has arrived of the others is more than a small request: they have their turn behind it.
    """
    stage = open_stage()
    much, little = crowd(stage, 2)
    for client, size in ((much, 2 * SMALL_BYTES), (little, SMALL_BYTES)):
        client._transport.socket.fileno()
        assert client._transport.socket._pipe
        os.write(client._transport.socket._pipe[1], bytes(size))
    stage._listener.memory.is_short = True
    stage._listener.memory.stop_reading()
    stage.clock.advance(0.01)
    await stage.settle()
    assert (much._transport.is_read, little._transport.is_read) == (False, True)

    stage.clock.advance(0.05)
    stage._listener.memory.is_short = False
    await stage.until(lambda: much._transport.is_read)


async def test_few_are_read_again_in_a_turn_after_a_stop(open_stage: OpenStage) -> None:
    """
    The newest and the oldest: a new client does not wait for a thousand others, and no old one
    for ever.
    """
    stage = open_stage(max_connections=1000)
    clients = crowd(stage, 3 * READ_TOGETHER)
    stage._listener.memory.stop_reading()
    stage.clock.advance(0.01)
    await stage.until(lambda: clients[-1]._transport.is_read)
    assert stage.client._transport.is_read
    read = 0
    while read < len(clients):
        before, read = read, sum(client._transport.is_read for client in clients)
        assert read - before <= READ_TOGETHER
        await stage.settle_once()


async def test_few_services_are_read_again_in_a_turn_after_a_stop(open_stage: OpenStage) -> None:
    """
    A read of a response has 250 KiB, so each of them counts as four clients.
    """
    stage = open_stage(max_connections=1000, max_in_flight=1000)
    clients = crowd(stage, READ_TOGETHER)
    for client in clients:
        client.sends(GET)
    await stage.until(lambda: len(stage.services) == len(clients))
    for service in stage.services:
        service.answers(PART)
    await stage.settle()
    stage._listener.memory.stop_reading()
    assert not any(service.is_read for service in stage.services)
    stage.clock.advance(0.01)
    read = 0
    while read < len(clients):
        before, read = read, sum(service.is_read for service in stage.services)
        assert read - before <= READ_TOGETHER // 4
        await stage.settle_once()
    for service in stage.services:
        service.answers(b"x" * 30_000)


async def test_newcomers_are_the_first_that_are_read_again_after_a_stop(
    open_stage: OpenStage,
) -> None:
    """
    And those whose service has not answered: of neither has anything been read so far.
    """
    stage = open_stage(max_connections=1000)
    others = crowd(stage, 8 * READ_TOGETHER)
    new, asked = others.pop(len(others) // 2), others.pop(len(others) // 2)
    for client in others:
        client.sends(b"GET /iris HTTP/1.1\r\n")
    asked.sends(GET)
    await stage.until(lambda: stage.service.received)
    stage._listener.memory.stop_reading()
    assert not any(one.is_read for one in (new, stage.service))
    stage.clock.advance(0.01)
    await stage.until(lambda: any(client.is_read for client in others))
    assert new.is_read
    assert stage.service.is_read
    assert sum(client.is_read for client in others) <= READ_TOGETHER
    stage.service.answers(OK)


async def test_second_stop_holds_those_that_wait_to_be_read_as_well(open_stage: OpenStage) -> None:
    """
    Not before the loop could read from those that go on; everybody is read in the end.
    """
    stage = open_stage(max_connections=1000)
    clients = crowd(stage, 3 * READ_TOGETHER)
    memory = stage._listener.memory
    memory.stop_reading()
    stage.clock.advance(0.01)
    await stage.until(lambda: clients[-1]._transport.is_read)
    memory.stop_reading()
    assert clients[-1]._transport.is_read
    await stage.settle_once()
    memory.stop_reading()
    assert not any(client._transport.is_read for client in clients)
    stage.clock.advance(0.01)
    await stage.until(lambda: all(client._transport.is_read for client in clients))
