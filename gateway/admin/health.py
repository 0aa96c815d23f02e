"""The state of the gateway as the admin listener sees it, and whether that is ready."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.http.host import AllowedHosts
from gateway.identity.report import IdentityStatus
from gateway.observe.access_log import Record
from gateway.settings.effective import EffectiveValue


class Health(Protocol):
    """What the probes and the status page need to know of the gateway."""

    @property
    def started(self) -> bool:
        """Whether both listeners are open."""
        ...

    @property
    def draining(self) -> bool:
        """Whether the gateway is shutting down."""
        ...

    @property
    def admin_hosts(self) -> AllowedHosts:
        """Names under which everything but probes and metrics may be asked for."""
        ...

    def services(self) -> dict[str, str]:
        """Return the identity of each service."""
        ...

    def identities(self) -> dict[str, IdentityStatus]:
        """Return the present state of each identity."""
        ...

    def uptime_s(self) -> float:
        """Return for how long the gateway has been running, in seconds."""
        ...

    def wall_time_s(self) -> float:
        """Return the time of day, in seconds since the epoch."""
        ...

    def latest_requests(self, *, failed: bool = False) -> list[tuple[float, Record]]:
        """Return the latest requests, newest first, each with its end since the epoch.

        `failed`: the latest of those that failed.
        """
        ...

    def configuration(self) -> Sequence[EffectiveValue]:
        """Return the settings in force, secrets masked."""
        ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests should be sent here, and for each service why not."""

    ready: bool
    reason: str
    services: dict[str, str]
    """`ok`, or why the service cannot be served."""


def readiness(health: Health) -> Readiness:
    """Return readiness: at least one service can be served, and the gateway is not draining."""
    identities = health.identities()
    services = {
        name: "ok" if (status := identities[identity]).usable else f"{identity}: {status.why()}"
        for name, identity in health.services().items()
    }
    if health.draining:
        return Readiness(ready=False, reason="draining", services=services)
    if not health.started:
        return Readiness(ready=False, reason="starting", services=services)
    if "ok" not in services.values():
        return Readiness(ready=False, reason="no service has a usable token", services=services)
    return Readiness(ready=True, reason="ok", services=services)
