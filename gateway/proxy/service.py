"""A service as the proxy sees it, and the table that finds it by path."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.errors import DownstreamError, ErrorCode
from gateway.identity.credential import Credential
from gateway.observe.service_metrics import ServiceMetrics
from gateway.proxy.gate import Gate, Limits
from gateway.upstream.pool import Pool

_MAX_REMEMBERED: Final = 256
"""Paths; when one more comes, all are forgotten."""
_MAX_REMEMBERED_BYTES: Final = 128
"""Of a path; a longer one is looked up each time."""


class Credentials(Protocol):
    """What the proxy asks of an identity."""

    def usable(self, now: float) -> Credential | None:
        """Return a credential that may be used at `now`, from memory, or None."""
        ...

    async def obtain(self) -> Credential:
        """Return a usable credential, waiting for it if there is none.

        Raises:
            CredentialError: none can be had soon.

        Cancellation: abandons this caller's wait only.
        """
        ...

    def accepted(self, credential: Credential) -> None:
        """Called when a service that had rejected another one has accepted `credential`."""
        ...

    def reject(self, credential: Credential, *, again: bool = False) -> bool:
        """Called when the service did not accept `credential`; return whether another is coming.

        `again`: the request has been sent with another one before.
        """
        ...

    def renewal_pause_s(self) -> float:
        """Return in how many seconds `reject` may bring another again; 0: nothing is in its way."""
        ...

    def locked_out(self, credential: Credential) -> None:
        """Called when the service has locked `credential` for a while; it is not sent meanwhile."""
        ...


class RejectedCredential:
    """Remembers the last credential that a service did not accept, until it accepts another."""

    __slots__ = ("credential",)

    def __init__(self) -> None:
        self.credential: Credential | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Service:
    """Where requests of one service go, and within which limits."""

    name: str
    path: bytes
    """Path of the service's URL without a final slash; empty for the root."""
    origin: bytes
    """`scheme://authority` of the service's URL, without the scheme's own port."""
    host_line: bytes
    """`Host: …` as sent upstream, without line end."""
    methods: frozenset[str]
    max_body_bytes: int
    replay_bytes: int
    """A body up to this size is kept until the response has begun, to be sent again."""
    first_byte_s: float
    first_chunk_s: float
    idle_s: float
    upload_rate: int = 0
    """Bytes per second that a client's body must keep; 0: none."""
    websocket: bool
    """Whether a client may switch to WebSocket, whatever `methods` says."""
    max_in_flight: int
    """More requests than this at a time are refused with 503, where there is no gate."""
    own_field: bytes = b""
    """Name in lower case of the field that our credential goes into, if callers' heads are not
    always without it; else empty. A caller's field of this name is not forwarded."""
    credentials: Credentials
    pool: Pool
    metrics: ServiceMetrics
    gate: Gate | None = None
    """Where limits have been set; `limits` are put in force by a reload."""
    limits: Limits | None = None
    rejected: RejectedCredential = field(default_factory=RejectedCredential)


class RouteTable:
    """Finds the service for a path: each answers at `/<name>` and at its own.

    Invariants: the longest prefix that ends at a slash wins; a path that two services have in
    common belongs to neither of them, so nothing is sent to the wrong one. What was found is
    remembered, and would be found again; that memory is bounded.
    """

    __slots__ = ("_by_prefix", "_found", "_longest", "services")

    def __init__(self, services: tuple[Service, ...]) -> None:
        """Collect the prefixes."""
        self.services = services
        own = [service.path for service in services]
        self._by_prefix = {s.path: s for s in services if own.count(s.path) == 1}
        self._by_prefix.update((b"/" + s.name.encode("ascii"), s) for s in services)
        self._longest = max(map(len, self._by_prefix), default=0)  # prefix, in bytes
        self._found: dict[bytes, tuple[Service, bytes]] = {}

    def find(self, path: bytes) -> tuple[Service, bytes]:
        """Return the service and the path to ask of it.

        Args:
            path: raw and admitted, without query.

        Raises:
            DownstreamError: no service has this path.
        """
        found = self._found.get(path)
        if found is None:
            found = self._look_up(path)
            if len(path) <= _MAX_REMEMBERED_BYTES:
                if len(self._found) >= _MAX_REMEMBERED:
                    self._found.clear()
                self._found[path] = found
        return found

    def _look_up(self, path: bytes) -> tuple[Service, bytes]:
        prefix = path
        if len(path) > self._longest:  # else a long path of short segments would take long
            prefix = path[: self._longest + 1].rpartition(b"/")[0]
        while True:
            service = self._by_prefix.get(prefix)
            if service is not None:
                return service, service.path + path[len(prefix) :] or b"/"
            if not prefix:
                raise DownstreamError(ErrorCode.UNKNOWN_SERVICE)
            prefix = prefix.rpartition(b"/")[0]


def sharing_a_path(services: Iterable[Service]) -> list[tuple[Service, Service]]:
    """Return pairs of services whose URLs have the same path, which neither then answers at."""
    services = list(services)
    return [
        (one, other)
        for index, one in enumerate(services)
        for other in services[index + 1 :]
        if one.path == other.path
    ]
