"""The responses we give ourselves, in the shape of the vendor's own so that clients parse them."""

import json
from http import HTTPStatus
from typing import Final

from gateway.errors import CredentialError, ErrorCode, GatewayError, UnavailableError
from gateway.http.request import Request
from gateway.proxy.admission import RefusedByServiceError

_CLOSING: Final = frozenset({400, 408, 414, 431, 501, 505})
"""After these nobody can say for sure where the next request on the connection begins."""


def answer_to(
    request: Request, error: GatewayError, request_id: str, date_line: bytes
) -> tuple[bytes, bool]:
    """Return the response to a request that failed, and whether its connection can be kept.

    Args:
        request: as far as it has been read.
        error: its code must have a status.
        request_id: plain characters.
        date_line: without line end.
    """
    status = error.code.status
    keep_alive = request.head.keep_alive and request.ended and status not in _CLOSING
    with_body = request.head.line.method != "HEAD"
    response = error_response(
        error, request_id, date_line, with_body=with_body, close=not keep_alive
    )
    return response, keep_alive


def error_response(
    error: GatewayError, request_id: str, date_line: bytes, *, with_body: bool, close: bool
) -> bytes:
    """Serialise an error of ours.

    Args:
        error: its code must have a status.
        request_id: plain characters; returned in the body and as `X-Request-Id`.
        date_line: without line end.
        with_body: False for the response to HEAD.
        close: the connection ends with this response.
    """
    answer = error.code.value
    sentence = answer.sentence
    if isinstance(error, CredentialError) and error.reason:
        sentence = answer.sentence_with(error.reason)
    body = json.dumps(
        {
            "error_code": f"Gateway.{answer.name}",
            "error_msg": sentence,
            "request_id": request_id,
        }
    )
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        date_line.decode("ascii"),
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Request-Id: {request_id}",
        f"Proxy-Status: modelarts-gateway; error={answer.proxy_error}",
    ]
    match error:
        case CredentialError() | UnavailableError():
            lines.append(_retry_after(error.retry_after_s))
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
