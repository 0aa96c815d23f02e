"""Findings about a configuration and what it names, one line each. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters."""

    OK = "OK"
    WARN = "WARN"
    """It works, but should be checked."""
    FAIL = "FAIL"


class Step(StrEnum):
    """The step that was tried; members are in the order of the steps."""

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
    """The key of the configuration, such as `services.iris`; empty for the whole of it."""
    step: Step
    text: str
    """With the remedy, unless all is well. Holds no secret and no foreign text but names."""
    is_local: bool = False
    """The fault is on this machine: nothing remote was asked."""
    code: str = ""
    """The vendor's error code, if the response had one."""


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


def counted(number: int, one: str, many: str) -> str:
    """Return a number with its noun: `1 identity`, `2 identities`."""
    return f"{number} {one if number == 1 else many}"
