"""The shapes of load, and the ratios that the gateway must reach in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from tests.bench.processes import MIB

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


@dataclass(frozen=True)
class Shape:
    """One way to load a contestant."""

    name: str
    says: str
    load: Load = Load.WRK
    connections: int = 32
    secure: bool = False
    """The upstream speaks TLS."""
    tail: str = "predict"
    """The end of the path; `large`, `slow` and `ids` mean something to the upstream."""
    upload_bytes: int = 0
    """Size of the file in a multipart body; 0: the JSON body."""
    ids: bool = False
    """Each request has an id of its own, so that no head is like another."""
    idle: int = 0
    """Connections that made one request before and stay open beside the load."""
    rate: int = 0
    """Requests per second of the open loop."""
    requests: int = 0
    """Of an endurance run, which has one round and is the gateway's alone."""
    without: Mapping[str, str] = field(default_factory=dict)
    """Contestants that take no part, with the reason."""

    @property
    def path(self) -> str:
        return f"/{'benchtls' if self.secure else 'bench'}/{self.tail}"

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
        Shape("json", "JSON of 150 bytes, 32 connections"),
        Shape("json-ids", "the same, each request and answer with its id", tail="ids", ids=True),
        Shape("json-tls", "JSON of 150 bytes, TLS to the upstream", secure=True),
        Shape("one", "JSON of 150 bytes on 1 connection", connections=1),
        Shape(
            "upload-100k", "multipart of 100 KiB, 8 connections", connections=8, upload_bytes=102400
        ),
        Shape("upload-1m", "multipart of 1 MiB, 8 connections", connections=8, upload_bytes=MIB),
        Shape(
            "upload-1m-tls",
            "the same, TLS to the upstream",
            connections=8,
            upload_bytes=MIB,
            secure=True,
        ),
        Shape(
            "download-1m",
            "answers of 1 MiB, 8 connections",
            connections=8,
            tail="large",
            without={"caddy": "cuts answers to POST now and then (caddyserver/caddy#5431)"},
        ),
        Shape("idle-1000", "JSON on 32 connections beside 1000 idle ones", idle=1000),
        Shape("open-2000", "2000 JSON requests/s whatever happens", Load.OPEN_LOOP, rate=2000),
        Shape(
            "upload-memory",
            "50 uploads of 10 MiB at once, held up by the upstream for a second",
            Load.UPLOADS,
            connections=50,
            tail="slow",
            upload_bytes=10 * MIB,
        ),
        Shape(
            "endurance",
            "1 000 000 JSON requests on 32 connections",
            Load.ENDURANCE,
            requests=1_000_000,
        ),
    )
}


@dataclass(frozen=True)
class Target:
    """A figure of the gateway must be at most `ratio` times that of `contestant`."""

    shape: str
    contestant: str
    ratio: float
    figure: str = "cpu_us"


TARGETS = (
    Target("json", "plain", 0.45),
    Target("json", "envoy", 0.90),
    Target("json", "caddy", 0.65),
    Target("json", "nginx", 2.3),
    Target("json-tls", "envoy", 1.0),
    Target("upload-1m", "envoy", 1.1),
    Target("upload-1m-tls", "envoy", 1.2),
    Target("download-1m", "envoy", 1.2),
    Target("one", "envoy", 1.0, "p50_ms"),
    Target("open-2000", "envoy", 1.5, "added_p99_ms"),
    Target("json", "envoy", 1.0, "rss_mib"),
)
FIGURES = {"cpu_us": "CPU", "p50_ms": "p50", "added_p99_ms": "added p99", "rss_mib": "RSS"}
"""What targets are about, as a reader calls it."""
MOST_LATE_MS = 2.0
"""An open loop whose 99th percentile left later than this was starved, and says nothing."""
MEMORY_SHAPE = "upload-memory"
MEMORY_GROWTH_MIB = 20.0
"""Most that the gateway may grow in the shape above; the bodies together are 500 MiB."""
ENDURANCE_SHAPE = "endurance"
ENDURANCE_GROWTH_MIB = 3.0
"""Most that it may grow in a million requests; a leak of 4 bytes a request would be more."""
