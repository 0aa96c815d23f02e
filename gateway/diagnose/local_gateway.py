"""What a gateway that runs on this machine already knows: refused logins, limits that do not fit.

Every refused login counts towards the account's lock-out, so `doctor` does not repeat one that is
known. If no gateway listens there, nothing is known.
"""

import json
from http.client import HTTPConnection, HTTPException
from typing import Any

from gateway.diagnose.admin_query import reachable_host
from gateway.diagnose.findings import duration_text
from gateway.diagnose.limit_advice import limit_advice
from gateway.settings import ListenAddress

_TIMEOUT_S = 2.0
_LARGEST_STATUS = 4 * 2**20


def refused_logins(admin: ListenAddress) -> dict[str, str]:
    """Return the identities whose login the gateway at `admin` does not try, and the reason.

    Blocks for a few seconds at most.
    """
    host = reachable_host(admin)
    known = _status(host, admin.port).get("identities")
    return {
        str(name): _sentence(f"{host}:{admin.port}", identity.get("next_login_s"))
        for name, identity in (known.items() if isinstance(known, dict) else ())
        if isinstance(identity, dict) and identity.get("locked") is True
    }


def advised_limits(admin: ListenAddress) -> dict[str, str]:
    """Return the services whose limits do not fit, by the gateway at `admin`, and advice.

    Blocks for a few seconds at most.
    """
    return limit_advice(_status(reachable_host(admin), admin.port))


def _status(host: str, port: int) -> dict[str, Any]:
    connection = HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/status", headers={"Accept": "application/json"})
        response = connection.getresponse()
        status = json.loads(response.read(_LARGEST_STATUS)) if response.status == 200 else None
    except (OSError, HTTPException, ValueError, RecursionError):
        return {}
    finally:
        connection.close()
    return status if isinstance(status, dict) else {}


def _sentence(where: str, next_login_s: object) -> str:
    when = ""
    if isinstance(next_login_s, (int, float)):
        when = f" and tries again in {duration_text(next_login_s)}"
    return (
        f"not tried: the gateway that runs at {where} has been refused{when}; every refused login "
        "counts towards the account's lock-out. Correct what its log names; a changed secret file "
        "is noticed by itself"
    )
