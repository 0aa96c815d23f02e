"""What has been found out about a configuration and the world around it, one line each. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters."""

    OK = "OK"
    WARN = "WARN"
    """It works, and deserves a second look."""
    FAIL = "FAIL"


class Step(StrEnum):
    """What was tried, in the order in which it is."""

    CONFIGURATION = "configuration"
    ENVIRONMENT = "environment"
    SECRET = "secret"  # noqa: S105  # the name of a step
    DNS = "dns"
    TCP = "tcp"
    PROXY = "proxy"
    TLS = "tls"
    LOGIN = "login"
    SCOPE = "scope"
    CLOCK = "clock"
    URL = "url"
    PROBE = "probe"
    LISTENER = "listener"
    FLEET = "fleet"
    SINK = "sink"
    LIMITS = "limits"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found out."""

    level: Level
    key: str
    """What it is about, as in the configuration: `services.iris`; empty for all of it."""
    step: Step
    text: str
    """With the remedy, unless all is well. Holds no secret and no foreign text but names."""
    is_local: bool = False
    """The fault is on this machine: nothing remote was asked."""
    code: str = ""
    """The vendor's code, if one was answered."""


def has_failed(findings: Iterable[Finding]) -> bool:
    """Return whether one of them is a failure."""
    return any(finding.level is Level.FAIL for finding in findings)


def duration_text(seconds: float) -> str:
    """Write a duration for people: its largest unit and the next."""
    left = max(0, int(seconds))
    for unit, size, lesser, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if left >= size:
            return _joined(left // size, unit, left % size // part, lesser)
    return _joined(left // 60, "min", left % 60, "s") if left >= 60 else f"{left} s"


def _joined(count: int, unit: str, rest: int, lesser: str) -> str:
    return f"{count} {unit} {rest} {lesser}" if rest else f"{count} {unit}"
