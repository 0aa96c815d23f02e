"""A service with a limit: who waits, who goes on, and what a caller that is refused is told."""

from collections.abc import Callable

import pytest

from gateway.proxy.gate import Limits
from tests.scenarios.messages import GET, OK, POST, answer, error_in, request, upload
from tests.support.memory import LOOK_S, Client, Fate, OpenStage, Stage

ENDINGS = pytest.mark.parametrize("end", [Client.leaves, Client.resets], ids=["leaves", "resets"])
WAIT_S = 1.0


def one_at_a_time(depth: int | None = None, limit: int | None = 1) -> Limits:
    """A service that takes one request at a time."""
    return Limits(max_in_flight=limit, queue_depth=depth, queue_wait_s=WAIT_S)


@pytest.fixture
async def stage(open_stage: OpenStage) -> Stage:
    """A stage whose service takes one request at a time."""
    return open_stage(limits=one_at_a_time(), websocket=True)


def asked(stage: Stage, target: bytes) -> Client:
    """One more client that has asked for something."""
    client = stage.new_client()
    client.sends(request(b"GET", target=target))
    return client


async def test_request_above_the_limit_waits_for_its_turn(stage: Stage) -> None:
    """
    It is forwarded when the one before it has ended; the wait is told, and is not our own time.
    """
    stage.client.sends(POST)
    second = asked(stage, b"/iris/second")
    await stage.settle()
    assert stage.sample("gateway_requests_queued", service="iris") == 1
    assert b"/second" not in stage.service.received
    stage.clock.advance(0.5)
    stage.service.answers(OK)
    await stage.until(lambda: b"/second" in stage.service.received)
    stage.service.answers(answer(200, b"2"))

    assert second.reply.body == b"2"
    assert stage.records[1]["queue_us"] == 500_000
    assert stage.records[1]["overhead_us"] == 0
    assert stage.records[0]["queue_us"] == 0
    assert stage.sample("gateway_queue_wait_seconds_count", service="iris") == 2
    assert stage.sample("gateway_queue_wait_seconds_sum", service="iris") == 0.5


async def test_request_above_the_depth_is_refused_at_once(open_stage: OpenStage) -> None:
    """
    503 in the vendor's shape, with the time to try again; the connection goes on.
    """
    stage = open_stage(limits=one_at_a_time(depth=1))
    stage.client.sends(GET)
    waiting, refused = asked(stage, b"/iris/2"), asked(stage, b"/iris/3")

    assert error_in(refused.reply) == (503, "Overloaded")
    assert refused.reply.values(b"retry-after") == [b"1"]
    assert refused.reply.values(b"proxy-status") == [
        b"modelarts-gateway; error=connection_limit_reached"
    ]
    assert not refused.reply.closes
    assert stage.record["rejection"] == "queue_full"
    assert stage.sample("gateway_requests_rejected_total", reason="queue_full") == 1
    stage.service.answers(OK)
    await stage.until(lambda: b"/2" in stage.service.received)
    stage.service.answers(OK)
    assert waiting.reply.status == 200
    assert b"/3" not in stage.service.received


async def test_request_waits_no_longer_than_it_may(stage: Stage) -> None:
    """
    Both sides of the deadline, which is noticed when it is over and not at the next look.
    """
    stage.client.sends(GET)
    waiting = asked(stage, b"/iris/2")
    stage.clock.advance(WAIT_S - 0.001)
    await stage.settle()
    assert waiting.received == b""
    stage.clock.advance(0.001)
    await stage.settle()

    assert error_in(waiting.reply) == (503, "Overloaded")
    assert stage.record["rejection"] == "queue_timeout"
    assert stage.sample("gateway_requests_rejected_total", reason="queue_timeout") == 1
    stage.service.answers(OK)
    assert stage.client.reply.status == 200


async def test_retry_after_says_when_there_will_be_a_place(open_stage: OpenStage) -> None:
    """
    A service that takes 4 s, and two requests that wait: a third would be served after 12 s.
    """
    stage = open_stage(limits=one_at_a_time(depth=2))
    stage.client.sends(GET)
    stage.clock.advance(4.0)
    stage.service.answers(OK)
    stage.client.sends(GET)
    for target in (b"/iris/2", b"/iris/3"):
        asked(stage, target)
    refused = asked(stage, b"/iris/4")

    assert refused.reply.values(b"retry-after") == [b"12"]
    stage.under_way_at_end = 3


@ENDINGS
async def test_client_that_leaves_the_queue_costs_the_service_nothing(
    end: Callable[[Client], None], stage: Stage
) -> None:
    """
    It is removed at once, and the next one takes its turn.
    """
    stage.client.sends(GET)
    leaving, staying = asked(stage, b"/iris/2"), asked(stage, b"/iris/3")
    await stage.settle()
    end(leaving)
    await stage.settle()
    assert stage.sample("gateway_requests_queued") == 1
    stage.service.answers(OK)
    await stage.until(lambda: b"/3" in stage.service.received)
    stage.service.answers(OK)

    assert staying.reply.status == 200
    assert b"/2" not in stage.service.received


async def test_client_that_left_unseen_is_looked_at_before_its_turn(open_stage: OpenStage) -> None:
    """
    While its upload is not read, nobody tells us of its end: its socket is asked.
    """
    stage = open_stage(limits=one_at_a_time(), replay_bytes=len(b"begun"))
    stage.client.sends(GET)
    upload_client = stage.new_client()
    upload_client.sends(upload(10, b"begun"))
    await stage.settle()
    assert not upload_client.is_read
    upload_client.sends(b"more")
    upload_client.leaves()
    staying = asked(stage, b"/iris/3")
    assert LOOK_S > 0.1
    stage.clock.advance(0.1)
    stage.service.answers(OK)
    await stage.until(lambda: b"/3" in stage.service.received)
    stage.service.answers(OK)

    assert b"begun" not in stage.service.received
    assert staying.reply.status == 200
    assert [record["error"] for record in stage.records].count("client_disconnected") == 1


async def test_waiting_upload_is_not_read(open_stage: OpenStage) -> None:
    """
    No more than the replay buffer holds waits in memory; its turn reads the rest.
    """
    stage = open_stage(limits=one_at_a_time(), replay_bytes=len(b"begun"))
    stage.client.sends(GET)
    waiting = stage.new_client()
    waiting.sends(upload(10, b"begun"))
    await stage.settle()
    assert not waiting.is_read
    waiting.sends(b"-more")
    stage.service.answers(OK)
    await stage.until(lambda: stage.service.received.endswith(b"begun-more"))
    stage.service.answers(OK)

    assert waiting.reply.status == 200


async def test_newest_goes_first_when_the_queue_stands(open_stage: OpenStage) -> None:
    """
    In a burst the oldest goes first; when the queue has not been empty for long, the newest does.
    """
    stage = open_stage(limits=one_at_a_time(depth=9))
    stage.client.sends(GET)
    burst = [asked(stage, b"/iris/burst-%d" % number) for number in range(2)]
    stage.clock.advance(0.9)
    stage.service.answers(OK)
    await stage.until(lambda: b"/burst-0" in stage.service.received)
    older = asked(stage, b"/iris/older")
    stage.clock.advance(0.11)
    await stage.settle()
    newer = asked(stage, b"/iris/newer")
    stage.service.answers(OK)
    await stage.until(lambda: b"/newer" in stage.service.received)
    assert b"/older" not in stage.service.received
    stage.service.answers(OK)
    await stage.until(lambda: b"/older" in stage.service.received)
    stage.service.answers(OK)

    assert [client.reply.status for client in (*burst, older, newer)] == [200, 503, 200, 200]


async def test_event_stream_holds_its_place_until_its_end(stage: Stage) -> None:
    """
    The place is not free after the head, only after the last event.
    """
    stage.client.sends(GET)
    stage.service.answers(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
    )
    waiting = asked(stage, b"/iris/2")
    await stage.settle()
    assert stage.sample("gateway_requests_queued") == 1
    stage.service.answers(b"0\r\n\r\n")
    await stage.until(lambda: b"/2" in stage.service.received)
    stage.service.answers(OK)

    assert waiting.reply.status == 200


async def test_websocket_holds_its_place_until_its_end(stage: Stage) -> None:
    """
    A tunnel takes a place as any request does.
    """
    stage.client.sends(request(b"GET", None, b"Connection: Upgrade", b"Upgrade: websocket"))
    stage.service.answers(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    waiting = asked(stage, b"/iris/2")
    await stage.settle()
    assert stage.sample("gateway_requests_queued") == 1
    stage.client.leaves()
    await stage.until(lambda: any(b"/2" in end.received for end in stage.services))
    stage.service.answers(OK)

    assert waiting.reply.status == 200


async def test_drain_empties_the_queue(stage: Stage) -> None:
    """
    Who has its turn is answered; who waits is told at once to go elsewhere.
    """
    stage.client.sends(GET)
    waiting = asked(stage, b"/iris/2")
    await stage.settle()
    drain = stage.drains()
    await stage.settle()
    assert error_in(waiting.reply) == (503, "Draining")
    assert not drain.done()
    stage.service.answers(OK)
    assert await drain

    assert stage.client.reply.status == 200
    assert b"/2" not in stage.service.received
    assert stage.sample("gateway_requests_rejected_total", reason="draining") == 1


async def test_announced_end_still_serves_the_queue(stage: Stage) -> None:
    """
    Until the listener closes, a request that waits gets its turn.
    """
    stage.client.sends(GET)
    waiting = asked(stage, b"/iris/2")
    stage.announces_its_end()
    stage.service.answers(OK)
    await stage.until(lambda: b"/2" in stage.service.received)
    stage.service.answers(OK)

    assert waiting.reply.status == 200


async def test_credential_is_asked_for_when_the_request_has_its_turn(stage: Stage) -> None:
    """
    Each wait is told for itself.
    """
    stage.client.sends(GET)
    waiting = asked(stage, b"/iris/2")
    stage.credentials.are_awaited()
    stage.clock.advance(0.5)
    stage.service.answers(OK)
    await stage.settle()
    stage.clock.advance(0.25)
    stage.credentials.arrive()
    await stage.until(lambda: b"/2" in stage.service.received)
    stage.service.answers(OK)

    assert waiting.reply.status == 200
    record = stage.records[1]
    assert (record["queue_us"], record["credential_us"]) == (500_000, 250_000)


async def test_failed_request_frees_its_place(stage: Stage) -> None:
    """
    Whatever ends a request, the next one has its turn.
    """
    stage.client.sends(GET)
    waiting = asked(stage, b"/iris/2")
    await stage.settle()
    stage.service.breaks()
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)
    stage.service.answers(OK)

    assert stage.client.reply.status == 502
    assert waiting.reply.status == 200


async def test_many_places_become_free_for_many(open_stage: OpenStage) -> None:
    """
    Two requests in flight at a time, never three.
    """
    stage = open_stage(limits=one_at_a_time(limit=2))
    clients = [asked(stage, b"/iris/%d" % number) for number in range(5)]
    await stage.settle()
    for number in range(len(clients)):
        under_way = stage.pool.active
        assert under_way == min(2, len(clients) - number)
        stage.services[number % 2].answers(OK)
        await stage.settle()

    assert [client.reply.status for client in clients] == [200] * 5


@pytest.mark.parametrize(
    ("status", "code", "limit_after"),
    [
        (429, b"APIG.0308", 9),
        (429, b"ModelArts.4206", 9),
        (500, b"ModelArts.4302", 9),
        (429, b"MR.0105", 10),
        (429, b"APIG.0101", 10),
        (500, b"MR.0105", 10),
        (503, b"ModelArts.4503", 10),
    ],
)
async def test_adaptive_limit_goes_down_when_the_service_throttles(
    status: int, code: bytes, limit_after: int, open_stage: OpenStage
) -> None:
    """
    Only the vendor's own words for too many requests count, never the model's errors.
    """
    stage = open_stage(limits=one_at_a_time(limit=None))
    assert stage.sample("gateway_in_flight_limit", service="iris") == 10
    stage.client.sends(GET)
    stage.service.answers(answer(status, b'{"error_code":"%b","error_msg":"x"}' % code))

    assert stage.client.reply.status == status
    assert stage.sample("gateway_in_flight_limit", service="iris") == limit_after


async def test_service_that_throttles_is_left_alone_for_as_long_as_it_asks(
    open_stage: OpenStage,
) -> None:
    """
    Nine of ten places are free, and the next request waits until `Retry-After` is over.
    """
    stage = open_stage(limits=one_at_a_time(limit=None))
    stage.client.sends(GET)
    throttled = b'{"error_code":"APIG.0308","error_msg":"x"}'
    stage.service.answers(answer(429, throttled, b"Retry-After: 1"))
    assert stage.client.reply.status == 429
    stage.clock.advance(0.1)
    waiting = asked(stage, b"/iris/2")
    await stage.settle()
    assert stage.sample("gateway_requests_queued", service="iris") == 1
    assert b"/2" not in stage.service.received
    stage.clock.advance(0.9)
    await stage.until(lambda: b"/2" in stage.service.received)
    stage.service.answers(OK)

    assert waiting.reply.status == 200


async def test_adaptive_limit_goes_down_when_the_service_is_too_slow(
    open_stage: OpenStage,
) -> None:
    """
    A response that did not come in time is a loss.
    """
    stage = open_stage(limits=one_at_a_time(limit=None))
    stage.client.sends(GET)
    stage.pass_time(40.0)

    assert stage.client.reply.status == 504
    assert stage.client.fate is Fate.OPEN
    assert stage.sample("gateway_in_flight_limit", service="iris") == 9
