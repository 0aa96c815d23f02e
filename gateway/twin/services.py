"""The real-time services over HTTP: the API gateway's checks, then a model, then faults."""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway.twin import echo, image, iris, llm, wire
from gateway.twin.access import refusal_of
from gateway.twin.capacity import FullError
from gateway.twin.faults import FaultError, Faults, faults_in_query
from gateway.twin.model import Call, Model, ModelError
from gateway.twin.reply import (
    KNOWN_CODES,
    MODELARTS,
    Reply,
    cloud_error,
    json_body,
    known_error,
)
from gateway.twin.state import CloudState, ServiceStats

IRIS_ID: Final = "eb3e0c54-3dfa-4750-af0c-95c45e5d3e83"
IMAGE_ID: Final = "5f0c8f5e-6a2b-4c1d-9e57-1c1d6a4f7b20"
LLM_ID: Final = "11a3b5c7-9d0e-4f21-8b43-6c5d7e8f9a0b"
SLOW_ID: Final = "510e0510-e051-40e0-8510-e0510e0510e0"
ECHO_ID: Final = "0ec40ec4-0ec4-40ec-80ec-0ec40ec40ec4"

MAX_BODY = 12 << 20
MAX_FIELD = 32 << 10
MAX_HEAD = 128 << 10


@dataclass(frozen=True, slots=True)
class Service:
    """One published real-time service."""

    name: str
    identifier: str
    model: Model
    posts_only: bool = True
    is_heavy: bool = False
    """Its model may take long and runs in a thread."""
    has_slots: bool = False
    """It works on a few requests at a time; see `Capacity`."""


SERVICES = (
    Service("iris", IRIS_ID, iris.answer),
    Service("image", IMAGE_ID, image.answer, is_heavy=True),
    Service("llm", LLM_ID, llm.answer, posts_only=False),
    Service("echo", ECHO_ID, echo.answer, posts_only=False),
    Service("slow", SLOW_ID, echo.answer, has_slots=True),
)
_BY_ID = {service.identifier: service for service in SERVICES}
_PROTECTION = (
    "Gateway forwarding error. Failed to invoke backend service due to connection refused. Due to "
    "self protection, the backend service is disconnected, please wait moment."
)
_LIGHT_BODY = 64 << 10
_SECRET_FIELDS = {b"x-auth-token", b"x-apig-appcode", b"authorization", b"x-security-token"}
_SCRATCH = b"0123456789abcdef" * 4096


class _BodyTooLargeError(Exception):
    pass


class Services:
    """Handles everything below `/v1/infers/`, and every path without another handler."""

    def __init__(self, state: CloudState) -> None:
        self._state = state

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one call.

        Cancellation: the caller has gone away.
        """
        request_id = wire.new_request_id()
        service = _service_at(request.raw_path)
        if service is None:
            return wire.whole(known_error("APIG.0101", request_id), request_id)
        stats = self._state.stats.services.setdefault(service.name, ServiceStats())
        stats.calls += 1
        refusal = _head_refusal(request, request_id)
        if refusal is None:
            is_new = request.raw_path.startswith("/v2/")
            refusal = refusal_of(request, self._state, is_new=is_new, request_id=request_id)
            stats.rejected += refusal is not None
        if refusal is None and service.has_slots and self._is_throttled():
            limit = self._state.slots.capacity.rate
            message = f"policy user over ratelimit,limit:{limit},time:1 second"
            refusal = cloud_error(429, "APIG.0308", message, request_id)
        if refusal is not None:
            stats.status[refusal.status] += 1
            return wire.whole(refusal, request_id)
        try:
            faults = self._state.plan.take_service(service.name) or faults_in_query(
                request.raw_path
            )
        except FaultError as error:
            wrong = cloud_error(400, "Twin.UnknownFault", str(error), request_id)
            return wire.whole(wrong, request_id)
        reply = await self._answer(request, service, faults, stats, request_id)
        stats.status[reply.status] += 1
        return await wire.deliver(request, reply, faults, request_id)

    def _is_throttled(self) -> bool:
        return self._state.slots.throttles(self._state.clock.monotonic())

    async def _answer(
        self,
        request: web.Request,
        service: Service,
        faults: Faults,
        stats: ServiceStats,
        request_id: str,
    ) -> Reply:
        if faults.early:
            return _instead_of_model(faults, request_id) or _text_reply(200, "early")
        try:
            body = await _read(request)
        except _BodyTooLargeError:
            return cloud_error(413, "APIG.0201", "Request entity too large.", request_id)
        reply = _instead_of_model(faults, request_id)
        if reply is not None:
            return reply
        if service.posts_only and request.method != "POST":
            return cloud_error(405, "MR.0105", "The model answers POST only.", request_id)
        if service.has_slots:
            try:
                await self._state.slots.work()
            except FullError:
                return cloud_error(500, "ModelArts.4302", _PROTECTION, request_id)
        stats.predictions += 1
        call = Call(
            request.method,
            request.raw_path,
            _shown_fields(request),
            request.headers.get("Content-Type", ""),
            body,
            request_id,
        )
        try:
            if service.is_heavy or len(body) > _LIGHT_BODY:
                return await asyncio.to_thread(service.model, call)
            return service.model(call)
        except ModelError as error:
            return cloud_error(400, "MR.0105", f"Recognition failed: {error}.", request_id)


def _service_at(target: str) -> Service | None:
    """The service whose path this is: `/v1/infers/<id>` or `/v2/…`, and anything below."""
    steps = target.partition("?")[0].split("/", 4)
    if len(steps) < 4 or steps[1] not in {"v1", "v2"} or steps[2] != "infers":
        return None
    return _BY_ID.get(steps[3])


def _head_refusal(request: web.Request, request_id: str) -> Reply | None:
    """Return the API gateway's error for the request's size; None: it is accepted."""
    fields = request.raw_headers
    if (
        any(len(name) + len(value) > MAX_FIELD + 16 for name, value in fields)
        or sum(len(name) + len(value) + 4 for name, value in fields) > MAX_HEAD
    ):
        return cloud_error(494, "APIG.0201", "Request headers too large.", request_id)
    if request.content_length is not None and request.content_length > MAX_BODY:
        return cloud_error(413, "APIG.0201", "Request entity too large.", request_id)
    return None


async def _read(request: web.Request) -> bytes:
    """The body, at most `MAX_BODY` bytes of it."""
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MAX_BODY:
            raise _BodyTooLargeError
    return bytes(body)


def _shown_fields(request: web.Request) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.decode("latin-1"), fingerprint(value) if name.lower() in _SECRET_FIELDS else _text)
        for name, value in request.raw_headers
        for _text in (value.decode("latin-1"),)
    )


def fingerprint(token: bytes) -> str:
    """Return a token's fingerprint: it tells two tokens apart and cannot be used to call."""
    return "sha256:" + hashlib.sha256(token).hexdigest()[:16]


def _instead_of_model(faults: Faults, request_id: str) -> Reply | None:
    """Return the response that a fault sends instead of the model's; None without one."""
    if faults.sse:
        events = b"".join(b'data: {"event":%d}\n\n' % number for number in range(faults.sse))
        return Reply(faults.status or 200, events, MODELARTS, content_type="text/event-stream")
    if faults.size >= 0:
        copies = faults.size // len(_SCRATCH) + 1
        body = (_SCRATCH * copies)[: faults.size]
        return Reply(faults.status or 200, body, MODELARTS, content_type="application/octet-stream")
    if not faults.status:
        return None
    if faults.code:
        usual, message = KNOWN_CODES.get(faults.code, (0, "Asked for with a fault."))
        text = message if usual in {0, faults.status} else f"{message} (status {faults.status})"
        reply = cloud_error(faults.status, faults.code, text, request_id)
    else:
        reply = _text_reply(faults.status, "asked for with a fault")
    if not faults.retry_after_s:
        return reply
    fields = (("Retry-After", str(faults.retry_after_s)),)
    return Reply(reply.status, reply.body, reply.server, reply.content_type, fields)


def _text_reply(status: int, text: str) -> Reply:
    return Reply(status, json_body({"message": text}), MODELARTS)
