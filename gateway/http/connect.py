"""How a proxy is asked for a tunnel (CONNECT, RFC 9110 section 9.3.6), and its response. Pure."""

from dataclasses import dataclass, field
from typing import Final

from gateway.errors import ErrorCode, UpstreamError
from gateway.http.lines import is_clean
from gateway.http.response_head import read_status_line

_MAX_HEAD_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressProxy:
    """Where a proxy is, and who we are to it."""

    host: str
    """IPv6 without brackets."""
    port: int
    authorization: bytes = field(default=b"", repr=False)
    """Value of `Proxy-Authorization`; empty: none is sent."""

    @property
    def authority(self) -> str:
        """`host:port`."""
        return _authority(self.host, self.port)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connect_request(host: str, port: int, authorization: bytes) -> bytes:
    """Return the request for a tunnel.

    Args:
        host: the tunnel's other end; IPv6 without brackets.
        port: 1 to 65535.
        authorization: value of `Proxy-Authorization`; empty: the line is left out.
    """
    authority = _authority(host, port).encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"Host: %b" % authority]
    if authorization:
        lines.append(b"Proxy-Authorization: " + authorization)
    return b"\r\n".join([*lines, b"", b""])


def connect_status(received: bytes) -> int | None:
    """Return the status of the proxy's response, or None while its head is not complete.

    Args:
        received: all that has come so far.

    Raises:
        UpstreamError: it is no response, or bytes follow that nobody has asked for: in a tunnel
            the client of TLS speaks first.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        if len(received) > _MAX_HEAD_BYTES:
            raise tunnel_error("its response has no end")
        return None
    head = received[:end]
    try:
        status = read_status_line(head.partition(b"\r\n")[0]).status
    except UpstreamError:
        raise tunnel_error("it does not speak HTTP") from None
    if not is_clean(head.replace(b"\r\n", b"")):
        raise tunnel_error("it does not speak HTTP")
    if 200 <= status < 300 and end + 4 < len(received):
        raise tunnel_error("it sends more than a response")
    return status


def refusal_of(status: int) -> str:
    """Return what a status that opens no tunnel means, and what to do; empty for 2xx."""
    if 200 <= status < 300:
        return ""
    match status:
        case 401 | 407:  # tinyproxy says 401
            meaning = "check egress_proxy.username and egress_proxy.password_file"
        case 403 | 405:
            meaning = "have this host and port allowed there"
        case 500 | 502 | 503 | 504:
            meaning = "it cannot reach the host itself"
        case _:
            meaning = "check whether it takes CONNECT"
    return f"it refuses the tunnel with status {status}: {meaning}"


def tunnel_error(detail: str) -> UpstreamError:
    """Return the error for a tunnel that has not been opened; nothing has been sent through it."""
    return UpstreamError(ErrorCode.EGRESS_PROXY_ERROR, f"egress proxy: {detail}", replayable=True)
