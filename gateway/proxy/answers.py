"""The responses we give ourselves, in the shape of the vendor's own so that clients parse them."""

import json
from http import HTTPStatus

from gateway.errors import CredentialError, ErrorCode, GatewayError, UnavailableError
from gateway.proxy.admission import RefusedByServiceError

_BUSY_S = 1.0
"""When to try again what we did not take."""


def error_response(error: GatewayError, request_id: str, *, with_body: bool, close: bool) -> bytes:
    """Serialise an error of ours.

    Args:
        error: its code must have a status.
        request_id: plain characters; returned in the body and as `X-Request-Id`.
        with_body: False for the response to HEAD.
        close: the connection ends with this response.
    """
    answer = error.code.value
    body = json.dumps(
        {
            "error_code": f"Gateway.{answer.name}",
            "error_msg": answer.sentence,
            "request_id": request_id,
        }
    )
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Request-Id: {request_id}",
        f"Proxy-Status: modelarts-gateway; error={answer.proxy_error}",
    ]
    match error:
        case CredentialError():
            lines.append(_retry_after(error.retry_after_s))
        case UnavailableError():
            lines.append(_retry_after(_BUSY_S))
        case RefusedByServiceError(code=ErrorCode.METHOD_NOT_ALLOWED):
            # RFC 9110 section 15.5.6: a 405 must have it.
            lines.append(f"Allow: {', '.join(sorted(error.service.methods))}")
        case _:
            pass
    if close:
        lines.append("Connection: close")
    head = "\r\n".join(lines) + "\r\n\r\n"
    return (head + (body if with_body else "")).encode("ascii")


def _retry_after(seconds: float) -> str:
    return f"Retry-After: {max(1, -int(-seconds // 1))}"
