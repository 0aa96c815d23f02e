"""What can be set: names, defaults, limits and the rules between keys. Never read or merged here.

Durations are seconds and sizes are bytes once they are loaded.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from gateway.settings.addresses import (
    DEFAULT_ADMIN_LISTEN,
    DEFAULT_LISTEN,
    ListenAddress,
    Url,
    parse_listen,
    parse_url,
)
from gateway.settings.egress import EgressProxy, plain_text_faults
from gateway.settings.fleet import Fleet
from gateway.settings.identity import Identity
from gateway.settings.listen_tls import ListenTls
from gateway.settings.overload import MAX_IN_FLIGHT, Breaker, Limits, Queue, Retry
from gateway.settings.sections import Fault, Section
from gateway.settings.tls import Tls
from gateway.settings.types import (
    AllowedHost,
    Duration,
    Listen,
    ListenTcp,
    MaxInFlight,
    Method,
    Mode,
    Name,
    Origin,
    PositiveDuration,
    ServiceUrl,
    Size,
    StateFolder,
    TokenListen,
    split_list,
)
from gateway.settings.values import did_you_mean, parse_size, shown

FIRST_BYTE_S = 40.0
"""What the cloud itself gives a prediction."""


class Drain(Section):
    """How the gateway leaves: SIGTERM first makes it not ready, then it closes its listener."""

    announce: Duration = 0.0
    """Time to go on accepting while `/readyz` already says no; 0 because a sidecar's callers
    leave with it. Behind a load balancer, set what that needs to notice; new connections are
    refused if it is too short."""
    timeout: Duration = 30.0
    """Time requests in flight may take to finish after that, as Kubernetes' own grace period;
    what is not finished then is cut off."""


class Timeouts(Section):
    """How long each step of a request may take; past it the caller gets 504."""

    connect: PositiveDuration = 5.0
    """Name look-up, TCP and TLS together; then 504 `connection_timeout`."""
    first_byte: PositiveDuration = FIRST_BYTE_S
    """From the request's end to the response's first byte; then 504 `http_response_timeout`. The
    cloud ends a prediction after 40 s."""
    first_chunk: PositiveDuration = Field(
        default_factory=lambda data: data.get("first_byte", FIRST_BYTE_S)
    )
    """From the request's end to the first byte of the response's body; as long as `first_byte` when
    left out. A model server sends the head at once and the first token when it has one, so give
    long prompts the time they need. Past it the response is cut off."""
    idle: PositiveDuration = 60.0
    """Between two pieces of a body, either way; for a response it begins after the first one. A
    response that has begun is cut off, because its status has already been sent."""
    upload_rate: Size = 1024
    """Bytes per second that a caller's body must keep, averaged over 10 s, while the gateway waits
    for it; then 408 `SlowRequest`. 0 for none: a body then only has to go on within `idle`."""


class Service(Section):
    """A real-time service: where it is and what may be sent to it."""

    url: ServiceUrl
    """Where the service is: http or https, host, perhaps port and path. Answers at `/<name>` and
    at this path."""
    identity: Name = "default"
    """Whose token is sent; a key of `identities`."""
    methods: Annotated[tuple[Method, ...], BeforeValidator(split_list)] = ("POST",)
    """Methods that are passed on; others get 405. Predictions are POST."""
    max_body: Size = 12 * 2**20
    """Largest request body in bytes, as the cloud's own limit; beyond it 413."""
    replay_buffer: Size = 2**20
    """A body up to this size is kept in memory until the response begins, so that it can be sent
    again with a new token; a larger one gets 503 `TokenRenewed` if its token is rejected, as does
    one beyond 6 MiB of all requests together."""
    websocket: bool = False
    """Whether callers may switch to WebSocket. Off, because what is said then is relayed unseen:
    no size is checked, and it ends only when one side closes or is idle for `timeouts.idle`."""
    max_in_flight: MaxInFlight = MAX_IN_FLIGHT
    """How many requests the service can take at a time, for instance instances times concurrency
    of the deployment, and one more: then it is busy while a response and the next request are on
    their way. Further ones wait in `queue`; with the default they get 503 `Overloaded`. `auto`
    finds the limit: lower when the service throttles or times out, else higher; and how many
    requests a second it accepts, if it refuses others with 429."""
    queue: Queue = Queue()
    """Where requests wait above `max_in_flight`, which must be given. With 1000, the default, there
    is a queue only if `depth` says so."""
    breaker: Breaker = Breaker()
    """When the service is left alone because it fails; off by default."""
    retry: Retry = Retry()
    """When a request is sent again; off by default, but for a rejected token and a connection that
    closed before the request was read."""
    usage: bool = False
    """Whether to count the tokens that an OpenAI-compatible model reports, from the last 4 KiB of
    each 2xx response to a POST. Callers that stream must ask for them:
    `stream_options: {include_usage: true}`. Compressed responses are counted as missing."""
    timeouts: Timeouts = Timeouts()
    """How long each step may take."""
    tls: Tls = Tls()
    """TLS towards the service."""
    egress_proxy: EgressProxy = EgressProxy()
    """The proxy that connections to the service go through; `url` must be https then."""

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield what needs another key."""
        yield from plain_text_faults(given, "url")
        if "queue" in given and "max_in_flight" not in given:
            yield (
                ("queue",),
                (
                    "max_in_flight is not given, so nothing would wait; set it to what the service "
                    "can take at a time, or to auto"
                ),
            )
        retry = given.get("retry")
        with suppress(ValueError):  # a bad size is reported as a value
            keeps_nothing = parse_size(given.get("replay_buffer", 1)) == 0
            if isinstance(retry, dict) and retry.get("on") and keeps_nothing:
                yield (
                    ("retry",),
                    (
                        "replay_buffer is 0, so no body is kept that could be sent again; set it "
                        "to the size of most bodies, such as 1MiB, or leave retry out"
                    ),
                )

    @property
    def has_queue(self) -> bool:
        """Whether requests may wait."""
        if self.queue.depth is None:
            return self.max_in_flight != MAX_IN_FLIGHT
        return self.queue.depth > 0

    @property
    def is_limited(self) -> bool:
        """Whether a limit, a queue, a breaker or retries have been asked for."""
        is_guarded = bool(self.breaker.failures or self.retry.on)
        return self.max_in_flight != MAX_IN_FLIGHT or self.has_queue or is_guarded

    @cached_property
    def parts(self) -> Url:
        """The URL, taken apart."""
        return parse_url(self.url)

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return self.parts.scheme

    @property
    def host(self) -> str:
        """Where to connect, IPv6 without brackets."""
        return self.parts.host

    @property
    def port(self) -> int:
        """1 to 65535."""
        return self.parts.port

    @property
    def path(self) -> str:
        """Path of the URL without trailing slash; empty for the root."""
        return self.parts.path

    @property
    def authority(self) -> str:
        """`host`, or `host:port` when the port is not the scheme's; for the Host field."""
        return self.parts.authority


class Settings(Section):
    """Everything that can be set. Durations are seconds, sizes are bytes."""

    model_config = ConfigDict(json_schema_extra={"required": ["services"]})

    listen: Listen = DEFAULT_LISTEN
    """Where callers connect: `host:port` or `unix:/path`. Loopback by default, as every caller
    who can connect uses the gateway's token."""
    listen_mode: Mode = "0660"
    """Mode of the socket file, in quotes: who may write to it may call, with the gateway's token.
    By default its user and group; without effect on TCP."""
    reuse_port: bool = False
    """Whether several gateways of one user may listen on the same port, and the kernel shares out
    connections between them; each needs an `admin_listen` of its own. TCP only."""
    listen_tls: ListenTls | None = None
    """TLS for callers, and who of them may call. Off when left out."""
    admin_listen: ListenTcp = DEFAULT_ADMIN_LISTEN
    """Where probes and Prometheus connect: `host:port`, TCP only. Loopback by default; the
    kubelet and a scraper need the pod's address (`0.0.0.0:9090`)."""
    token_listen: TokenListen | None = None
    """Where other data planes ask for the token that they send: `unix:/path`, or `host:port` on
    loopback; nothing else, since every program that can connect gets the token. Off when left
    out."""
    token_listen_mode: Mode = "0600"  # noqa: S105  # a mode, no secret
    """Mode of that socket file, in quotes; without effect on TCP."""
    allowed_hosts: Annotated[tuple[AllowedHost, ...], BeforeValidator(split_list)] = ()
    """Host names, without port, that callers may use beside loopback names and the listen
    address, and people for the status page beside any address; others get 421. `["*"]` accepts
    all, and with them web pages that rebind a name."""
    allowed_origins: Annotated[tuple[Origin, ...], BeforeValidator(split_list)] = ()
    """Origins, as `https://host[:port]`, of web pages that may call; all others get 403, and with
    them every cross-site request of a browser. What such a page may read, the service decides."""
    drain: Drain = Drain()
    """How the gateway shuts down."""
    limits: Limits = Limits()
    """Limits of the whole process."""
    quitquitquit: bool = False
    """Whether POST `/quitquitquit` on the admin listener ends the gateway, for jobs whose sidecar
    must end with them. Off, because anyone who reaches that listener could use it."""
    state_dir: StateFolder | None = None
    """Writable directory that outlives the process, for logins that IAM has refused: remembered
    over restarts, so that a crash loop does not lock the account. It never holds a secret. By
    default what systemd says (`$STATE_DIRECTORY`)."""
    fleet: Fleet | None = None
    """One login for all replicas; needs the extra `fleet`. Off when left out."""
    identities: dict[Name, Identity] = Field(default_factory=dict)
    """Identities by name. A service that names none uses `default`."""
    services: dict[Name, Service] = Field(default_factory=dict)
    """Services by name, at least one. The name is the path and the label in metrics."""

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield missing services and identities, and one address for two listeners."""
        with suppress(ValueError):  # a bad address is reported as a value
            listen = parse_listen(given.get("listen", DEFAULT_LISTEN))
            admin = parse_listen(given.get("admin_listen", DEFAULT_ADMIN_LISTEN))
            if listen == admin and listen.port:
                yield ("admin_listen",), f"{listen} is where callers connect; use another port"
            if listen.path and given.get("reuse_port"):
                yield ("reuse_port",), "makes no sense on a socket file; use host:port"
            if listen.path and given.get("listen_tls") is not None:
                yield (
                    ("listen_tls",),
                    "makes no sense on a socket file, whose mode says who may call",
                )
            if "token_listen" in given:
                yield from _shared_token_listener(
                    parse_listen(given["token_listen"]), listen, admin
                )
        services, identities = given.get("services", {}), given.get("identities", {})
        if services == {}:
            yield (
                ("services",),
                "at least one is required; write services.<name>.url, or set GATEWAY_SERVICE_URL",
            )
        if not isinstance(services, dict) or not isinstance(identities, dict):
            return  # reported as a value
        yield from _shared_sinks(identities)
        wanted = {str(name): _identity_of(service) for name, service in services.items()}
        known = tuple(str(name) for name in identities)
        if not known and set(wanted.values()) == {"default"}:
            yield (
                ("identities", "default"),
                (
                    "no identity is configured; give auth_url, username, user_domain, "
                    "password_file and project here, or OS_* variables, or method: none if no "
                    "token is needed"
                ),
            )
            return
        for name, identity in wanted.items():
            if identity not in known:
                yield (
                    ("services", name, "identity"),
                    (
                        f"{shown(identity)} is not configured; use one of identities: "
                        f"{', '.join(known) or '(there is none)'}{did_you_mean(identity, known)}"
                    ),
                )


def _shared_token_listener(
    tokens: ListenAddress, listen: ListenAddress, admin: ListenAddress
) -> Iterator[Fault]:
    """Yield an address of the token endpoint that another listener has."""
    if tokens in {listen, admin} and (tokens.port or tokens.path):
        yield (
            ("token_listen",),
            f"{tokens} is another listener's; use one of its own: its callers get the token",
        )


def _shared_sinks(identities: dict[Any, Any]) -> Iterator[Fault]:
    """Yield each sink whose file is another sink's as well."""
    owners: dict[str, str] = {}
    for name, identity in identities.items():
        sinks = identity.get("sinks") if isinstance(identity, dict) else None
        for place, sink in enumerate(sinks if isinstance(sinks, list) else ()):
            path = str(sink.get("path")) if isinstance(sink, dict) else ""
            if path and path in owners:
                yield (
                    ("identities", str(name), "sinks"),
                    f"{shown(path)} is written by {owners[path]} too; use another file",
                )
            owners[path] = f"identities.{name}.sinks[{place}]"


def _identity_of(service: Any) -> str:
    """Return the name of the identity that an unchecked service asks for."""
    name = (
        service.get("identity") if isinstance(service, dict) else getattr(service, "identity", None)
    )
    return "default" if name is None else str(name)
