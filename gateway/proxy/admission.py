"""Whether a request may go on, and as what. Pure."""

from dataclasses import dataclass
from typing import Final

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.fields import without_twins
from gateway.http.host import AllowedHosts
from gateway.http.location import location_for_client
from gateway.http.request import Request
from gateway.http.request_head import METHODS, RequestHead
from gateway.proxy.service import RouteTable, Service

_BEGIN: Final = {method: method.encode("ascii") + b" " for method in METHODS}
"""Of a request line, by its method."""
_SAME_SITE: Final = frozenset({b"same-origin", b"none"})


@dataclass(frozen=True, slots=True)
class Rules:
    """What admission is decided by; replaced as a whole when the configuration changes."""

    routes: RouteTable
    hosts: AllowedHosts
    origins: frozenset[bytes] = frozenset()
    """Of web pages that may call, as browsers write them."""


class Admission:
    """A request that may go on. Not changed."""

    __slots__ = ("head", "path", "service", "upstream_head")

    def __init__(
        self, service: Service, path: bytes, head: RequestHead, lines: list[bytes]
    ) -> None:
        self.service = service
        self.head = head
        self.upstream_head = _upstream_head(service, path + head.line.query, head, lines)
        """Request line and fields for the service, without credential and last line end."""
        self.path = path
        """To ask of the service."""

    def within_trace(self, traceparent: bytes, *, joined: bool) -> "Admission":
        """Return the same request with a parent of ours in its trace.

        What a client says of a trace that cannot be joined is void (W3C Trace Context 3.3).
        """
        void = (b"traceparent:",) if joined else (b"traceparent:", b"tracestate:")
        lines = [line for line in self.head.lines if not line.lower().startswith(void)]
        lines.append(b"traceparent: " + traceparent)
        return Admission(self.service, self.path, self.head, lines)

    def location_for_client(self, value: bytes) -> bytes:
        """Return a `Location` as the client must read it.

        A redirect to within the service leads to the path that the client knows it by.
        """
        service = self.service
        return location_for_client(
            value,
            origin=service.origin,
            path=service.path,
            prefix=self.head.line.path.removesuffix(self.path[len(service.path) :]),
        )


class RefusedByServiceError(DownstreamError):
    """The request is one for `service`, which does not take it."""

    def __init__(self, code: ErrorCode, service: Service) -> None:
        super().__init__(code)
        self.service = service


def admit(rules: Rules, request: Request) -> Admission:
    """Decide whether a request may be forwarded, before a byte of it is.

    Raises:
        DownstreamError: it may not; the code says why.
    """
    head = request.head
    line = head.line
    if not line.supported:
        raise DownstreamError(ErrorCode.VERSION_NOT_SUPPORTED)
    if head.fault is not None:
        raise head.fault
    if head.host is not None:
        rules.hosts.admit(head.host)
    if (head.origin is not None or head.fetch_site is not None) and _is_foreign_page(rules, head):
        raise DownstreamError(ErrorCode.BROWSER_REFUSED)
    if line.fault is not None:
        raise line.fault
    service, path = rules.routes.find(line.path)
    if head.upgrade is not None:
        _check_switch(service, head)
    elif line.method not in service.methods:
        raise RefusedByServiceError(ErrorCode.METHOD_NOT_ALLOWED, service)
    if head.content_length is not None and head.content_length > service.max_body_bytes:
        raise RefusedByServiceError(ErrorCode.BODY_TOO_LARGE, service)
    return Admission(service, path, head, head.lines)


def _is_foreign_page(rules: Rules, head: RequestHead) -> bool:
    """Return whether a web page makes the request that is not allowed to."""
    if head.origin is not None:
        return head.origin not in rules.origins
    return head.fetch_site is not None and head.fetch_site.lower() not in _SAME_SITE


def _check_switch(service: Service, head: RequestHead) -> None:
    """Refuse all but a WebSocket handshake (RFC 6455 section 4.2.1), where it is enabled.

    Its key and version are the service's to judge.
    """
    if not (
        service.websocket
        and head.upgrade == b"websocket"
        and head.is_upgrade
        and head.line.method == "GET"
        and not head.line.http_1_0
        and not head.chunked
        and not head.content_length
        and not head.expects_continue
    ):
        raise RefusedByServiceError(ErrorCode.UPGRADE_REFUSED, service)


def _upstream_head(
    service: Service, target: bytes, head: RequestHead, fields: list[bytes]
) -> bytes:
    """Return the head for the service. Our lines are written after stripping."""
    lines = [_BEGIN[head.line.method] + target + b" HTTP/1.1", service.host_line]
    if service.own_field:
        lines.extend(without_twins(fields, service.own_field))
    else:
        lines.extend(fields)
    if head.upgrade is not None:
        lines.append(b"Connection: Upgrade\r\nUpgrade: websocket")
    elif head.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.content_length is not None:
        lines.append(b"Content-Length: %d" % head.content_length)
    lines.append(b"Via: 1.1 modelarts-gateway\r\n")
    return b"\r\n".join(lines)
