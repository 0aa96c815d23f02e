"""The JSON of `/status`: the gateway's state, without secrets. Of callers it has request ids.

Rates and quantiles are left to the reader, who can subtract two sets of counters.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gateway import __version__, build
from gateway.admin.health import Health, readiness
from gateway.identity.report import KEY_REFUSED, IdentityStatus
from gateway.observe.access_log import Record
from gateway.observe.histogram import Histogram
from gateway.observe.metrics import NO_SERVICE, Metrics
from gateway.observe.service_metrics import ServiceGauges, ServiceMetrics


def status_document(health: Health, metrics: Metrics) -> dict[str, Any]:
    """Return the state of the gateway: times in seconds, counters since it started."""
    state = readiness(health)
    latest, failed = health.latest_requests(), health.latest_requests(failed=True)
    traffic = {counts.name: _traffic(counts, now) for counts, now in metrics.services()}
    logins = metrics.logins()
    return {
        "version": __version__,
        "compiled": build.COMPILED,
        "uptime_s": round(health.uptime_s(), 3),
        "time": round(health.wall_time_s(), 3),
        "ready": state.ready,
        "reason": state.reason,
        "services": {
            name: {
                "identity": identity,
                "state": state.services[name],
                **traffic.get(name, {}),
            }
            for name, identity in health.services().items()
        },
        "unrouted": traffic.get(NO_SERVICE, {}),
        "identities": {
            name: _identity(status, logins.get(name, {}))
            for name, status in health.identities().items()
        },
        "requests": [_request(ended_at, record) for ended_at, record in latest],
        "failed_requests": [_request(ended_at, record) for ended_at, record in failed],
        "reload": {
            "successful": metrics.reload_successful,
            "configuration_read_at": round(metrics.reload_success_at, 3),
        },
        "configuration": [asdict(value) for value in health.configuration()],
    }


def _traffic(counts: ServiceMetrics, gauges: ServiceGauges) -> dict[str, Any]:
    by_code, by_error, by_reason = counts.totals()
    overload = counts.overload
    responses: dict[str, int] = {}
    for (_, code), count in by_code.items():
        if count:
            responses[code] = responses.get(code, 0) + count
    return {
        "in_flight": counts.started - counts.finished,
        "responses": responses,
        "errors": [
            {"layer": layer, "error": error, "count": count}
            for (layer, error), count in by_error.items()
            if count
        ],
        "retries": {reason: count for reason, count in by_reason.items() if count},
        "duration": _histogram(counts.duration),
        "first_byte": _histogram(counts.first_byte),
        "first_chunk": _histogram(counts.bodies.first_chunk.histogram()),
        "streams": {
            "ended": sum(counts.bodies.pause.counts),
            "chunks": counts.bodies.chunks,
            "pause": _histogram(counts.bodies.pause),
        },
        "usage": None if counts.bodies.usage is None else counts.bodies.usage.totals(),
        "overhead": _histogram(counts.overhead),
        "request_bytes": counts.request_bytes,
        "response_bytes": counts.response_bytes,
        "connections": {"active": gauges.active, "idle": gauges.idle},
        "limits": asdict(gauges.overload),
        "rejected": {reason: count for reason, count in overload.rejected.items() if count},
        "queue_wait": _histogram(overload.queue_wait),
    }


def _histogram(histogram: Histogram) -> dict[str, Any]:
    """Counts are those of each bucket alone; the last one's is of what exceeds every bound."""
    return {
        "bounds_s": list(histogram.bounds),
        "counts": list(histogram.counts),
        "sum_s": round(histogram.total, 6),
    }


def _identity(status: IdentityStatus, logins: Mapping[str, int]) -> dict[str, Any]:
    facts = status.facts
    return {
        "usable": status.usable,
        "reason": status.why() or None,
        "last_failure": status.detail or None,
        "locked": status.locked,
        "expires_at": _finite(status.wall_expires_at),
        "next_login_s": _finite(status.next_login_s),
        "last_result": status.last_result,
        "clock_skew_s": status.skew_s,
        "logins": dict(logins),
        "key_refused": None
        if status.refused_s is None
        else {"seconds_ago": round(status.refused_s, 3), "meaning": KEY_REFUSED},
        "token": None
        if facts is None
        else {
            "fingerprint": facts.fingerprint,
            "length": facts.length,
            "user": facts.user,
            "project": facts.project,
            "life_s": None
            if facts.issued_at is None or facts.expires_at is None
            else (facts.expires_at - facts.issued_at).total_seconds(),
        },
    }


def _request(ended_at: float, record: Record) -> dict[str, Any]:
    """Return a request as the access log has it: ids of plain characters, no path, no body."""
    return {
        "time": round(ended_at, 3),
        "service": record.service,
        "method": record.method,
        "status": record.status,
        "duration_s": round(record.duration_s, 6),
        "first_byte_s": round(record.first_byte_s, 6),
        "first_chunk_s": round(record.first_chunk_s, 6),
        "overhead_s": round(record.overhead_s, 6),
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
        "retries": record.retries,
        "error": record.error,
        "layer": record.layer,
        "request_id": record.request_id,
        "upstream_request_id": record.upstream_request_id,
    }


def _finite(value: float | None) -> float | None:
    """Return None for infinity, which JSON lacks: what never expires has no expiry."""
    return None if value is None or math.isinf(value) else round(value, 3)
