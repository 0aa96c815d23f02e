"""The cloud's responses as values: the vendor's error bodies, codes and layers. Pure."""

import json
from dataclasses import dataclass
from typing import Any

APIG = "api-gateway"
MODELARTS = "ModelArts"
TWIN = "twin"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; `X-Request-Id` and the framing are added when it is sent."""

    status: int
    body: bytes
    server: str
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


# code -> (usual status, message). The same code may come with other statuses, most of all
# APIG.0201; name both in a fault then.
KNOWN_CODES: dict[str, tuple[int, str]] = {
    "APIG.0101": (404, "The API does not exist or has not been published in the environment."),
    "APIG.0201": (502, "Backend unavailable."),
    "APIG.0202": (502, "Backend unavailable."),
    "APIG.0203": (504, "Backend timed out."),
    "APIG.0301": (401, "Incorrect IAM authentication information: decrypt token fail."),
    "APIG.0302": (403, "The IAM user is not authorized to access the API."),
    "APIG.0304": (403, "The app is not authorized to access the API."),
    "APIG.0306": (403, "API access denied."),
    "APIG.0307": (401, "The token must be updated."),
    "APIG.0308": (429, "The throttling threshold has been reached."),
    "APIG.0610": (502, "The backend service is unavailable."),
    "APIG.0613": (503, "The IAM service is unavailable."),
    "ModelArts.0201": (401, "Authentication failed: the token is missing."),
    "ModelArts.0202": (401, "Authentication failed: the token is invalid."),
    "ModelArts.0203": (401, "Authentication failed: obtain a new token."),
    "ModelArts.0204": (401, "Authentication failed: the token has expired."),
    "ModelArts.0207": (401, "The token has no project; use a project-scoped token."),
    "ModelArts.0210": (403, "No permission for this operation."),
    "ModelArts.0212": (401, "The token does not belong to a project."),
    "ModelArts.4104": (413, "The request body is too large."),
    "ModelArts.4119": (401, "The token has no project."),
    "ModelArts.4127": (401, "The token is invalid."),
    "ModelArts.4201": (401, "Request authentication failed."),
    "ModelArts.4203": (400, "The service is not started."),
    "ModelArts.4204": (404, "The service does not exist."),
    "ModelArts.4206": (429, "Too many requests."),
    "ModelArts.4302": (500, "Gateway forwarding error: the backend refused the connection."),
    "ModelArts.4503": (500, "Failed to respond: the backend was not found or did not respond."),
    "ModelArts.4505": (500, "The backend timed out."),
    "MR.0105": (400, "Recognition failed."),
}


def json_body(value: object) -> bytes:
    """Serialise without spaces, as the vendor does."""
    return json.dumps(value, separators=(",", ":")).encode()


def cloud_error(status: int, code: str, message: str, request_id: str) -> Reply:
    """Answer of one layer, which the code names: `APIG`, `ModelArts`, `MR`, or `Twin` for our own.

    The layer decides the `Server` field: everything behind the API gateway says `ModelArts`.
    """
    servers = {"APIG": APIG, "Twin": TWIN}
    body: dict[str, Any] = {"error_code": code, "error_msg": message, "request_id": request_id}
    return Reply(status, json_body(body), servers.get(code.partition(".")[0], MODELARTS))


def known_error(code: str, request_id: str) -> Reply:
    """`cloud_error` with the usual status and message of a code in `KNOWN_CODES`."""
    status, message = KNOWN_CODES[code]
    return cloud_error(status, code, message, request_id)
