"""What can go wrong, which side is at fault, and the response that the caller gets.

The class of an exception is the fault, its `ErrorCode` is what happened. A code carries its
own answer, so a new member cannot exist without a status, a sentence and a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum


class Layer(StrEnum):
    """Who is at fault, from the caller inwards: label `layer` of `gateway_errors_total`."""

    CLIENT = "client"
    GATEWAY = "gateway"
    IDENTITY = "identity"
    NETWORK = "network"
    APIG = "apig"
    MODELARTS = "modelarts"
    MODEL = "model"


class Rejection(StrEnum):
    """Why a request was not taken: label `reason` of `gateway_requests_rejected_total`."""

    QUEUE_FULL = "queue_full"
    """The limit on requests in flight is reached, and the queue is full or would not help."""
    QUEUE_TIMEOUT = "queue_timeout"
    """It has waited in the queue for the longest time allowed."""
    BREAKER_OPEN = "breaker_open"
    """The service has just failed several times in a row."""
    MEMORY = "memory"
    CONNECTIONS = "connections"
    DRAINING = "draining"
    """The gateway is ending."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to one kind of failure."""

    status: int
    """HTTP status, or 0 when nobody is left to answer."""
    proxy_error: str
    """Type for `Proxy-Status`, from the registry of RFC 9209 section 2.3."""
    name: str
    """`Gateway.<name>` is the `error_code` of the body."""
    layer: Layer
    summary: str
    """What happened and what to do. Never an upstream address."""

    @property
    def sentence(self) -> str:
        """`error_msg` of the body: the summary, and the page in config/errors that says more."""
        return f"{self.summary} See docs: Gateway.{self.name}"

    def sentence_with(self, reason: str) -> str:
        """Return `sentence` with the reason of this one failure, a text without a full stop."""
        return f"{self.summary} The reason: {reason}. See docs: Gateway.{self.name}"


class ErrorCode(Enum):
    """Everything that can end an exchange; the member's lower-case name is the metric label."""

    # The request is not one we pass on.
    BAD_REQUEST = Answer(
        400,
        "http_request_error",
        "BadRequest",
        Layer.CLIENT,
        "The request is not well-formed HTTP/1.1; correct its framing or header fields.",
    )
    BAD_TARGET = Answer(
        400,
        "http_request_error",
        "BadTarget",
        Layer.CLIENT,
        "The request target is not a plain path below the service; remove dot segments, "
        "encoded slashes and other special forms.",
    )
    UPGRADE_REFUSED = Answer(
        400,
        "http_request_error",
        "UpgradeRefused",
        Layer.CLIENT,
        "Only a WebSocket handshake can switch protocols, and only where the service's `websocket` "
        "is true; remove the Upgrade field.",
    )
    BROWSER_REFUSED = Answer(
        403,
        "http_request_denied",
        "BrowserRefused",
        Layer.CLIENT,
        "Requests that a web page makes are refused; call the gateway from a program, or "
        "add the page's origin to `allowed_origins`.",
    )
    CLIENT_NOT_ALLOWED = Answer(
        403,
        "http_request_denied",
        "ClientNotAllowed",
        Layer.CLIENT,
        "The client certificate has no name that listen_tls.allowed_clients lists; add one of its "
        "subject alternative names there.",
    )
    UNKNOWN_SERVICE = Answer(
        404,
        "destination_not_found",
        "UnknownService",
        Layer.CLIENT,
        "No service is configured at this path; use /<service name> or the service's own path.",
    )
    METHOD_NOT_ALLOWED = Answer(
        405,
        "http_request_denied",
        "MethodNotAllowed",
        Layer.CLIENT,
        "This service does not accept the method; add it to the service's `methods`.",
    )
    SLOW_REQUEST = Answer(
        408,
        "http_request_error",
        "SlowRequest",
        Layer.CLIENT,
        "The request stopped arriving before it was complete; send it again.",
    )
    BODY_TOO_LARGE = Answer(
        413,
        "http_request_denied",
        "BodyTooLarge",
        Layer.CLIENT,
        "The request body exceeds the service's `max_body`; send a smaller one.",
    )
    TARGET_TOO_LONG = Answer(
        414,
        "http_request_error",
        "TargetTooLong",
        Layer.CLIENT,
        "The request target is too long; move data into the body.",
    )
    EXPECTATION_FAILED = Answer(
        417,
        "http_request_error",
        "ExpectationFailed",
        Layer.CLIENT,
        "Only the expectation 100-continue is supported; remove the Expect field.",
    )
    WRONG_HOST = Answer(
        421,
        "http_request_denied",
        "WrongHost",
        Layer.CLIENT,
        "The Host field names another server; call the gateway by its listen address, "
        "or add the name to `allowed_hosts`.",
    )
    HEADERS_TOO_LARGE = Answer(
        431,
        "http_request_error",
        "HeadersTooLarge",
        Layer.CLIENT,
        "The request has too many or too large header fields; send fewer.",
    )
    METHOD_UNKNOWN = Answer(
        501,
        "http_request_error",
        "MethodUnknown",
        Layer.CLIENT,
        "The request method is not known; methods are upper case, such as POST.",
    )
    VERSION_NOT_SUPPORTED = Answer(
        505,
        "http_request_error",
        "VersionNotSupported",
        Layer.CLIENT,
        "Only HTTP/1.1 and HTTP/1.0 are supported.",
    )
    CLIENT_DISCONNECTED = Answer(
        0,
        "http_request_error",
        "ClientDisconnected",
        Layer.CLIENT,
        "The caller disconnected before it had received the whole response.",
    )

    # We have no token to send.
    TOKEN_UNAVAILABLE = Answer(
        503,
        "proxy_configuration_error",
        "TokenUnavailable",
        Layer.IDENTITY,
        "The gateway has no token yet, because IAM cannot be reached or its response is not valid; "
        "try again. If it lasts, check the gateway's `auth_url` and IAM's state.",
    )
    LOGIN_REFUSED = Answer(
        503,
        "proxy_configuration_error",
        "LoginRefused",
        Layer.IDENTITY,
        "IAM refuses the gateway's login. It is not repeated until the secret changes or a pause "
        "of 15 minutes or more ends, so that the account is not locked; correct user, domain, "
        "project or password.",
    )
    LOGIN_THROTTLED = Answer(
        503,
        "proxy_configuration_error",
        "LoginThrottled",
        Layer.IDENTITY,
        "IAM throttles the gateway's logins; try again after the time in Retry-After.",
    )
    TOKEN_RENEWED = Answer(
        503,
        "http_request_error",
        "TokenRenewed",
        Layer.IDENTITY,
        "The service rejected the gateway's token and the request could not be sent again by "
        "itself; send it again after the time in Retry-After, by when the token is replaced.",
    )

    # We are not able or willing just now.
    OVERLOADED = Answer(
        503,
        "connection_limit_reached",
        "Overloaded",
        Layer.GATEWAY,
        "The gateway has reached a limit on requests, connections or memory; try again after the "
        "time in Retry-After, or raise the service's `max_in_flight` if the service can take more.",
    )
    SERVICE_DOWN = Answer(
        503,
        "destination_unavailable",
        "ServiceDown",
        Layer.GATEWAY,
        "The service has failed several times in a row, so the gateway sends it no requests for a "
        "while; try again after the time in Retry-After. If it lasts, check the service.",
    )
    DRAINING = Answer(
        503,
        "proxy_internal_response",
        "Draining",
        Layer.GATEWAY,
        "The gateway is shutting down and accepts no new requests; connect again and resend it.",
    )
    INTERNAL = Answer(
        500,
        "proxy_internal_error",
        "Internal",
        Layer.GATEWAY,
        "The gateway has a defect and could not handle the request; report it with the request id.",
    )

    # The way to the service, or its answer, is broken.
    DNS_ERROR = Answer(
        502,
        "dns_error",
        "DnsError",
        Layer.NETWORK,
        "The service's host name cannot be resolved; check the service's `url` and DNS.",
    )
    CONNECTION_REFUSED = Answer(
        502,
        "connection_refused",
        "ConnectionRefused",
        Layer.NETWORK,
        "The service cannot be connected to; check the service's `url` and the network.",
    )
    EGRESS_PROXY_ERROR = Answer(
        502,
        "proxy_configuration_error",
        "EgressProxyError",
        Layer.NETWORK,
        "The egress proxy opens no tunnel to the service; check `egress_proxy`, its password, and "
        "what the proxy allows.",
    )
    CONNECTION_TERMINATED = Answer(
        502,
        "connection_terminated",
        "ConnectionTerminated",
        Layer.NETWORK,
        "The service closed the connection without a response, and may or may not have processed "
        "the request; check its log before you send it again.",
    )
    TLS_CERTIFICATE_ERROR = Answer(
        502,
        "tls_certificate_error",
        "TlsCertificateError",
        Layer.NETWORK,
        "The service's certificate is not trusted; check `tls.ca_file` and `tls.server_name`.",
    )
    TLS_PROTOCOL_ERROR = Answer(
        502,
        "tls_protocol_error",
        "TlsProtocolError",
        Layer.NETWORK,
        "No TLS connection to the service could be made; check the scheme and port of its `url`.",
    )
    HTTP_PROTOCOL_ERROR = Answer(
        502,
        "http_protocol_error",
        "HttpProtocolError",
        Layer.NETWORK,
        "The service's response is not valid HTTP and was not forwarded; report it to its owner.",
    )
    HTTP_RESPONSE_INCOMPLETE = Answer(
        502,
        "http_response_incomplete",
        "HttpResponseIncomplete",
        Layer.NETWORK,
        "The service closed the connection in the middle of its response; check the service.",
    )
    CONNECTION_TIMEOUT = Answer(
        504,
        "connection_timeout",
        "ConnectionTimeout",
        Layer.NETWORK,
        "No connection to the service was made within `timeouts.connect`; check the network.",
    )
    HTTP_RESPONSE_TIMEOUT = Answer(
        504,
        "http_response_timeout",
        "HttpResponseTimeout",
        Layer.NETWORK,
        "The service sent no response within `timeouts.first_byte` (its body: "
        "`timeouts.first_chunk`), or stalled for longer than `timeouts.idle`; check its load.",
    )

    @property
    def label(self) -> str:
        """Value of the metric label `error`."""
        return self.name.lower()

    @property
    def status(self) -> int:
        """HTTP status, or 0 when nobody is left to answer."""
        return self.value.status

    @property
    def layer(self) -> Layer:
        """Whose fault it is."""
        return self.value.layer


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds every fault found, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("invalid configuration:\n  " + "\n  ".join(problems))
        self.problems = tuple(problems)


class GatewayError(Exception):
    """An exchange failed. `code` is for machines and callers; `str(error)` is for our log only.

    Never written to a caller: addresses live in it. Secrets must not.
    """

    def __init__(self, code: ErrorCode, detail: str = "") -> None:
        super().__init__(detail or code.value.summary)
        self.code = code


class DownstreamError(GatewayError):
    """The caller broke the protocol, asked for what it may not have, or went away."""


class CredentialError(GatewayError):
    """We have no token to send; nothing was sent upstream."""

    def __init__(
        self, code: ErrorCode, detail: str = "", *, retry_after_s: float = 1.0, reason: str = ""
    ) -> None:
        super().__init__(code, detail)
        self.retry_after_s = retry_after_s
        """Seconds after which another try makes sense; for the `Retry-After` field."""
        self.reason = reason
        """Why the login was refused, for callers, where that is so; quotes nobody."""


class UnavailableError(GatewayError):
    """We will not take the request now: overloaded or ending. Nothing was sent upstream."""

    def __init__(self, code: ErrorCode, reason: Rejection, *, retry_after_s: float = 1.0) -> None:
        super().__init__(code)
        self.reason = reason
        self.retry_after_s = retry_after_s
        """Seconds after which another try makes sense; for the `Retry-After` field."""


class UpstreamError(GatewayError):
    """The service, or the way to it, failed us.

    `replayable` is True only where the raiser knows that not one byte of the request was
    written; it defaults to the answer that cannot run a POST twice.
    """

    def __init__(self, code: ErrorCode, detail: str = "", *, replayable: bool = False) -> None:
        super().__init__(code, detail)
        self.replayable = replayable
