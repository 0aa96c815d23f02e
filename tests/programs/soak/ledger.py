"""Who asked what, and whether the answer was the right one; and what broke when. Pure.

All instants are seconds since the soak began.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Wrong:
    """A call that was not answered as it should have been."""

    kind: str
    service: str
    began: float
    ended: float
    outcome: str
    """A status, `broken off`, or what was wrong with an answer that looked right."""


@dataclass(frozen=True)
class Alert:
    """An alert by its name, and labels that it has among others."""

    name: str
    labels: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, name: str, **labels: str) -> "Alert":
        return cls(name, tuple(sorted(labels.items())))

    def is_told_by(self, name: str, labels: Labels) -> bool:
        return name == self.name and set(self.labels) <= set(labels.items())

    def __str__(self) -> str:
        return f"{self.name}{{{', '.join(value for _, value in self.labels)}}}"


@dataclass(frozen=True)
class Fault:
    """Something to break, what its callers may see of it, and what the pager must say."""

    name: str
    service: str
    """The only one whose callers may notice."""
    outcomes: frozenset[str]
    """What they may see besides right answers."""
    alerts: tuple[Alert, ...]
    also: tuple[Alert, ...] = ()
    """What the pager may say besides, for as long as it happens to last."""


@dataclass
class Episode:
    """A fault that was there from `began` to `ended`, and whose alerts were over at `cleared`."""

    fault: Fault
    began: float
    ended: float = float("inf")
    """The service was known to be well again."""
    cleared: float = float("inf")

    def excuses(self, wrong: Wrong) -> bool:
        """Whether a call may have gone wrong because of it."""
        return (
            wrong.service == self.fault.service
            and wrong.outcome in self.fault.outcomes
            and wrong.began <= self.ended
            and wrong.ended >= self.began
        )


@dataclass
class Firing:
    """An alert that fired, from when to when it was seen to."""

    name: str
    labels: Labels
    began: float
    ended: float


@dataclass
class Ledger:
    """What the callers say. Memory grows with what went wrong only, and by a row a second."""

    calls: Counter[str] = field(default_factory=Counter)
    """By kind of caller."""
    sent: Counter[str] = field(default_factory=Counter)
    """By service; each has been taken by the gateway."""
    left: Counter[str] = field(default_factory=Counter)
    """By kind: calls whose callers did not want to wait for the answer."""
    wrong: list[Wrong] = field(default_factory=list)
    per_second: dict[str, Counter[int]] = field(default_factory=dict)
    """Service → second → calls that ended."""
    slowest: Counter[int] = field(default_factory=Counter)
    """Second → µs that the slowest JSON call took that ended in it."""

    def enter(self, kind: str, service: str, began: float, ended: float, outcome: str = "") -> None:
        """Take a call that is over; `outcome` is empty for the right answer."""
        self.calls[kind] += 1
        self.sent[service] += 1
        self.per_second.setdefault(service, Counter())[int(ended)] += 1
        if outcome:
            self.wrong.append(Wrong(kind, service, began, ended, outcome))
        elif kind == "json":
            took = int((ended - began) * 1e6)
            self.slowest[int(ended)] = max(self.slowest[int(ended)], took)

    def enter_left(self, kind: str, service: str, ended: float) -> None:
        """Take a call whose caller has left."""
        self.calls[kind] += 1
        self.sent[service] += 1
        self.left[kind] += 1
        self.per_second.setdefault(service, Counter())[int(ended)] += 1
