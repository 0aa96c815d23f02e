"""What `/status` tells, from a state and counters that the test sets."""

import json
from dataclasses import replace
from typing import Any

from gateway import build
from gateway.admin.status.document import status_document
from gateway.errors import ErrorCode, Rejection
from gateway.identity.report import Reason
from gateway.observe.identity_metrics import IdentityGauges, IdentityMetrics
from gateway.observe.metrics import NO_SERVICE, Metrics
from gateway.observe.overload import OverloadGauges
from gateway.observe.service_metrics import ServiceGauges, ServiceMetrics
from gateway.observe.streams import UsageCounts
from gateway.settings.effective import EffectiveValue
from tests.support.health import BAD, GOOD, State
from tests.support.records import record_of

FIELDS = {
    "ended_at": 100.0,
    "request_id": "chosen-by-the-caller",
    "service": "service-0",
    "method": "POST",
    "status": 502,
    "duration_s": 0.25,
    "first_byte_s": 0.2,
    "first_chunk_s": 0.21,
    "overhead_s": 0.0000501,
    "request_bytes": 3,
    "response_bytes": 4,
    "retries": 1,
    "error": "connection_refused",
    "upstream_request_id": "chosen-by-the-service",
    "layer": "network",
}
RECORD = record_of(**FIELDS)
WENT_WELL = record_of(**FIELDS | {"error": "", "layer": ""})


def told(state: State, metrics: Metrics | None = None) -> Any:
    """The document as somebody reads it, who refuses what is not JSON."""
    text = json.dumps(status_document(state, metrics or Metrics()), allow_nan=False)
    return json.loads(text)


def test_everything_but_the_token() -> None:
    """Valid JSON even for a credential that never ends; nothing of the token but a fingerprint."""
    endless = replace(GOOD, wall_expires_at=float("inf"), next_login_s=None, facts=None)
    document = told(State(GOOD, BAD, endless))

    assert document["ready"] is True
    assert document["uptime_s"] == 12.346
    assert document["compiled"] is build.COMPILED
    assert document["time"] == 1.6e9
    assert document["reload"] == {"successful": True, "configuration_read_at": 0.0}
    assert document["services"]["service-1"]["state"] == f"identity-1: {Reason.REFUSED}"
    assert document["identities"]["identity-0"] == {
        "usable": True,
        "reason": None,
        "last_failure": None,
        "locked": False,
        "expires_at": 1.7e9,
        "next_login_s": 30.0,
        "last_result": "ok",
        "clock_skew_s": 0.5,
        "logins": {},
        "key_refused": None,
        "token": {
            "fingerprint": "0123abcd", "length": 183, "user": "infer", "project": "region",
            "life_s": 86400.0,
        },
    }  # fmt: skip
    assert document["identities"]["identity-1"]["locked"] is True
    [refused] = told(State(replace(GOOD, refused_s=2.0)))["identities"].values()
    assert refused["key_refused"]["seconds_ago"] == 2.0
    assert "has expired or is not bound to this service" in refused["key_refused"]["meaning"]
    assert document["identities"]["identity-2"]["expires_at"] is None


def test_counters_are_those_of_the_metrics() -> None:
    """Per service, settled first; zeros are left out where the set is long."""
    metrics = Metrics()
    service = ServiceMetrics("service-0", ["POST"], ["rejected"])
    limits = OverloadGauges(in_flight=3, limit=4, queued=5, per_s=7.5)
    metrics.add_service(service, lambda: ServiceGauges(2, 3, limits))
    metrics.add_service(ServiceMetrics(NO_SERVICE, ["POST"], []), lambda: ServiceGauges(0, 0))

    def settle() -> None:
        service.count_request("POST", 200)

    metrics.before_scrape = settle
    service.started, service.finished = 5, 4
    service.count_request("POST", 502)
    service.count_error(ErrorCode.CONNECTION_REFUSED.layer, ErrorCode.CONNECTION_REFUSED.label)
    service.count_retry("rejected")
    service.count_rejection(Rejection.QUEUE_FULL)
    service.overload.queue_wait.observe(0.2)
    service.duration.observe(0.007)
    service.request_bytes, service.response_bytes = 11, 12
    service.first_byte.observe(0.007)
    service.bodies.first_chunk.move(0.007, 2.0)
    service.bodies.chunks = 7
    service.bodies.pause.observe(0.6)
    service.bodies.usage = UsageCounts()
    service.bodies.usage.count((3, 4))
    logins = IdentityMetrics("identity-0", ["startup", "schedule"], ["ok", "refused"])
    logins.refreshed("startup", "ok", 0.1)
    logins.refreshed("schedule", "ok", 0.1)
    metrics.add_identity(logins, lambda: IdentityGauges(0.0, locked=False, clock_skew_s=0.0))

    document = told(State(), metrics)
    traffic = document["services"]["service-0"]

    assert traffic["in_flight"] == 1
    assert traffic["responses"] == {"200": 1, "502": 1}
    assert traffic["errors"] == [{"layer": "network", "error": "connection_refused", "count": 1}]
    assert traffic["retries"] == {"rejected": 1}
    assert traffic["limits"] == {
        "in_flight": 3,
        "limit": 4,
        "queued": 5,
        "breaker": "off",
        "per_s": 7.5,
    }
    assert traffic["rejected"] == {"queue_full": 1}
    assert sum(traffic["queue_wait"]["counts"]) == 1
    assert traffic["connections"] == {"active": 2, "idle": 3}
    assert (traffic["request_bytes"], traffic["response_bytes"]) == (11, 12)
    assert traffic["first_chunk"]["sum_s"] == 2.0
    assert (traffic["streams"]["ended"], traffic["streams"]["chunks"]) == (1, 7)
    assert traffic["streams"]["pause"]["sum_s"] == 0.6
    assert traffic["usage"] == {"input": 3, "output": 4, "missing": 0}
    assert document["unrouted"]["usage"] is None
    duration = traffic["duration"]
    assert len(duration["counts"]) == len(duration["bounds_s"]) + 1
    assert duration["counts"][:3] == [0, 1, 0]
    assert duration["sum_s"] == 0.007
    assert document["unrouted"]["in_flight"] == 0
    assert document["identities"]["identity-0"]["logins"] == {"ok": 2, "refused": 0}


def test_a_request_is_told_as_in_the_access_log() -> None:
    """With both ids, to be found there and at the service; no path, no body, no header."""
    state = State()
    state.latest = [(1.5e9, RECORD)]
    document = told(state)

    assert document["requests"] == [
        {
            "time": 1.5e9, "service": "service-0", "method": "POST", "status": 502,
            "duration_s": 0.25, "first_byte_s": 0.2, "first_chunk_s": 0.21,
            "overhead_s": 0.00005,
            "request_bytes": 3, "response_bytes": 4, "retries": 1,
            "error": "connection_refused", "layer": "network",
            "request_id": "chosen-by-the-caller", "upstream_request_id": "chosen-by-the-service",
        }
    ]  # fmt: skip


def test_failed_requests_have_a_list_of_their_own() -> None:
    """Else those that went well would push them out of it."""
    state = State()
    state.latest = [(1.5e9, WENT_WELL), (1.4e9, RECORD)]
    document = told(state)

    assert [request["time"] for request in document["requests"]] == [1.5e9, 1.4e9]
    assert [request["time"] for request in document["failed_requests"]] == [1.4e9]


def test_why_a_login_was_refused_is_told() -> None:
    """With the remedy, for an identity without a token, and for one that still has its old one."""
    why = "IAM refuses the password: check the secret (status 401)"
    document = told(State(replace(BAD, detail=why), replace(GOOD, detail=why)))

    locked, usable = document["identities"].values()
    assert locked["reason"] == f"{Reason.REFUSED}: {why}"
    assert (usable["reason"], usable["last_failure"]) == (None, why)
    assert document["services"]["service-0"]["state"] == f"identity-0: {Reason.REFUSED}: {why}"


def test_settings_are_told_with_their_origin() -> None:
    """As `effective` lists them, which masks secrets."""
    state = State()
    state.settings = [EffectiveValue("drain.timeout", "5s", "env GATEWAY_DRAIN__TIMEOUT")]

    assert told(state)["configuration"] == [
        {"key": "drain.timeout", "value_shown": "5s", "origin": "env GATEWAY_DRAIN__TIMEOUT"}
    ]
