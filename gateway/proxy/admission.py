"""Whether a request may go on, and as what. Pure but for the memory of what was admitted before."""

from copy import copy
from dataclasses import dataclass, field

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.fields import RequestFields, read_request_fields
from gateway.http.host import AllowedHosts
from gateway.http.target import split_target
from gateway.proxy.inbound import Inbound, KnownHead
from gateway.proxy.service import RouteTable, Service

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""RFC 9110 section 9 without CONNECT and TRACE, which no gateway with a credential forwards, plus
PATCH (RFC 5789)."""

_VERSIONS = frozenset({"1.1", "1.0"})
_SAME_SITE = frozenset({b"same-origin", b"none"})


@dataclass(frozen=True, slots=True)
class Rules:
    """What admission is decided by; replaced as a whole when the configuration changes."""

    routes: RouteTable
    hosts: AllowedHosts
    origins: frozenset[bytes] = frozenset()
    """Of web pages that may call, as browsers write them."""
    known_heads: dict[bytes, KnownHead] = field(default_factory=dict, repr=False, compare=False)
    """Heads that callers send again and again; downstream/ fills it. Gone with the rules."""


class Admission:
    """A request that may go on. Never changed: those with the same head may have it in common."""

    __slots__ = ("_method", "fields", "head", "path", "query", "service")

    def __init__(
        self, service: Service, method: str, path: bytes, query: bytes, fields: RequestFields
    ) -> None:
        self.service = service
        self.path = path
        """Path to ask of the service."""
        self.fields = fields
        self.head = _head_of(service, method, path + query, fields)
        """Request line and fields for the service, without credential and last line end."""
        self._method = method
        self.query = query
        """With its `?`, or empty; as received."""

    def within_trace(self, traceparent: bytes, *, joined: bool) -> "Admission":
        """Return the same request with a parent of ours in its trace.

        What a caller says of a trace that cannot be joined is void (W3C Trace Context 3.3).
        """
        void = (b"traceparent:",) if joined else (b"traceparent:", b"tracestate:")
        fields = copy(self.fields)
        fields.lines = [line for line in fields.lines if not line.lower().startswith(void)]
        fields.lines.append(b"traceparent: " + traceparent)
        return Admission(self.service, self._method, self.path, self.query, fields)

    def prefix_of(self, target: bytes) -> bytes:
        """Return what stands in `target`, the caller's, for the path of the service's URL."""
        return target.partition(b"?")[0].removesuffix(self.path[len(self.service.path) :])


class RefusedByServiceError(DownstreamError):
    """The request is one for `service`, which does not take it."""

    def __init__(self, code: ErrorCode, service: Service) -> None:
        super().__init__(code)
        self.service = service


def admit(rules: Rules, inbound: Inbound) -> Admission:
    """Decide whether a request may be forwarded, before a byte of it is.

    Raises:
        DownstreamError: it may not; the code says why.
    """
    known = inbound.known
    if known is None:
        return _judge(rules, inbound)
    if known.admission is None or known.rules is not rules:
        known.admission = _judge(rules, inbound)
        known.rules = rules
    return known.admission


def _judge(rules: Rules, inbound: Inbound) -> Admission:
    if inbound.version not in _VERSIONS:
        raise DownstreamError(ErrorCode.VERSION_NOT_SUPPORTED)
    if not inbound.method:
        raise DownstreamError(ErrorCode.METHOD_UNKNOWN)
    fields = read_request_fields(inbound.fields, http_1_0=inbound.version == "1.0")
    if fields.host is not None:
        rules.hosts.admit(fields.host)
    if fields.origin is not None:
        if fields.origin not in rules.origins:
            raise DownstreamError(ErrorCode.BROWSER_REFUSED)
    elif fields.fetch_site is not None and fields.fetch_site.lower() not in _SAME_SITE:
        raise DownstreamError(ErrorCode.BROWSER_REFUSED)
    known = rules.routes.find_known(inbound.target)
    service, path, query = (*known, b"") if known is not None else _route(rules, inbound.target)
    if fields.upgrade is not None:
        _check_switch(service, inbound, fields)
    elif inbound.method not in service.methods:
        raise RefusedByServiceError(ErrorCode.METHOD_NOT_ALLOWED, service)
    if fields.content_length is not None and fields.content_length > service.max_body_bytes:
        raise RefusedByServiceError(ErrorCode.BODY_TOO_LARGE, service)
    return Admission(service, inbound.method, path, query, fields)


def _check_switch(service: Service, inbound: Inbound, fields: RequestFields) -> None:
    """Refuse all but a WebSocket handshake (RFC 6455 section 4.2.1), where it is enabled.

    Its key and version are the service's to judge.
    """
    if not (
        service.websocket
        and fields.upgrade == b"websocket"
        and b"upgrade" in fields.named
        and inbound.method == "GET"
        and inbound.version == "1.1"
        and not fields.chunked
        and not fields.content_length
        and not fields.expects_continue
    ):
        raise RefusedByServiceError(ErrorCode.UPGRADE_REFUSED, service)


def _route(rules: Rules, target: bytes) -> tuple[Service, bytes, bytes]:
    """Return service, path to ask of it, and query of a target that is not known yet."""
    path, query = split_target(target)
    service, path = rules.routes.find(path)
    if not query:
        rules.routes.remember(target, service, path)
    return service, path, query


def upstream_head(admission: Admission, credential_lines: bytes) -> bytes:
    """Return the head for the service. Our lines are written after stripping.

    Args:
        admission: what may go on.
        credential_lines: complete header lines of the credential.
    """
    return b"".join((admission.head, credential_lines, b"\r\n"))


def _head_of(service: Service, method: str, target: bytes, fields: RequestFields) -> bytes:
    if fields.upgrade is not None:
        framing = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    elif fields.chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif fields.content_length is not None:
        framing = b"Content-Length: %d\r\n" % fields.content_length
    else:
        framing = b""
    lines = b"\r\n".join(fields.lines)
    return b"".join(
        (
            method.encode("ascii"),
            b" ",
            target,
            b" HTTP/1.1\r\n",
            service.host_line,
            lines,
            b"\r\n" if lines else b"",
            framing,
            b"Via: 1.1 modelarts-gateway\r\n",
        )
    )
