"""The answers we give ourselves, in the shape of the vendor's own so that clients parse them."""

import json
from collections.abc import Collection
from http import HTTPStatus

from gateway.errors import ErrorCode


def error_answer(
    code: ErrorCode,
    request_id: str,
    *,
    retry_after_s: float | None,
    allow: Collection[str],
    with_body: bool,
    close: bool,
) -> bytes:
    """Serialise an error of ours.

    Args:
        code: must have a status.
        request_id: plain characters; returned in the body and as `X-Request-Id`.
        retry_after_s: for `Retry-After`, rounded up; None leaves it out.
        allow: methods for `Allow`, which 405 must have (RFC 9110 section 15.5.6); else empty.
        with_body: False for the answer to HEAD.
        close: the connection ends with this answer.
    """
    answer = code.value
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
    if retry_after_s is not None:
        lines.append(f"Retry-After: {max(1, -int(-retry_after_s // 1))}")
    if allow:
        lines.append(f"Allow: {', '.join(sorted(allow))}")
    if close:
        lines.append("Connection: close")
    head = "\r\n".join(lines) + "\r\n\r\n"
    return (head + (body if with_body else "")).encode("ascii")
