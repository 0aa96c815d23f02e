"""What one twin remembers: tokens, lock-outs, faults still to come, statistics. No I/O."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.twin.account import Account, Lockout
from gateway.twin.capacity import Capacity, Slots
from gateway.twin.clock import Clock
from gateway.twin.faults import FaultError, Faults, parse_faults
from gateway.twin.federation import Issuer
from gateway.twin.iam_faults import IamFaultSpec, parse_iam_fault, take_number
from gateway.twin.platform import Platform
from gateway.twin.signature import Attempts
from gateway.twin.tokens import TokenStore


@dataclass(slots=True)
class ServiceStats:
    """What one service has seen."""

    calls: int = 0
    """All requests, whatever their result."""
    rejected: int = 0
    """Those refused for their token: missing, unknown, expired, revoked, without a project."""
    predictions: int = 0
    """Those that a model processed."""
    status: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Stats:
    """Counters since the start or the last `DELETE /twin/stats`."""

    login_attempts: int = 0
    logins: int = 0
    """Tokens given out."""
    login_status: Counter[int] = field(default_factory=Counter)
    """0: the connection was reset instead."""
    services: dict[str, ServiceStats] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Shape of `GET /twin/stats`, but for the tokens that are good now."""
        return {
            "login_attempts": self.login_attempts,
            "logins": self.logins,
            "login_status": {str(k): v for k, v in sorted(self.login_status.items())},
            "services": {
                name: {
                    "calls": each.calls,
                    "rejected": each.rejected,
                    "predictions": each.predictions,
                    "status": {str(k): v for k, v in sorted(each.status.items())},
                }
                for name, each in self.services.items()
            },
        }


@dataclass(frozen=True, slots=True)
class ServiceFaultSpec:
    """Faults for the next calls of one service or all."""

    wanted: dict[str, str]
    faults: Faults
    service: str | None = None
    times: int | None = None
    """How many calls; None: all, until it is taken away."""


@dataclass(slots=True)
class FaultPlan:
    """Faults still to come, in the order in which they were asked for."""

    iam: list[IamFaultSpec] = field(default_factory=list)
    services: list[ServiceFaultSpec] = field(default_factory=list)

    def take_iam(self) -> IamFaultSpec | None:
        """The fault of the login that has just come in."""
        if not self.iam:
            return None
        spec = self.iam[0]
        self.iam[:1] = [] if spec.times == 1 else [replace(spec, times=_less(spec.times))]
        return spec

    def take_service(self, name: str) -> Faults | None:
        """The faults of the call that has just come in."""
        for i, spec in enumerate(self.services):
            if spec.service in {None, name}:
                rest = [] if spec.times == 1 else [replace(spec, times=_less(spec.times))]
                self.services[i : i + 1] = rest
                return spec.faults
        return None

    def as_json(self) -> dict[str, Any]:
        """Shape of `GET /twin/faults`, which `PUT` takes back."""
        return {
            "iam": [
                {
                    "fault": spec.fault,
                    "times": spec.times,
                    "delay": spec.delay_s,
                    "status": spec.status,
                    "retry_after": spec.retry_after,
                    "size": spec.size,
                    "shape": spec.shape,
                }
                for spec in self.iam
            ],
            "services": [
                {"faults": spec.wanted, "service": spec.service, "times": spec.times}
                for spec in self.services
            ],
        }


def _less(times: int | None) -> int | None:
    return None if times is None else times - 1


def parse_plan(wanted: Any, service_names: Sequence[str]) -> FaultPlan:
    """Read the body of `PUT /twin/faults`.

    Raises:
        FaultError: something in it is unknown or does not fit; nothing of it is applied.
    """
    if not isinstance(wanted, dict) or not set(wanted) <= {"iam", "services"}:
        raise FaultError('expected {"iam": […], "services": […]}')
    entries = {key: wanted.get(key, []) for key in ("iam", "services")}
    for key, value in entries.items():
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise FaultError(f"{key!r} is not a list of objects")
    return FaultPlan(
        iam=[parse_iam_fault(each) for each in entries["iam"]],
        services=[_parse_service_fault(each, service_names) for each in entries["services"]],
    )


def _parse_service_fault(wanted: dict[str, Any], service_names: Sequence[str]) -> ServiceFaultSpec:
    given = dict(wanted)
    faults, service = given.pop("faults", None), given.pop("service", None)
    times = take_number(given, "times", 1, 1_000_000)
    if given:
        unknown = next(iter(given))
        raise FaultError(f"{unknown!r} is not known here; known are: faults, service, times")
    if not isinstance(faults, dict) or not faults:
        raise FaultError("each of 'services' needs \"faults\": {…}")
    if service is not None and service not in service_names:
        raise FaultError(f"{service!r} is not a service; known are: {', '.join(service_names)}")
    texts = {name: "" if value is True else str(value) for name, value in faults.items()}
    return ServiceFaultSpec(texts, parse_faults(texts), service, times)


_KEY_LIFE_S = 3600.0


class CloudState:
    """Everything that IAM, the services and the control API share."""

    def __init__(
        self, accounts: Sequence[Account], clock: Clock, token_ttl_s: float, token_size: int
    ) -> None:
        self.accounts = tuple(accounts)
        self.clock = clock
        self.tokens = TokenStore(clock, token_ttl_s, token_size)
        self.signatures: dict[str, Attempts] = {}
        """By access key."""
        self.issuer = Issuer()
        self.platform = Platform(clock, _KEY_LIFE_S)
        self.lockouts = {account.user_id: Lockout() for account in accounts}
        self.plan = FaultPlan()
        self.stats = Stats()
        self.slots = Slots(Capacity())
