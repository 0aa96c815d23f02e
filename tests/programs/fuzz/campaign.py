"""Runs cases against a gateway, and makes a failing one small."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.programs.fuzz.cases import AnswerCase, Case, RequestCase
from tests.programs.fuzz.gateway import Gateway, serving
from tests.programs.fuzz.oracles import (
    Heard,
    Place,
    judge_head,
    judge_relayed,
    judge_replies,
    read_answers,
)
from tests.programs.fuzz.peers import Link, Peer, Service
from tests.programs.fuzz.strict import (
    MalformedError,
    PartialError,
    Response,
    read_requests,
    read_response,
)

HANG_S = 8.0
"""Nothing in a case takes longer; the gateway's own shortest deadline is 10 s."""
_SILENCE_S = 0.03
"""After which a peer takes it that the gateway waits for more. Only a guess, and only that: no
verdict depends on it."""
_MEMORY_BYTES = 24 * 2**20
"""By which the gateway may have grown since the first tenth of a run."""
_LETTERS = "abcdefghklmnopqrstuwxyz"
_FOLLOW_UP = b"GET /iris/after HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Worker:
    """One caller and one service, which meet at the gateway; runs one case at a time."""

    def __init__(self, letter: str, service: Service, gateway: Gateway) -> None:
        self.hang_s = HANG_S
        self._place = Place(letter, service.port)
        self._service = service
        self._gateway = gateway

    async def run(self, case: Case) -> list[str]:
        """Run a case and return what was wrong."""
        self._service.begin()
        if not self._gateway.is_alive:
            return ["the gateway has died"]
        try:
            if isinstance(case, RequestCase):
                problems = await self._run_request(case)
            else:
                problems = await self._run_answer(case)
        except OSError as error:
            problems = [f"the gateway cannot be reached: {error}"]
        return [*self._service.problems, *problems]

    async def _connect(self) -> Peer:
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(Peer, "127.0.0.1", self._gateway.port)
        return peer

    # What callers send.

    async def _run_request(self, case: RequestCase) -> list[str]:
        data = self._place.here(b"".join(case.pieces))
        sent, rest, malformed = read_requests(data)
        methods = [request.method for request in sent]
        problems: list[str] = []
        caller = await self._connect()
        await caller.say(_cut_alike(data, case.pieces))

        def answered() -> bool:
            heard = Heard(caller.received, caller.ended, caller.was_reset)
            replies, _ = read_answers(heard, methods, interim_allowed=True)
            return caller.ended or len(replies) >= len(sent)

        if not await caller.until(answered, self.hang_s):
            problems.append("a whole request has no answer")
        await caller.silence(_SILENCE_S if malformed or rest else 0.002)
        caller.half_close()
        if not await caller.until(lambda: caller.ended, self.hang_s):
            problems.append("the connection does not end")
            caller.reset()
        problems += await self._quiet()
        interim_allowed = b"100-continue" in data.lower()
        heard = Heard(caller.received, caller.ended, caller.was_reset)
        replies, wrong = read_answers(heard, methods, interim_allowed=interim_allowed)
        problems += wrong
        seen = self._service.requests
        problems += judge_replies(self._place, sent, seen, replies, rest)
        if not case.spoilt and len(replies) < len(sent):
            problems.append(f"{len(replies)} responses to {len(sent)} requests")
        problems += self._judge_cut()
        return problems

    def _judge_cut(self) -> list[str]:
        """Judge the heads of requests that were broken off."""
        problems: list[str] = []
        for data in self._service.cut:
            head, mark, _ = data.partition(b"\r\n\r\n")
            line, *fields = head.split(b"\r\n")
            if mark:
                pairs = [(name, value) for name, _, value in (f.partition(b": ") for f in fields)]
                problems += judge_head(self._place, line.split(b" ")[1], pairs)
        return problems

    async def _quiet(self) -> list[str]:
        """Wait until the upstream is at rest: each request answered, or its connection closed."""
        deadline = asyncio.get_running_loop().time() + self.hang_s
        while self._service.busy:
            if asyncio.get_running_loop().time() > deadline:
                return ["the gateway has left a request unfinished upstream"]
            await asyncio.sleep(0.001)
        return []

    # What services answer.

    async def _run_answer(self, case: AnswerCase) -> list[str]:
        service, place = self._service, self._place
        asked = place.here(case.request)
        to_head = asked.startswith(b"HEAD ")
        asked_on: list[Link] = []
        service.answer = lambda link, _request: asked_on.append(link)
        caller = await self._connect()
        await caller.say([asked])
        if not await _until(service.news, lambda: bool(asked_on) or caller.ended, self.hang_s):
            return ["the request does not arrive"]
        if not asked_on:
            return [f"a valid request is refused: {caller.received!r}"]
        [link] = asked_on
        service.answer = service.answer_ok
        problems: list[str] = []
        data = place.here(b"".join(case.pieces))
        await link.say(_cut_alike(data, case.pieces))

        def answered() -> bool:
            return caller.ended or _is_whole(caller, to_head=to_head)

        judged, end, why = _judge(data, case, to_head=to_head)
        if judged is not None and judged.whole and not case.spoilt:
            await caller.until(answered, self.hang_s)
        else:
            await _quiet_on_both(caller, link, answered)
        if case.ending == "reset":
            link.reset()
        elif case.ending == "close" or not answered():
            link.half_close()
        if not await caller.until(answered, self.hang_s):
            problems.append("the caller gets no answer, and no end")
        if case.ending == "late" and answered():
            await link.say([b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"])
        must_close = (
            case.ending != "keep"
            or judged is None
            or not judged.whole
            or judged.last
            or end < sum(map(len, case.pieces))
        )
        if must_close and not await link.until(lambda: link.ended, self.hang_s):
            problems.append("a connection that is spoilt is kept")
        problems += self._judge_answer(case, caller, judged, why, to_head=to_head)
        problems += await self._follow_up(caller)
        return problems

    def _judge_answer(
        self, case: AnswerCase, caller: Peer, judged: Response | None, why: str, *, to_head: bool
    ) -> list[str]:
        heard = Heard(caller.received, caller.ended, caller.was_reset)
        method = b"HEAD" if to_head else b"GET"
        replies, problems = read_answers(heard, [method], interim_allowed=False)
        if len(replies) > 1:
            problems.append("more than one final response")
        if not case.pieces:
            return problems  # and where nothing was said, the request may be sent again
        for reply in replies[:1]:
            found = judge_relayed(self._place, reply, judged, to_head=to_head)
            problems += [f"{problem} ({why})" for problem in found]
            is_good = judged is not None and judged.whole and case.ending != "reset"
            if is_good and not case.spoilt and reply.status in {502, 504}:
                problems.append(f"a valid answer became {reply.status}")
        return problems

    async def _follow_up(self, first: Peer) -> list[str]:
        """Ask for something else: it must get its own answer, whatever came before."""
        service = self._service
        before = len(service.requests)
        caller = first
        asked = self._place.here(_FOLLOW_UP)
        heard_before = len(first.received)
        # A close may be on its way; whether the connection is still good is the caller's to see.
        if first.ended or b"connection: close" in first.received.lower():
            first.close()
            caller, heard_before = await self._connect(), 0
        await caller.say([asked])
        await caller.until(
            lambda: caller.ended or _is_whole(caller, at=heard_before, to_head=False), self.hang_s
        )
        heard = Heard(caller.received[heard_before:], caller.ended, caller.was_reset)
        replies, problems = read_answers(heard, [b"GET"], interim_allowed=False)
        caller.close()
        if not replies and caller is first and caller.ended:
            return await self._follow_up(caller)
        own = [b"%d" % (len(service.requests) - 1)]
        if len(replies) != 1 or replies[0].values(b"x-number") != own:
            problems.append(f"the next request got {heard}")
        if len(service.requests) not in {before + 1, before + 2}:  # sent again, once, if stale
            problems.append(f"the next request was seen {len(service.requests) - before} times")
        problems += await self._quiet()
        return problems


def _cut_alike(data: bytes, pieces: Sequence[bytes]) -> list[bytes]:
    """Cut `data`, which is as long as `pieces` are together, where they are cut."""
    found, at = [], 0
    for piece in pieces:
        found.append(data[at : at + len(piece)])
        at += len(piece)
    return found


def _is_whole(caller: Peer, *, at: int = 0, to_head: bool) -> bool:
    heard = Heard(caller.received[at:], caller.ended, caller.was_reset)
    method = b"HEAD" if to_head else b"GET"
    replies, wrong = read_answers(heard, [method], interim_allowed=False)
    return bool(wrong) or bool(replies and replies[0].whole)


def _judge(data: bytes, case: AnswerCase, *, to_head: bool) -> tuple[Response | None, int, str]:
    """Return what a strict reader makes of an answer, where it ends, and why if it is none."""
    at = 0
    try:
        while True:
            while at and data[at : at + 1] in (b"\r", b"\n"):
                at += 1  # behind an interim response, which is not passed on
            judged, at = read_response(
                data, at, to_head=to_head, ended=True, was_reset=case.ending == "reset"
            )
            if judged.status == 101:
                return None, at, "101"
            if judged.status >= 200:
                return judged, at, ""
    except MalformedError as problem:
        return None, at, str(problem)
    except PartialError:
        return None, at, "partial"


async def _quiet_on_both(caller: Peer, link: Link, answered: Callable[[], bool]) -> None:
    now = asyncio.get_running_loop().time
    deadline = now() + _SILENCE_S
    while not answered() and not link.ended and now() < deadline:  # noqa: ASYNC110  # see below
        await asyncio.sleep(0.002)  # two peers: neither tells of the other


async def _until(news: asyncio.Event, condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition() and asyncio.get_running_loop().time() < deadline:
        news.clear()
        await asyncio.sleep(0.0005)
    return condition()


@dataclass
class Failure:
    """A case that failed, and how."""

    case: Case
    problems: list[str]
    name: str


@dataclass
class Result:
    """What has come of a run."""

    cases: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Of the gateway as a whole: memory, connections, logs."""


@asynccontextmanager
async def workers_at_one_gateway(count: int, folder: Path) -> AsyncIterator[list[Worker]]:
    """Run a gateway with `count` services, and a worker for each."""
    async with AsyncExitStack() as stack:
        letters = _LETTERS[:count]
        services = {letter: await stack.enter_async_context(Service()) for letter in letters}
        ports = {letter: service.port for letter, service in services.items()}
        gateway = await stack.enter_async_context(serving(ports, folder))
        yield [Worker(letter, service, gateway) for letter, service in services.items()]


class Campaign:
    """Runs many cases on all workers of one gateway."""

    def __init__(self, workers: Sequence[Worker], *, most_failures: int = 5) -> None:
        self._workers = workers
        self._gateway = workers[0]._gateway
        self._most_failures = most_failures
        self._next = 0

    async def run(self, makers: Sequence[Callable[[int], Case]], count: int) -> Result:
        """Run `count` cases of each of `makers`, which make one by its number.

        Stops early after a few failures.
        """
        result = Result()
        began = time.monotonic()
        files_before = self._gateway.open_files
        series_before = await self._series()
        total = count * len(makers)
        self._next = 0
        settled_bytes = 0

        async def work(worker: Worker) -> None:
            nonlocal settled_bytes
            while self._next < total and len(result.failures) < self._most_failures:
                number = self._next
                self._next += 1
                index, kind = divmod(number, len(makers))
                case = makers[kind](index)
                problems = await worker.run(case)
                result.cases += 1
                if number == total // 10:
                    settled_bytes = self._gateway.rss_bytes
                if problems:
                    name = f"{type(case).__name__} {index}"
                    result.failures.append(Failure(case, problems, name))
                    if not self._gateway.is_alive:
                        return

        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(work(worker))
        result.seconds = time.monotonic() - began
        if not self._gateway.is_alive:
            result.problems = ["the gateway has died", *self._gateway.log_problems()]
            return result
        grown = self._gateway.rss_bytes - settled_bytes
        if settled_bytes and grown > _MEMORY_BYTES:
            result.problems.append(f"memory has grown by {grown / 2**20:.1f} MiB")
        result.problems += await self._left_open(files_before)
        if await self._series() != series_before:
            result.problems.append("the series of /metrics have changed")
        result.problems += self._gateway.log_problems()
        return result

    async def _series(self) -> set[str]:
        """Return the series that there are from the start."""
        samples = await self._gateway.samples()
        return {name for name in samples if not name.startswith("gateway_requests_total")}

    async def _left_open(self, files_before: int) -> list[str]:
        """Wait until nothing is in flight and only idle connections are open."""
        deadline = time.monotonic() + HANG_S
        while True:
            samples = await self._gateway.samples()
            flying = sum(v for k, v in samples.items() if k.startswith("gateway_requests_in_fl"))
            connections = {k: v for k, v in samples.items() if "upstream_connections{" in k}
            active = sum(v for k, v in connections.items() if 'state="active"' in k)
            idle = sum(connections.values()) - active
            files = self._gateway.open_files - files_before - idle
            if not flying and not active and files <= 2:  # a scrape's own connection
                return []
            if time.monotonic() > deadline:
                return [f"left: {flying:g} requests, {active:g} connections, {files:g} files"]
            await asyncio.sleep(0.05)


async def shrink(worker: Worker, failure: Failure, *, attempts: int = 300) -> Failure:
    """Return a failing case with as little as can be found in a bounded number of attempts."""
    best = failure
    left = attempts
    worker.hang_s = 1.0

    async def fails(pieces: Sequence[bytes]) -> bool:
        nonlocal best, left
        left -= 1
        case = replace(failure.case, pieces=tuple(pieces))
        problems = await worker.run(case)
        if problems:
            best = replace(failure, case=case, problems=problems)
        return bool(problems)

    async def drop(items: Sequence[bytes], build: Callable[[Sequence[bytes]], list[bytes]]) -> None:
        size = max(1, len(items) // 2)
        while left > 0:
            at, shorter = 0, False
            while at < len(items) and left > 0:
                fewer = [*items[:at], *items[at + size :]]
                if await fails(build(fewer)):
                    items, shorter = fewer, True
                else:
                    at += size
            if size == 1 and not shorter:
                return
            size = max(1, size // 2)

    data = b"".join(failure.case.pieces)
    if await fails([data]):
        await drop([bytes([octet]) for octet in data], lambda octets: [b"".join(octets)])
    else:  # it matters how it is cut
        await drop(failure.case.pieces, list)
    return best
