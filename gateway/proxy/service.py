"""A service as the proxy sees it, and the table that finds it by path."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.errors import DownstreamError, ErrorCode
from gateway.identity.credential import Credential
from gateway.observe.metrics import ServiceMetrics
from gateway.upstream.pool import Pool


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
        """Hear that a service that had rejected another has answered with `credential`."""
        ...

    def reject(self, credential: Credential) -> bool:
        """Hear that the service did not accept `credential`; return whether another is coming."""
        ...


class Doubt:
    """What a service thinks of our credential."""

    __slots__ = ("rejected",)

    def __init__(self) -> None:
        self.rejected: Credential | None = None
        """The last one that it did not accept, until it accepts another."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Service:
    """Where requests of one service go, and within which limits."""

    name: str
    path: bytes
    """Path of the service's URL without a final slash; empty for the root."""
    origin: bytes
    """`scheme://authority` of the service's URL, without the scheme's own port."""
    host_line: bytes
    """`Host: …` as sent upstream, with CRLF."""
    methods: frozenset[str]
    max_body_bytes: int
    replay_bytes: int
    """A body up to this size is kept until the response has begun, to be sent again."""
    first_byte_s: float
    idle_s: float
    websocket: bool
    """Whether a caller may switch to WebSocket, whatever `methods` says."""
    max_in_flight: int
    """More requests than this at a time are refused with 503 rather than queued."""
    credentials: Credentials
    pool: Pool
    metrics: ServiceMetrics
    doubt: Doubt = field(default_factory=Doubt)


_MAX_KNOWN = 256
_MAX_KNOWN_BYTES = 256
"""Together 64 KiB of targets that need not be looked at again."""


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Finds the service for a path. A service answers at `/<name>` and at its own path.

    Invariants: the longest prefix that ends at a slash wins; a path that two services have in
    common belongs to neither of them, so nothing is sent to the wrong one; what is remembered was
    found by the rule, and is bounded, so no caller can make it grow.
    """

    services: tuple[Service, ...]
    _prefixes: list[tuple[bytes, Service]] = field(init=False, repr=False, default_factory=list)
    _exact: dict[bytes, Service] = field(init=False, repr=False, default_factory=dict)
    _known: dict[bytes, tuple[Service, bytes]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the prefixes, longest first."""
        own = [service.path for service in self.services]
        found: dict[bytes, Service] = {
            service.path: service for service in self.services if own.count(service.path) == 1
        }
        found |= {b"/" + service.name.encode("ascii"): service for service in self.services}
        self._exact.update(found)
        self._prefixes.extend(sorted(found.items(), key=lambda item: -len(item[0])))
        self._forget_all()

    def find_known(self, target: bytes) -> tuple[Service, bytes] | None:
        """Return what `find` said of this whole target, if that is remembered."""
        return self._known.get(target)

    def remember(self, target: bytes, service: Service, path: bytes) -> None:
        """Remember what was found for an admitted target; callers ask for few, again and again."""
        if len(target) <= _MAX_KNOWN_BYTES:
            if len(self._known) >= _MAX_KNOWN:
                self._forget_all()
            self._known[target] = service, path

    def _forget_all(self) -> None:
        """Know the services' names and own paths only."""
        self._known.clear()
        self._known.update(
            (prefix, (service, service.path or b"/")) for prefix, service in self._exact.items()
        )

    def find(self, path: bytes) -> tuple[Service, bytes]:
        """Return the service and the path to ask of it.

        Args:
            path: raw and admitted, without query.

        Raises:
            DownstreamError: no service has this path.
        """
        service = self._exact.get(path)
        if service is not None:
            return service, service.path or b"/"
        for prefix, candidate in self._prefixes:
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] == b"/":
                return candidate, candidate.path + path[len(prefix) :]
        raise DownstreamError(ErrorCode.UNKNOWN_SERVICE)


def sharing_a_path(services: Iterable[Service]) -> list[tuple[Service, Service]]:
    """Return pairs of services whose URLs have the same path, which neither then answers at."""
    services = list(services)
    return [
        (one, other)
        for index, one in enumerate(services)
        for other in services[index + 1 :]
        if one.path == other.path
    ]
