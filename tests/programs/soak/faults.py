"""What is broken during a soak, and how it is repaired."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.twin import Account, Twin
from tests.programs.soak.ledger import Alert, Fault

FLAKY, LOST = "flaky", "lost"
"""Services, and the identities they have for themselves; nobody else's callers may notice."""

BRIEF_S = 10.0

Act = Callable[[], None]


@dataclass(frozen=True)
class Breakage:
    """A fault, how it comes about, and how it is repaired."""

    fault: Fault
    begin: Act
    end: Act


def _errors(service: str, layer: str) -> Alert:
    return Alert.of("GatewayErrorsFast", service=service, layer=layer)


def service_faults(twin: Twin) -> list[Breakage]:
    """What the service `flaky` and those before it can do wrong."""

    def of(name: str, outcome: str, layer: str, **faults: Any) -> Breakage:
        return Breakage(
            Fault(name, FLAKY, frozenset({outcome}), (_errors(FLAKY, layer),)),
            lambda: twin.plan_faults({"services": [{"faults": faults}]}),
            lambda: twin.plan_faults({}),
        )

    return [
        of("the model fails", "500", "model", status=500),
        of("throttled", "429", "apig", code="APIG.0308"),
        of("connections are reset", "502", "network", reset="head"),
        of("ModelArts finds no backend", "500", "modelarts", code="ModelArts.4503"),
        of("answers are cut off", "broken off", "network", cut=10),
        of("no answer", "504", "network", hang=True),
    ]


def identity_faults(twin: Twin, password: Path) -> list[Breakage]:
    """What IAM can do to the identity `lost`, whose tokens live for `BRIEF_S` only.

    They die of age, not by a word of the service, which the gateway would not believe so often.
    The last one can be had only once: refused logins are not repeated.
    """
    expiring = Alert.of("GatewayTokenExpiring", identity=LOST)
    missing = Alert.of("GatewayTokenMissing", identity=LOST)
    unreachable = Alert.of("GatewayIamUnreachable", identity=LOST)
    throttled = Alert.of("GatewayLoginsThrottled", identity=LOST)
    locked = Alert.of("GatewayIdentityLocked", identity=LOST)

    def fault(name: str, *alerts: Alert) -> Fault:
        alerts = (*alerts, missing, _errors(LOST, "identity"))
        return Fault(name, LOST, frozenset({"503"}), alerts, (expiring,))

    def plan(fault: str, **options: Any) -> Act:
        return lambda: twin.plan_faults({"iam": [{"fault": fault, **options}]})

    def refuse() -> None:
        password.write_text("wrong")

    def heal() -> None:
        twin.plan_faults({})

    def correct() -> None:
        password.write_text(Account().password)

    return [
        Breakage(fault("IAM resets", unreachable), plan("reset"), heal),
        Breakage(fault("IAM throttles", throttled), plan("throttled", retry_after=1), heal),
        Breakage(fault("IAM answers a page", unreachable), plan("html"), heal),
        Breakage(fault("the password is wrong", locked), refuse, correct),
    ]
