"""The `echo` model: returns the request that arrived, so that tests can check it. Pure."""

import hashlib

from gateway.twin.model import Call
from gateway.twin.reply import MODELARTS, Reply, json_body


def answer(call: Call) -> Reply:
    """Return everything about the call except its credential."""
    seen = {
        "method": call.method,
        "target": call.target,
        "headers": call.fields,
        "body": {"bytes": len(call.body), "sha256": hashlib.sha256(call.body).hexdigest()},
    }
    return Reply(200, json_body(seen), MODELARTS)
