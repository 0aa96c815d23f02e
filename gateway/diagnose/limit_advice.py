"""Whether a service's limit is far from the load that the service can take. Pure."""

from collections.abc import Mapping
from typing import Any

_FEW = 20
"""Fewer rejected requests than this, by either side, may be an accident."""
_REFUSALS = ("queue_full", "queue_timeout")
_VENDOR_LAYERS = frozenset({"apig", "modelarts"})


def limit_advice(status: Mapping[str, Any]) -> dict[str, str]:
    """Return advice about limits, by service, from the status of a running gateway.

    Args:
        status: the document of `/status`; a service whose figures are missing gets no advice.
    """
    services = status.get("services")
    if not isinstance(services, dict):
        return {}
    found = {}
    for name, service in services.items():
        if isinstance(service, dict) and (advice := _advice_on(service)):
            found[str(name)] = advice
    return found


def _advice_on(service: Mapping[str, Any]) -> str:
    limits = service.get("limits")
    if not isinstance(limits, dict) or not isinstance(limits.get("limit"), int):
        return ""
    limit = limits["limit"]
    throttled, timeouts, refused = _counts(service)
    if throttled >= _FEW and throttled >= refused:
        return (
            f"the service throttled {throttled} requests, more than the gateway kept from it "
            f"({refused}): max_in_flight, {limit} now, is more than it takes; lower it, or set auto"
        )
    if refused >= _FEW and not throttled and not timeouts:
        return (
            f"{refused} requests were refused because of max_in_flight, {limit} now, and the "
            "service has not throttled or missed a deadline once: it may take more; raise the "
            "limit step by step, or set auto"
        )
    return ""


def _counts(service: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return how many requests the service throttled, how many timed out, how many we rejected."""
    throttled = timeouts = 0
    errors = service.get("errors")
    for error in errors if isinstance(errors, list) else ():
        if not isinstance(error, dict) or not isinstance(error.get("count"), int):
            continue
        if error.get("error") == "throttled" and error.get("layer") in _VENDOR_LAYERS:
            throttled += error["count"]
        if error.get("error") == "http_response_timeout":
            timeouts += error["count"]
    rejected = service.get("rejected")
    reasons = rejected if isinstance(rejected, dict) else {}
    counts = [reasons.get(reason) for reason in _REFUSALS]
    return throttled, timeouts, sum(count for count in counts if isinstance(count, int))
