"""The shapes of load, and the ratios that the gateway must reach in them."""

from dataclasses import dataclass
from enum import Enum

from tests.programs.bench.processes import MIB
from tests.programs.bench.services import ROUTES, Kind
from tests.programs.bench.upstream import EVENT_EVERY_S, EVENTS

REAL_BODIES = 512
"""How many lengths the bodies of a real shape have: one more byte each."""
JSON_BODY = (
    '{"meta":{"uuid":"10eb0091-887f-4839-9929-cbc884f1e20e"},"data":{"req_data":[{'
    '"sepal_length":3,"sepal_width":1,"petal_length":2.2,"petal_width":4}]}}'
)
assert 140 <= len(JSON_BODY) <= 160
_BOUNDARY = "bench-7d1a0f3c"


class Load(Enum):
    """Who makes the load."""

    WRK = "wrk"
    OPEN_LOOP = "open loop"
    UPLOADS = "uploads"
    ENDURANCE = "endurance"


ALL = ("compiled", "interpreted", "plain", "nginx", "haproxy", "envoy", "go", "caddy")
_PROXIES = ("compiled", "interpreted", "nginx", "haproxy", "envoy", "go")
"""Without the proxy of an afternoon, and without Caddy, which is Go's proxy with more around it and
cuts large answers to POST now and then (caddyserver/caddy#5431)."""
_GATEWAYS = ("compiled", "interpreted")


@dataclass(frozen=True)
class Shape:
    """One way to load a contestant."""

    name: str
    says: str
    load: Load = Load.WRK
    connections: int = 32
    service: Kind = Kind.OURS
    """Whose server answers."""
    secure: bool = False
    """The service speaks TLS."""
    tail: str = "predict"
    """The end of the path; `large`, `slow`, `real` and `stream` mean something to the service."""
    upload_bytes: int = 0
    """Size of the file in a multipart body; 0: a JSON body."""
    real: bool = False
    """As `requests` sends it: its header fields, and a trace and a body length for each request."""
    closes: bool = False
    """Each request on a connection of its own."""
    idle: int = 0
    """Connections that made one request before and stay open beside the load."""
    rate: int = 0
    """Requests per second of the open loop."""
    requests: int = 0
    """Of an endurance run, which has one round."""
    parts: int = 1
    """What CPU is told of: a request has so many."""
    contestants: tuple[str, ...] = _PROXIES
    """Who takes part."""

    @property
    def path(self) -> str:
        return f"/{ROUTES[self.service, self.secure]}/{self.tail}"

    @property
    def content_type(self) -> str:
        if self.upload_bytes:
            return f"multipart/form-data; boundary={_BOUNDARY}"
        return "application/json"

    def body(self) -> bytes:
        if not self.upload_bytes:
            return JSON_BODY.encode()
        opening = (
            f"--{_BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="images"; filename="test.png"\r\n'
            "Content-Type: image/png\r\n\r\n"
        )
        content = (bytes(range(256)) * (self.upload_bytes // 256 + 1))[: self.upload_bytes]
        return opening.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            "real",
            "JSON as in production: own ids and traces, bodies of many lengths, 32 connections",
            tail="real",
            real=True,
            contestants=ALL,
        ),
        Shape(
            "real-tls",
            "the same, TLS to the service",
            tail="real",
            real=True,
            secure=True,
            contestants=ALL,
        ),
        Shape(
            "real-one",
            "the same on 1 connection",
            tail="real",
            real=True,
            connections=1,
            contestants=ALL,
        ),
        Shape("real-256", "the same on 256 connections", tail="real", real=True, connections=256),
        Shape("real-512", "the same on 512 connections", tail="real", real=True, connections=512),
        Shape("real-900", "the same on 900 connections", tail="real", real=True, connections=900),
        Shape(
            "close",
            "the same, each request on a connection of its own",
            tail="real",
            real=True,
            closes=True,
        ),
        Shape(
            "stream",
            f"streams of {EVENTS} events of 110 bytes, 2 ms apart; CPU per event",
            tail="stream",
            real=True,
            parts=EVENTS,
        ),
        Shape(
            "json",
            "the same 150 bytes of JSON again and again, every head alike",
            contestants=ALL,
        ),
        Shape(
            "upload-100k",
            "multipart of 100 KiB to nginx, 8 connections",
            connections=8,
            service=Kind.NGINX,
            upload_bytes=102400,
        ),
        Shape(
            "upload-1m",
            "multipart of 1 MiB to Go's net/http, which reads 32 KiB at a time, 8 connections",
            connections=8,
            service=Kind.GO,
            upload_bytes=MIB,
            contestants=ALL,
        ),
        Shape(
            "upload-1m-tls",
            "the same over TLS",
            connections=8,
            service=Kind.GO,
            secure=True,
            upload_bytes=MIB,
        ),
        Shape(
            "download-1m",
            "answers of 1 MiB from Go's net/http, 8 connections",
            connections=8,
            service=Kind.GO,
            tail="large",
        ),
        Shape(
            "upload-100k-ours",
            "multipart of 100 KiB to our own service, which takes all that is there at once",
            connections=8,
            upload_bytes=102400,
        ),
        Shape(
            "upload-1m-ours",
            "multipart of 1 MiB to our own service",
            connections=8,
            upload_bytes=MIB,
        ),
        Shape(
            "upload-1m-tls-ours",
            "the same over TLS",
            connections=8,
            upload_bytes=MIB,
            secure=True,
        ),
        Shape(
            "download-1m-ours",
            "answers of 1 MiB from our own service",
            connections=8,
            tail="large",
        ),
        Shape("idle-1000", "json on 32 connections beside 1000 idle ones", idle=1000),
        Shape("open-2000", "2000 JSON requests/s whatever happens", Load.OPEN_LOOP, rate=2000),
        Shape(
            "upload-memory",
            "50 uploads of 10 MiB at once, held up by the service for a second",
            Load.UPLOADS,
            connections=50,
            tail="slow",
            upload_bytes=10 * MIB,
        ),
        Shape(
            "endurance",
            "1 000 000 requests as in production on 32 connections",
            Load.ENDURANCE,
            tail="real",
            real=True,
            requests=1_000_000,
            contestants=_GATEWAYS,
        ),
    )
}
CHART = ("real", "real-tls", "real-512", "close", "stream", "upload-1m", "json")
"""What the picture shows."""
QUICK = ("real", "real-tls", "real-one", "json", "upload-1m", "close")
"""What `--quick` runs."""


@dataclass(frozen=True)
class Target:
    """A figure of `ours` must be at most `ratio` times that of `contestant`."""

    shape: str
    ours: str
    contestant: str
    ratio: float
    figure: str = "cpu_us"


TARGETS = (
    Target("real", "compiled", "envoy", 0.50),
    Target("real", "interpreted", "envoy", 0.80),
    Target("real", "compiled", "nginx", 1.5),
    Target("real-tls", "compiled", "envoy", 0.65),
    Target("json", "compiled", "envoy", 0.50),
    Target("json", "interpreted", "envoy", 0.75),
    Target("upload-1m", "compiled", "envoy", 0.80),
    Target("upload-1m", "interpreted", "envoy", 0.95),
    Target("upload-1m-tls", "compiled", "envoy", 1.15),
    Target("download-1m", "compiled", "envoy", 0.85),
    Target("real-one", "compiled", "envoy", 0.75, "p50_ms"),
    Target("open-2000", "compiled", "envoy", 0.8, "added_p99_ms"),
    Target("real", "compiled", "envoy", 0.9, "rss_mib"),
    Target("real", "interpreted", "envoy", 0.9, "rss_mib"),
    Target("close", "compiled", "envoy", 0.80),
    Target("close", "interpreted", "envoy", 1.0),
    Target("stream", "compiled", "envoy", 0.72),
    Target("real-512", "compiled", "envoy", 0.70),
    Target("real-900", "compiled", "envoy", 1.0, "p99_ms"),
)
GROWTH_TARGETS = (("compiled", 1.6), ("interpreted", 1.6))
"""CPU of a request at 900 connections, at most so many times that at 32."""
FIGURES = {
    "cpu_us": "CPU",
    "p50_ms": "p50",
    "p99_ms": "p99",
    "added_p99_ms": "added p99",
    "rss_mib": "RSS",
}
"""What targets are about, as a reader calls it."""
MOST_LATE_MS = 2.0
"""An open loop whose 99th percentile left later than this was starved, and says nothing."""
STREAM_MS = EVENTS * EVENT_EVERY_S * 1000
"""What a stream takes at least."""
MOST_STRETCH = 1.2
"""Where half of the streams took longer than so many times that, several events came in one read,
which costs as much as one: the machine was too busy, and CPU per event says nothing."""
MEMORY_SHAPE = "upload-memory"
MEMORY_GROWTH_MIB = 20.0
"""Most that the gateway may grow in the shape above; the bodies together are 500 MiB."""
ENDURANCE_SHAPE = "endurance"
ENDURANCE_GROWTH_MIB = 3.0
"""Most that it may grow in a million requests; a leak of 4 bytes a request would be more."""
