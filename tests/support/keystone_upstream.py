"""Services that ask a real Keystone about tokens. Run by `keystone.py`, with the Python for it.

Arguments: folder for notes, port on loopback, URL of Keystone, password of its service user.
Below `/v1/infers/`: `strict` asks each time and refuses as the vendor's gateway does, `cached`
remembers good verdicts, `plain` leaves the refusal to keystonemiddleware, `forbidding` finds fault
with every token.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Start = Callable[..., Any]
Wsgi = Callable[[dict[str, Any], Start], Iterable[bytes]]

REJECTED = {"error_code": "APIG.0301", "error_msg": "Incorrect IAM authentication information"}
FORBIDDEN = {"error_code": "ModelArts.0210", "error_msg": "not authorised"}


def service(notes: Path) -> Wsgi:
    """Answer by the verdict that keystonemiddleware has left in the environment, and note it."""

    def answer(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        name = environ["service"]
        token = environ.get("HTTP_X_AUTH_TOKEN", "")
        good = environ.get("HTTP_X_IDENTITY_STATUS") == "Confirmed"
        mark = hashlib.sha256(token.encode()).hexdigest()[:8] if token else "none"
        with notes.open("a") as file:
            file.write(f"{name} {mark} {'good' if good else 'bad'}\n")
        if not good:
            return say(start, "401 Unauthorized", REJECTED)
        if name == "forbidding":
            return say(start, "403 Forbidden", FORBIDDEN)
        return say(start, "200 OK", {"token": mark, "project": environ["HTTP_X_PROJECT_NAME"]})

    return answer


def say(start: Start, status: str, document: dict[str, str]) -> list[bytes]:
    """Begin a JSON answer and return its body."""
    body = json.dumps(document).encode()
    start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def by_path(services: dict[str, Wsgi]) -> Wsgi:
    """Choose the service by the third segment of the path."""

    def choose(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        name = environ["service"] = environ["PATH_INFO"].split("/")[3]
        return services[name](environ, start)

    return choose


if __name__ == "__main__":
    folder, port, keystone, password = sys.argv[1:]
    sys.argv = ["upstream"]  # oslo.config parses what is left
    from keystoneauth1.identity.base import (  # type: ignore[import-not-found]
        BaseIdentityPlugin,
    )
    from keystonemiddleware.auth_token import AuthProtocol  # type: ignore[import-not-found]
    from waitress import serve  # type: ignore[import-untyped]

    # Its 120 s would make it log in for every call, as tokens live for seconds here.
    BaseIdentityPlugin.MIN_TOKEN_LIFE_SECONDS = 2
    app = service(Path(folder) / "calls")

    def protected(*, delay: bool, cache_s: int) -> Wsgi:
        """Put keystonemiddleware before the service."""
        options = {
            "auth_type": "password",
            "auth_url": keystone,
            "www_authenticate_uri": keystone,
            "username": "admin",
            "password": password,
            "user_domain_name": "Default",
            "project_name": "admin",
            "project_domain_name": "Default",
            "delay_auth_decision": delay,
            "token_cache_time": cache_s,
            "http_connect_timeout": 2,
            "http_request_max_retries": 0,
        }
        protocol: Wsgi = AuthProtocol(app, options)
        return protocol

    strict = protected(delay=True, cache_s=-1)
    services = {
        "strict": strict,
        "forbidding": strict,
        "cached": protected(delay=True, cache_s=300),
        "plain": protected(delay=False, cache_s=-1),
    }
    serve(by_path(services), host="127.0.0.1", port=int(port), threads=4)
