"""What the admin listener asks of a gateway, set by the test."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from gateway.http.host import AllowedHosts
from gateway.identity.refresh import RefreshResult
from gateway.identity.report import IdentityStatus, Reason
from gateway.identity.source import TokenFacts
from gateway.observe.access_log import Record
from gateway.settings.effective import EffectiveValue

_ISSUED = datetime(2026, 1, 1, tzinfo=UTC)

GOOD = IdentityStatus(
    usable=True,
    reason=None,
    locked=False,
    wall_expires_at=1.7e9,
    next_login_s=30.0,
    last_result=RefreshResult.OK,
    skew_s=0.5,
    facts=TokenFacts(
        183,
        "0123abcd",
        user="infer",
        project="region",
        issued_at=_ISSUED,
        expires_at=_ISSUED + timedelta(hours=24),
    ),
)
BAD = IdentityStatus(
    usable=False,
    reason=Reason.REFUSED,
    locked=True,
    wall_expires_at=None,
    next_login_s=None,
    last_result=RefreshResult.REFUSED,
    skew_s=None,
    facts=None,
)


class State:
    """Implements `Health`."""

    def __init__(self, *statuses: IdentityStatus) -> None:
        self.started = True
        self.draining = False
        self.admin_hosts = AllowedHosts(["gateway.internal"], addresses=True)
        self.statuses = statuses or (GOOD,)
        self.latest: list[tuple[float, Record]] = []
        self.settings: list[EffectiveValue] = []

    def services(self) -> dict[str, str]:
        return {f"service-{n}": f"identity-{n}" for n in range(len(self.statuses))}

    def identities(self) -> dict[str, IdentityStatus]:
        return {f"identity-{n}": status for n, status in enumerate(self.statuses)}

    def uptime_s(self) -> float:
        return 12.3456

    def wall_time_s(self) -> float:
        return 1.6e9

    def latest_requests(self, *, failed: bool = False) -> list[tuple[float, Record]]:
        return [(at, record) for at, record in self.latest if record.error or not failed]

    def configuration(self) -> Sequence[EffectiveValue]:
        return self.settings
