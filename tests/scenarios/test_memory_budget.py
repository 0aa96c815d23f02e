"""What happens when more waits in memory than may; budgets are small, so that a few clients do."""

from typing import cast

import pytest

from gateway.downstream.connection import ClientConnection
from gateway.downstream.holding import LOOKED_AT_TOGETHER
from tests.scenarios.messages import CHUNKED, GET, OK, answer, error_in, request, upload
from tests.support.memory import OpenStage, Stage
from tests.support.memory_transport import Client, Fate

BUDGET = 2**20
PIECE = 24 * 1024


def waiting(stage: Stage) -> int:
    """Return all that waits, in bytes."""
    held = stage.waiting()
    return held.heads + held.bodies + held.answers + held.kept


async def pause_is_over(stage: Stage) -> None:
    """Let the time pass for which nothing is read near the limit, which may come again at once."""
    for _ in range(5):
        await stage.settle()
        stage.clock.advance(0.05)
    await stage.settle()


async def test_unfinished_heads_end_before_memory_does(open_stage: OpenStage) -> None:
    """
    Those that hold most and are silent longest get 503; a small new request is served.
    """
    stage = open_stage(max_memory=BUDGET)
    begin = b"GET /iris HTTP/1.1\r\nHost: localhost\r\n" + b"X: %b\r\n" % (b"x" * PIECE) * 3
    clients: list[Client] = []
    for _ in range(40):
        stage.clock.advance(0.01)
        clients.append(stage.new_client())
        clients[-1].sends(begin)
        await stage.settle()
        assert waiting(stage) <= BUDGET * 17 // 16
    ended = [client for client in clients if client.received]
    assert 20 < len(ended) < 40
    assert clients[0] in ended
    assert clients[-1] not in ended
    for client in ended:
        assert error_in(client.replies[0]) == (503, "Overloaded")
        assert client.replies[0].values(b"retry-after") == [b"1"]
    assert stage.sample("gateway_requests_rejected_total", reason="memory") == len(ended)

    await pause_is_over(stage)
    stage.client.sends(GET)
    stage.service.answers(OK)
    assert stage.client.reply.status == 200


async def test_near_the_limit_those_that_hold_much_are_not_read(open_stage: OpenStage) -> None:
    """
    For a while, and then again; what the kernel keeps of them meanwhile waits there.
    """
    stage = open_stage(max_memory=BUDGET)
    begin = b"GET /iris HTTP/1.1\r\nHost: localhost\r\n" + b"X: %b\r\n" % (b"x" * PIECE) * 3
    clients: list[Client] = []
    for _ in range(8):
        clients.append(stage.new_client())
        clients[-1].sends(begin)
        await stage.settle()
    assert all(client.is_read for client in clients)
    for _ in range(5):  # above three quarters, in one turn of the loop
        clients.append(stage.new_client())
        clients[-1].sends(begin)
    assert not any(client.is_read for client in clients)
    assert not any(client.received for client in clients)

    await pause_is_over(stage)
    assert all(client.is_read for client in clients)


async def test_memory_is_short_near_the_limit_for_a_while(open_stage: OpenStage) -> None:
    """
    Meanwhile nobody that sends or gets much has a turn.
    """
    stage = open_stage(max_memory=BUDGET)
    begin = b"GET /iris HTTP/1.1\r\nHost: localhost\r\n" + b"X: %b\r\n" % (b"x" * PIECE) * 3
    memory = stage._listener.memory
    for _ in range(20):
        if not memory.is_short:
            stage.new_client().sends(begin)
            await stage.settle()
    assert memory.is_short
    assert waiting(stage) > BUDGET // 2
    await pause_is_over(stage)
    assert not memory.is_short


async def test_unread_answers_end_before_memory_does(open_stage: OpenStage) -> None:
    """
    With a reset, since their status has been sent.
    """
    stage = open_stage(max_memory=BUDGET)
    clients: list[Client] = []
    for _ in range(20):
        clients.append(stage.new_client())
        clients[-1].stops_reading()
        clients[-1].sends(GET)
        await stage.settle()
        stage.service.answers(answer(200, b"x" * 150_000))
        await stage.settle()
        assert waiting(stage) <= BUDGET * 5 // 4
    assert {Fate.OPEN, Fate.RESET} == {client.fate for client in clients}
    assert clients[-1].fate is Fate.OPEN

    await pause_is_over(stage)
    stage.client.sends(GET)
    await stage.settle()
    for service in stage.services:  # whichever it has been given
        service.answers(OK)
    assert stage.client.reply.status == 200


async def test_stalled_uploads_end_before_memory_does(open_stage: OpenStage) -> None:
    """
    Kept bodies count as well as what the service does not read; a small upload goes through.
    """
    stage = open_stage(max_memory=BUDGET, replay_bytes=BUDGET)
    clients: list[Client] = []
    for _ in range(30):
        stage.clock.advance(0.01)
        clients.append(stage.new_client())
        clients[-1].sends(upload(900_000, b"x" * 20_000))
        await stage.settle()
        stage.service.stops_reading()
        clients[-1].sends(b"x" * 40_000, b"x" * 40_000)
        await stage.settle()
        assert waiting(stage) <= BUDGET * 5 // 4
    ended = [client for client in clients if client.received]
    assert 0 < len(ended) < 30
    for client in ended:
        assert error_in(client.reply) == (503, "Overloaded")

    await pause_is_over(stage)
    stage.client.sends(request(b"POST", b"{}"))
    await stage.settle()
    stage.service.answers(OK)
    assert stage.client.reply.status == 200
    stage.under_way_at_end = len(clients) - len(ended)


async def test_unfinished_chunk_lines_end_before_memory_does(open_stage: OpenStage) -> None:
    """
    They are no body yet, but they wait like one: those that hold most get 503.
    """
    stage = open_stage(max_memory=BUDGET)
    clients: list[Client] = []
    for _ in range(40):
        stage.clock.advance(0.01)
        clients.append(stage.new_client())
        clients[-1].sends(CHUNKED + b"2;a", *[b"b" * PIECE] * 3)
        await stage.settle()
        assert waiting(stage) <= BUDGET * 17 // 16
    ended = [client for client in clients if client.received]
    assert 20 < len(ended) < 40
    for client in ended:
        assert error_in(client.reply) == (503, "Overloaded")
    stage.under_way_at_end = len(clients) - len(ended)


async def test_unfinished_response_counts_as_what_waits(stage: Stage) -> None:
    """
    Its head, and the line of a chunk.
    """
    stage.client.sends(GET)
    stage.service.answers(b"HTTP/1.1 200 OK\r\nX: " + b"x" * PIECE)
    assert PIECE < waiting(stage) < 2 * PIECE
    stage.service.answers(b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert waiting(stage) < PIECE
    stage.service.answers(b"2;a" + b"b" * PIECE)
    assert PIECE < waiting(stage) < 2 * PIECE
    stage.service.answers(b"\r\nok\r\n0\r\n\r\n")
    assert stage.client.reply.body == b"ok"
    assert waiting(stage) < PIECE


async def test_few_clients_are_ended_in_a_turn(open_stage: OpenStage) -> None:
    """
    Each takes a tenth of a millisecond, and others wait meanwhile.
    """
    stage = open_stage(max_memory=2 * BUDGET, max_connections=1000)
    clients: list[Client] = []
    ended = 0
    for _ in range(560):
        clients.append(stage.new_client())
        clients[-1].sends(b"GET /iris HTTP/1.1\r\nX: %b\r\n" % (b"x" * 4000))
        if len(clients) % 8 == 0:
            await stage.settle_once()
            before, ended = ended, sum(bool(client.received) for client in clients)
            assert ended - before <= 2 * 16  # at once, and in the turn that has just passed
    await stage.settle()
    assert sum(bool(client.received) for client in clients) >= 64


async def test_large_holder_ends_first_though_it_came_last(open_stage: OpenStage) -> None:
    """
    Hundreds of small ones that were to end, a few in each turn, would else end before it.
    """
    stage = open_stage(max_memory=2 * BUDGET, max_connections=1000)
    memory = stage._listener.memory
    small = [stage.new_client() for _ in range(300)]
    for client in small:
        client.sends(b"GET /iris HTTP/1.1\r\nX: %b\r\n" % (b"x" * 4000))
    await stage.settle()
    assert not any(client.received for client in small)
    memory._excess = lambda: 8 * BUDGET  # the process has much more in memory than it should
    memory.note(BUDGET)
    await stage.settle_once()
    assert 0 < sum(bool(client.received) for client in small) < 100

    large = stage.new_client()
    large.sends(b"GET /iris HTTP/1.1\r\n" + b"X: %b\r\n" % (b"x" * PIECE) * 3)
    memory.note(BUDGET)
    await stage.settle_once()
    assert large.received
    assert sum(bool(client.received) for client in small) < 200

    memory._excess = lambda: 0
    memory.note(BUDGET)  # there is enough again: the others are spared
    await stage.settle()
    assert sum(bool(client.received) for client in small) < 250


async def test_thousands_of_clients_are_looked_at_in_several_turns(open_stage: OpenStage) -> None:
    """
    If more comes meanwhile than is allowed for, nobody is read until it is known what there is.
    """
    stage = open_stage(max_memory=BUDGET, max_connections=4 * LOOKED_AT_TOGETHER)
    memory = stage._listener.memory
    first, *_, last = (stage.new_client() for _ in range(3 * LOOKED_AT_TOGETHER - 1))
    last.sends(b"GET /iris HTTP/1.1\r\n" + b"X: %b\r\n" % (b"x" * PIECE) * 3)
    await stage.settle()
    memory._kept_bytes = lambda: BUDGET
    memory.note(BUDGET)
    await stage.settle_once()
    assert not last.received
    memory.note(BUDGET // 32)
    assert first.is_read
    memory.note(BUDGET // 32)
    assert not first.is_read
    await stage.settle_once()
    assert error_in(last.replies[0]) == (503, "Overloaded")
    memory._kept_bytes = lambda: 0
    await pause_is_over(stage)
    assert first.is_read


async def test_defect_in_a_look_stops_nobody(open_stage: OpenStage) -> None:
    """
    The next one looks again.
    """
    stage = open_stage(max_memory=BUDGET)
    memory = stage._listener.memory
    clients = memory._clients
    memory._clients = lambda: cast(list[ClientConnection], [object()])
    with pytest.raises((AttributeError, TypeError)):
        memory.note(BUDGET)
    memory._clients = clients
    memory.note(BUDGET // 8)
    assert stage.client.is_read


async def test_what_thousands_of_clients_hold_is_added_up_in_parts(open_stage: OpenStage) -> None:
    """
    A scrape asks for it, and others run meanwhile.
    """
    stage = open_stage(max_connections=4 * LOOKED_AT_TOGETHER)
    clients = [stage.new_client() for _ in range(2 * LOOKED_AT_TOGETHER)]
    for client in (clients[0], clients[-1]):
        client.sends(b"GET /iris HTTP/1.1\r\nX: %b" % (b"x" * PIECE))
    parts = list(stage._listener.memory.add_up())
    assert parts == [0, 0]
    assert 2 * PIECE < waiting(stage) < 3 * PIECE


async def test_room_for_many_ends_before_the_last_places(open_stage: OpenStage) -> None:
    """
    A sixteenth of the connections is kept back for small requests; who leaves makes room again.
    """
    stage = open_stage(max_connections=32)
    clients = [stage.new_client() for _ in range(28)]  # beside the one that is always there
    assert stage._listener.room() > 0
    clients.append(stage.new_client())
    assert stage._listener.room() == 0
    clients[0].vanish()
    assert stage._listener.room() == 1
