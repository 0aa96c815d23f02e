"""Serves a real Keystone and notes each login. Run by `keystone.py`, with the Python that has it.

Arguments: folder with `keystone.conf`, port on loopback. Notes go to `logins` in that folder.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def noting_logins(app: Wsgi, notes: Path) -> Wsgi:
    """Let `app` answer; append `user status` to `notes` for every POST of a token."""

    def noting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) != ("POST", "/v3/auth/tokens"):
            return app(environ, start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = io.BytesIO(body)
        name = name_in(json.loads(body))

        def note(status: str, *rest: Any) -> Any:
            with notes.open("a") as file:
                file.write(f"{name} {status[:3]}\n")
            return start_response(status, *rest)

        return app(environ, note)

    return noting


def protecting_federation(app: Wsgi, folder: Path) -> Wsgi:
    """Let only bearers of a good ID token through to federation, as mod_auth_openidc does.

    Good is what the key in `cluster.pem` has signed, for the audience and by the issuer below.
    """
    import jwt  # type: ignore[import-not-found]  # PyJWT, which Keystone needs anyway

    def protected(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith("/v3/OS-FEDERATION/") or not environ[
            "PATH_INFO"
        ].endswith("/auth"):
            return app(environ, start_response)
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        try:
            claims = jwt.decode(
                token if scheme == "Bearer" else "",
                (folder / "cluster.pem").read_bytes(),
                algorithms=["RS256"],
                audience="keystone-client",
                issuer="https://kubernetes.default.svc.cluster.local",
            )
        except jwt.InvalidTokenError:
            start_response("401 Unauthorized", [("Content-Type", "text/html")])
            return [b"<html><title>401 Unauthorized</title></html>"]
        environ["HTTP_OIDC_ISS"], environ["HTTP_OIDC_SUB"] = claims["iss"], claims["sub"]
        return app(environ, start_response)

    return protected


def name_in(body: dict[str, Any]) -> str:
    """Return who logs in: a user's name, an application credential's id or name, or `token`."""
    identity = body["auth"]["identity"]
    if "application_credential" in identity:
        credential = identity["application_credential"]
        return str(credential.get("id") or credential["name"])
    if "token" in identity:
        return "token"
    return str(identity["password"]["user"]["name"])


if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    sys.argv = ["keystone"]  # oslo.config parses what is left
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = str(folder / "keystone.conf")
    from keystone.wsgi.api import application  # type: ignore[import-not-found]
    from waitress import serve  # type: ignore[import-untyped]

    app = protecting_federation(noting_logins(application, folder / "logins"), folder)
    serve(app, host="127.0.0.1", port=port, threads=4)
