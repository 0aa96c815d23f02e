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


def name_in(body: dict[str, Any]) -> str:
    """Return who logs in: a user's name or an application credential's id."""
    identity = body["auth"]["identity"]
    if "application_credential" in identity:
        return str(identity["application_credential"]["id"])
    return str(identity["password"]["user"]["name"])


if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    sys.argv = ["keystone"]  # oslo.config parses what is left
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = str(folder / "keystone.conf")
    from keystone.wsgi.api import application  # type: ignore[import-not-found]
    from waitress import serve  # type: ignore[import-untyped]

    serve(noting_logins(application, folder / "logins"), host="127.0.0.1", port=port, threads=4)
