"""The reference of metrics, made from a registry that has one of everything."""

from collections.abc import Iterable

from prometheus_client.core import Metric

from gateway.errors import Layer, Rejection
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.sinks import SinkResult
from gateway.observe.identity_metrics import IdentityGauges, IdentityMetrics
from gateway.observe.metrics import Metrics
from gateway.observe.overload import BREAKER_STATES, OverloadGauges
from gateway.observe.service_metrics import (
    KEY_REFUSED,
    UPSTREAM_ERRORS,
    ServiceGauges,
    ServiceMetrics,
)
from gateway.observe.streams import UsageCounts
from gateway.proxy.replay import Retry

_HEAD = """\
# Metrics

<!-- Made by `python -m tests.documents` from gateway/observe/; edit there. -->

`GET /metrics` on the admin listener: Prometheus' text format, or OpenMetrics with exemplars if
the scraper asks for it. Label values come from the configuration or from the closed sets below;
anything else is `other`. The alerts in
[deploy/prometheus/](../deploy/prometheus/alerts.rules.yml) and the dashboard use these names.

| metric | type | labels | unit | meaning |
|---|---|---|---|---|
{rows}

The process itself: `process_cpu_seconds_total`, `process_resident_memory_bytes`,
`process_virtual_memory_bytes`, `process_start_time_seconds`, `process_open_fds`, `process_max_fds`.

## Labels

| label | values |
|---|---|
{labels}

## Buckets

Upper bounds of each histogram, in seconds; `+Inf` follows.

| histogram | buckets |
|---|---|
{buckets}
"""

_UNITS = {"timestamp_seconds": "seconds since 1970", "seconds": "seconds", "bytes": "bytes"}
_COUNTED = {
    "gateway_identity_locked": "0 or 1",
    "gateway_breaker_open": "0 or 1",
    "gateway_fleet_up": "0 or 1",
    "gateway_config_last_reload_successful": "0 or 1",
    "gateway_build_info": "always 1",
    "gateway_upstream_connections": "connections",
    "gateway_client_connections": "connections",
    "gateway_upstream_retries": "requests",
    "gateway_in_flight_limit": "requests",
    "gateway_errors": "errors",
    "gateway_fleet_errors": "errors",
    "gateway_token_refreshes": "attempts",
    "gateway_breaker_transitions": "changes",
    "gateway_access_log_lost_lines": "lines",
    "gateway_stream_chunks": "chunks",
    "gateway_llm_tokens": "tokens of a model",
    "gateway_llm_usage_missing": "responses",
    "gateway_sink_writes": "writes",
}
"""Units of what has none in its name, and counts no requests."""


def _values(values: Iterable[str]) -> str:
    return " ".join(f"`{value}`" for value in values)


_LABELS = {
    "service": "name of a service; `other` where no service was found",
    "identity": "name of an identity",
    "method": "a method that the service's `methods` names; `other`",
    "code": (
        "HTTP status that the caller got; rare ones by class (`4xx`); `0`: the caller had left "
        "before it got one"
    ),
    "layer": _values(Layer),
    "error": (
        "of the gateway: the name of the [error](errors/README.md) in lower case, such as "
        f"`body_too_large`; of the service's responses: {_values(UPSTREAM_ERRORS)}; "
        f"`{KEY_REFUSED}`: a 401 to a key that cannot be renewed"
    ),
    "reason": (
        f"of `gateway_requests_rejected_total`: {_values(Rejection)}; "
        f"of `gateway_upstream_retries_total`: {_values(Retry)}"
    ),
    "state": _values(["active", "idle"]),
    "to": _values(BREAKER_STATES),
    "trigger": _values(RefreshTrigger),
    "result": (
        f"of `gateway_token_refreshes_total`: {_values(RefreshResult)}; "
        f"of `gateway_sink_writes_total`: {_values(SinkResult)}"
    ),
    "kind": _values(["heads", "bodies", "answers", "kept"]),
    "type": _values(["input", "output"]),
    "client": "name in a client certificate, of `listen_tls.allowed_clients`",
    "version": "version of the gateway",
    "python": "version of Python",
    "aiohttp": "version of aiohttp",
    "compiled": _values(["yes", "no"]),
}


def document() -> str:
    """Return config/metrics.md."""
    families = [each for each in _everything().collect() if each.name.startswith("gateway_")]
    used = {name for family in families for name in _labels_of(family)}
    return _HEAD.format(
        rows="\n".join(_row(family) for family in families),
        labels="\n".join(
            f"| `{name}` | {_LABELS[name]} |" for name in sorted(used, key=list(_LABELS).index)
        ),
        buckets="\n".join(
            f"| `{family.name}` | {' '.join(_bounds(family))} |"
            for family in families
            if family.type == "histogram"
        ),
    )


def exposed_name(family: Metric) -> str:
    """Return the name as a query has it: counters end in `_total`."""
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def _everything() -> Metrics:
    """Return metrics with a service, an identity, and all that is exported only when it is used."""
    metrics = Metrics()
    service = ServiceMetrics("iris", ["POST"], list(Retry))
    service.bodies.usage = UsageCounts()
    service.count_request("POST", 200)
    identity = IdentityMetrics("default", list(RefreshTrigger), list(RefreshResult))
    identity.expect_sinks(list(SinkResult))
    metrics.add_service(service, lambda: ServiceGauges(0, 0, OverloadGauges(4, 0, 0, "closed")))
    metrics.add_identity(identity, lambda: IdentityGauges(0, locked=False, clock_skew_s=0))
    metrics.client_connections = {"caller": 0}
    metrics.fleet = lambda: (True, 0)
    return metrics


def _labels_of(family: Metric) -> list[str]:
    found = dict.fromkeys(label for sample in family.samples for label in sample.labels)
    found.pop("le", None)
    return list(found)


def _row(family: Metric) -> str:
    name = exposed_name(family)
    labels = " ".join(f"`{label}`" for label in _labels_of(family))
    kind = "gauge" if family.type == "info" else family.type
    return f"| `{name}` | {kind} | {labels} | {_unit(family)} | {family.documentation} |"


def _unit(family: Metric) -> str:
    known = _COUNTED.get(family.name) or _COUNTED.get(exposed_name(family))
    if known:
        return known
    return next((unit for end, unit in _UNITS.items() if family.name.endswith(end)), "requests")


def _bounds(family: Metric) -> list[str]:
    bounds = [sample.labels["le"] for sample in family.samples if "le" in sample.labels]
    return list(dict.fromkeys(f"{float(bound):g}" for bound in bounds if bound != "+Inf"))
