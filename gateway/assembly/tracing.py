"""Whether exchanges are traced: `OTEL_*` in the environment asks for it, the extra can do it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the SDK costs 15 MiB and a third of a second
    from gateway.observe.tracing import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"


def tracer_of(
    environ: Mapping[str, str],
    warn: Callable[[str], None],
    *,
    clock: Callable[[], float],
    wall_clock: Callable[[], float],
) -> "Tracer | None":
    """Return what traces, if an endpoint is named; a line to `warn` if that cannot be done.

    An endpoint may have been set for everybody on the machine, so it is no reason not to start.
    """
    if (
        not any(environ.get(name) for name in _ENDPOINTS)
        or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    ):
        return None
    protocol = next(filter(None, map(environ.get, _PROTOCOLS)), _SPOKEN)
    if protocol != _SPOKEN:
        warn(f"no tracing: OTLP is spoken as {_SPOKEN} only; set OTEL_EXPORTER_OTLP_PROTOCOL to it")
        return None
    try:
        from gateway.observe.tracing import Tracer
    except ImportError:
        warn("no tracing: an OTLP endpoint is set; pip install 'modelarts-gateway[otel]'")
        return None
    return Tracer(clock=clock, wall_clock=wall_clock)
