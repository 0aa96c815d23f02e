"""Service settings → origins, connection pools and services."""

import random
from dataclasses import dataclass, replace

from gateway.assembly.egress import build_proxy
from gateway.assembly.tls import ContextOf, TlsContexts, tls_context
from gateway.clock import boottime
from gateway.http.fields import is_always_dropped
from gateway.observe.metrics import Metrics
from gateway.observe.overload import OverloadGauges
from gateway.observe.service_metrics import ServiceGauges, ServiceMetrics
from gateway.observe.streams import UsageCounts
from gateway.proxy.gate import Gate, Limits
from gateway.proxy.replay import Retry
from gateway.proxy.service import Credentials, Service
from gateway.settings import Service as ServiceSettings
from gateway.settings.overload import MAX_IN_FLIGHT
from gateway.upstream.opener import Origin
from gateway.upstream.pool import ConnectionLimit, Pool


@dataclass(frozen=True, slots=True)
class BuiltPools:
    """The connections to a service."""

    pool: Pool
    earlier: tuple[Pool, ...]
    """Replaced ones with connections in use."""

    def gauges(self) -> ServiceGauges:
        """Return the numbers of connections, those of replaced pools included."""
        pools = (self.pool, *self.earlier)
        return ServiceGauges(sum(p.active for p in pools), sum(p.idle for p in pools))


def service_gauges(service: Service, pools: BuiltPools) -> ServiceGauges:
    """Return the state of a service at this moment."""
    connections = pools.gauges()
    if service.gate is not None:
        return replace(connections, overload=service.gate.gauges())
    return replace(
        connections,
        overload=OverloadGauges(
            in_flight=service.metrics.placed(),
            limit=service.max_in_flight,
            queued=service.metrics.overload.arriving,
        ),
    )


def build_origin(
    name: str,
    settings: ServiceSettings,
    context_of: ContextOf = tls_context,
) -> Origin:
    """Return where a service lives and how it is reached; `context_of` makes a context for a key.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    is_https = settings.scheme == "https"
    return Origin(
        host=settings.host,
        port=settings.port,
        tls=context_of(f"services.{name}.tls", settings.tls) if is_https else None,
        server_name=settings.tls.server_name,
        connect_timeout_s=settings.timeouts.connect,
        proxy=build_proxy(f"services.{name}.egress_proxy", settings.egress_proxy),
    )


def build_pools(
    name: str,
    settings: ServiceSettings,
    known: BuiltPools | None,
    contexts: TlsContexts,
    limit: ConnectionLimit,
) -> BuiltPools:
    """Build the pool of a service, or return `known` if its origin would be the same.

    Args:
        name: of the service.
        settings: of the service.
        known: what has been built under this name before, if anything.
        contexts: shared by all services.
        limit: of all pools together.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    origin = build_origin(name, settings, contexts.get)
    if known is not None and known.pool.origin == origin:
        return known
    earlier = [] if known is None else [known.pool, *known.earlier]
    return BuiltPools(
        Pool(origin, clock=boottime, limit=limit), tuple(p for p in earlier if p.active)
    )


def build_limits(settings: ServiceSettings) -> Limits | None:
    """Return what a service can take, or None if nobody has said so."""
    if not settings.is_limited:
        return None
    limit, queue, retry = settings.max_in_flight, settings.queue, settings.retry
    return Limits(
        max_in_flight=limit if isinstance(limit, int) else None,
        queue_depth=queue.depth if settings.has_queue else 0,
        queue_wait_s=queue.wait,
        breaker_failures=settings.breaker.failures,
        breaker_open_s=settings.breaker.open,
        retry_on=frozenset(map(Retry, retry.on)),
        retry_share=retry.budget,
        retry_wait_s=retry.wait,
    )


def build_service(  # noqa: PLR0917
    name: str,
    settings: ServiceSettings,
    credentials: Credentials,
    pool: Pool,
    metrics: Metrics,
    gates: dict[str, Gate],
    *,
    field_name: str = "",
) -> Service:
    """Build a service.

    Args:
        name: of the service.
        settings: of the service.
        credentials: of its identity.
        pool: of connections to it.
        metrics: counters of this name are taken from there, if there are any.
        gates: by service; one of this name is used again, and a new one is added.
        field_name: of the header field that the credential goes into, if a setting names it.
    """
    own_field = field_name.lower().encode("ascii")
    counts = metrics.service(name)
    if counts is None:
        counts = ServiceMetrics(name, settings.methods, list(Retry))
    limits = build_limits(settings)
    gate = None
    if limits is not None:
        gate = gates.get(name) or Gate(
            name, limits, counts.overload, clock=boottime, draw=random.random
        )
        gates[name] = gate
    switch = {"GET"} if settings.websocket else set()
    counts.admit_methods({*settings.methods, *switch})
    if not settings.usage:
        counts.bodies.usage = None
    elif counts.bodies.usage is None:
        counts.bodies.usage = UsageCounts()
    return Service(
        name=name,
        path=settings.path.encode("ascii"),
        origin=f"{settings.scheme}://{settings.authority}".encode("ascii"),
        host_line=f"Host: {settings.authority}".encode("ascii"),
        methods=frozenset(settings.methods),
        max_body_bytes=settings.max_body,
        replay_bytes=settings.replay_buffer,
        first_byte_s=settings.timeouts.first_byte,
        first_chunk_s=settings.timeouts.first_chunk,
        idle_s=settings.timeouts.idle,
        upload_rate=settings.timeouts.upload_rate,
        websocket=settings.websocket,
        max_in_flight=MAX_IN_FLIGHT,
        own_field=b"" if is_always_dropped(own_field) else own_field,
        gate=gate,
        limits=limits,
        credentials=credentials,
        pool=pool,
        metrics=counts,
    )
