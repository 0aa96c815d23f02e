"""What a service's answer to a harmless request means, in words, with the remedy. Pure.

Sources: the vendor's error code pages and its page on failed predictions; decided on status and
code together, as `gateway/README.md` has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.diagnose.findings import Level, Step
from gateway.errors import ErrorCode, Layer, UpstreamError
from gateway.identity.report import KEY_REFUSED
from gateway.proxy.rejection import is_token_rejection, layer_of
from gateway.settings import Service

_MODELARTS = b"ModelArts"

_NO_SUCH_URL = (
    "nothing is published at this URL: copy it from the service's page (Usage Guides), and add the "
    "model's own path if it has one"
)
_FORBIDDEN = "the user may not call this service: give it a role for ModelArts in the project"
_NO_PROJECT = "the token is for no project: set project or project_id of the identity"
_THROTTLED = "calls are throttled: wait, call less often, or have the limit raised"
_BACKEND_DOWN = (
    "the model's instances cannot be reached: look at the service's state, events and logs"
)
_BACKEND_SLOW = "the model does not respond in time: check its load and logs, or add instances"

_BY_CODE: Mapping[str, tuple[Step, str]] = {
    "APIG.0101": (Step.URL, _NO_SUCH_URL),
    "APIG.0202": (Step.PROBE, _BACKEND_DOWN),
    "APIG.0203": (Step.PROBE, _BACKEND_SLOW),
    "APIG.0302": (Step.PROBE, _FORBIDDEN),
    "APIG.0304": (Step.PROBE, "the app may not call this API: authorise it for the service"),
    "APIG.0306": (Step.PROBE, "the API gateway denies access: look at its access control lists"),
    "APIG.0308": (Step.PROBE, _THROTTLED),
    "APIG.0610": (Step.PROBE, _BACKEND_DOWN),
    "APIG.0613": (
        Step.PROBE,
        "the API gateway cannot reach its own IAM: the vendor's fault, and the token is good; wait",
    ),
    "ModelArts.0207": (Step.PROBE, _NO_PROJECT),
    "ModelArts.0210": (Step.PROBE, _FORBIDDEN),
    "ModelArts.0212": (Step.PROBE, _NO_PROJECT),
    "ModelArts.4104": (Step.PROBE, "the request is too large, although it is empty"),
    "ModelArts.4119": (Step.PROBE, _NO_PROJECT),
    "ModelArts.4203": (Step.PROBE, "the service is not running: start it on its page"),
    "ModelArts.4204": (Step.URL, "the service does not exist: was it deleted or deployed anew?"),
    "ModelArts.4206": (Step.PROBE, _THROTTLED),
    "ModelArts.4302": (
        Step.PROBE,
        "the model's instances refuse connections: look at their state and logs",
    ),
    "ModelArts.4503": (
        Step.PROBE,
        "the model's instances are not there or do not respond: look at their state and logs",
    ),
    "ModelArts.4505": (Step.PROBE, _BACKEND_SLOW),
}
_APIG_0201: Mapping[int, str] = {
    413: "the request is too large for the API gateway, although it is empty",
    414: "the URL is too long for the API gateway: check it",
    494: "the header fields are too large for the API gateway, the token most likely: give the "
    "user fewer roles",
    500: _BACKEND_DOWN,
    502: _BACKEND_DOWN,
    504: _BACKEND_SLOW,
}
_LAYERS = {Layer.APIG: "the API gateway", Layer.MODELARTS: "ModelArts", Layer.MODEL: "the model"}
_KEY_METHODS = frozenset({"api_key", "header"})
_REJECTED_BY_METHOD: Mapping[str, str] = {
    "none": "the service requires a token, and the identity (method none) sends none: configure a "
    "login",
    "api_key": KEY_REFUSED,
    "header": KEY_REFUSED,
    "ak_sk": "the signature is rejected: check access key and secret key, and that their user may "
    "call this service; new services, at /v2/infers, accept no signatures",
    "file": "the token in token_file is rejected: the program that writes the file must renew it, "
    "with one for the service's project",
}
_FRESH_ONE_REFUSED = (
    "the token that IAM has just issued is rejected: check that auth_url is the IAM, and project "
    "the project, of the service's own region; after a change of password or roles wait some "
    "minutes"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visited:
    """The response of a service to a harmless request."""

    method: str
    status: int
    code: str
    """The vendor's, such as `ModelArts.4203`; empty if it has none of that form."""
    server: bytes
    keystone: bool
    """It carries a `WWW-Authenticate: Keystone` challenge."""
    request_id: str
    """Plain and short, or empty."""
    date: float | None
    """The server's clock, seconds since the epoch."""
    took_s: float
    """Until the first byte."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """The explanation, with the remedy."""

    level: Level
    step: Step
    text: str


def meaning_of(visited: Visited, *, login_method: str) -> Meaning:
    """Return who sent a response, whether a healthy service sends it, and what to do.

    Args:
        visited: the answer.
        login_method: of the identity whose token was sent.
    """
    found = _judge(visited, login_method)
    return Meaning(found.level, found.step, f"{found.text} ({_mark(visited)})")


def is_known_to_vendor(visited: Visited) -> bool:
    """Return whether the response comes from the API gateway or from behind it."""
    return bool(visited.code) or visited.server == _MODELARTS


def failure_text(error: UpstreamError, service: Service) -> str:
    """Return why there was no whole response, and what to do."""
    match error.code:
        case ErrorCode.HTTP_RESPONSE_TIMEOUT:
            return f"{error}: the model hangs or is overloaded; check its load and logs"
        case ErrorCode.HTTP_RESPONSE_INCOMPLETE:
            return "the response breaks off: check any proxy on the way, and the model's logs"
        case ErrorCode.CONNECTION_TERMINATED:
            return (
                "the connection is closed without a response: check scheme and port of the url"
                f"{', and whether a client certificate is wanted' * (service.scheme == 'https')}"
            )
        case ErrorCode.HTTP_PROTOCOL_ERROR:
            return "the response is not valid HTTP: check scheme and port of the url"
        case _:
            return str(error.code.value.summary)


def _judge(visited: Visited, login_method: str) -> Meaning:
    status, code = visited.status, visited.code
    if 200 <= status < 300:
        return Meaning(Level.OK, Step.PROBE, f"answers {visited.method} with {status}")
    if status == 401 and login_method in _KEY_METHODS and visited.server != _MODELARTS:
        return Meaning(Level.FAIL, Step.PROBE, KEY_REFUSED)
    if is_token_rejection(status, code, server=visited.server, keystone=visited.keystone):
        text = _REJECTED_BY_METHOD.get(login_method, _FRESH_ONE_REFUSED)
        return Meaning(Level.FAIL, Step.PROBE, text)
    if code == "APIG.0201":
        text = _APIG_0201.get(status, "the API gateway cannot parse the request")
        return Meaning(Level.FAIL, Step.PROBE, text)
    if code in _BY_CODE:
        step, text = _BY_CODE[code]
        return Meaning(Level.FAIL, step, text)
    layer = layer_of(code)
    if layer is not Layer.MODEL:
        text = f"{_LAYERS[layer]} refuses for a reason not known here: see the vendor's error codes"
        return Meaning(Level.FAIL, Step.PROBE, text)
    if is_known_to_vendor(visited):
        return _judge_model(status)
    return _judge_stranger(status)


def _judge_model(status: int) -> Meaning:
    """Return the verdict on the model's own response to a request that is not a prediction."""
    if status == 401:
        text = (
            "the model has been reached, and wants a login of its own, which callers cannot pass: "
            "their Authorization is removed. Switch it off in the model, or give it an identity "
            "with method header"
        )
        return Meaning(Level.WARN, Step.PROBE, text)
    if 300 <= status < 400:
        text = (
            "the model has been reached, and redirects, which the gateway leaves to its callers: "
            "add the path that it redirects to, to the url"
        )
        return Meaning(Level.WARN, Step.PROBE, text)
    if status < 500 or status == 501:
        return Meaning(
            Level.OK,
            Step.PROBE,
            "the model has been reached; its own response to a bare GET is expected",
        )
    if status == 500:
        text = "the model has been reached, and fails on an empty request: look at its logs"
        return Meaning(Level.WARN, Step.PROBE, text)
    text = "the model has been reached, and says that it cannot serve: look at its logs and load"
    return Meaning(Level.FAIL, Step.PROBE, text)


def _judge_stranger(status: int) -> Meaning:
    """Return the verdict on a response that is neither from ModelArts nor from its API gateway."""
    if status >= 500 and status != 501:
        text = "the server, or a proxy before it, fails: look at its logs"
        return Meaning(Level.FAIL, Step.PROBE, text)
    if status in {401, 403}:
        text = "refused by a server that is not ModelArts: check the url, and the token it wants"
        return Meaning(Level.WARN, Step.PROBE, text)
    if status == 404:
        text = "not found, says a server that is not ModelArts: check the url, host and path"
        return Meaning(Level.WARN, Step.URL, text)
    if status < 400:
        text = "redirected, which the gateway leaves to its callers: check scheme, host and path"
        return Meaning(Level.WARN, Step.URL, text)
    return Meaning(
        Level.OK,
        Step.PROBE,
        "a server has been reached; its own response to a bare GET is expected",
    )


def _mark(visited: Visited) -> str:
    known = [f"status {visited.status}"]
    if visited.code:
        known.append(visited.code)
    if visited.status >= 400 and visited.request_id:
        known.append(f"request id {visited.request_id}")
    known.append(f"{visited.took_s * 1000:.0f} ms")
    return ", ".join(known)
