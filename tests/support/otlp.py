"""A receiver of traces: takes OTLP over HTTP in protobuf, as a collector does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.web_server import web_server


class Receiver:
    """What has been received."""

    def __init__(self) -> None:
        self.endpoint = ""
        """For `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}
        self.open = asyncio.Event()
        """While clear, the receiver takes requests and does not answer."""
        self.open.set()
        self.asked = 0

    async def take(self, request: web.Request) -> web.Response:
        """Take one export."""
        self.asked += 1
        body = await request.read()
        await self.open.wait()
        assert request.content_type == "application/x-protobuf"
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {
                one.key: one.value.string_value for one in of_resource.resource.attributes
            }
            for of_scope in of_resource.scope_spans:
                self.spans.extend(of_scope.spans)
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[Span]:
        """Return the spans of that name, oldest first."""
        return sorted(
            (span for span in self.spans if span.name == name),
            key=lambda span: span.start_time_unix_nano,
        )


def attributes_of(span: Span) -> dict[str, str | int]:
    """Return attributes, all of which are texts or whole numbers."""
    return {
        one.key: one.value.string_value
        if one.value.HasField("string_value")
        else one.value.int_value
        for one in span.attributes
    }


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[Receiver]:
    """Run a receiver on loopback."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/v1/traces", receiver.take)
    async with web_server(application) as port:
        receiver.endpoint = f"http://127.0.0.1:{port}"
        try:
            yield receiver
        finally:
            receiver.open.set()
