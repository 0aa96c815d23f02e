"""The `echo` model: what arrived, so that a test can see what its client or proxy sent. Pure."""

import hashlib

from gateway.twin.model import Call
from gateway.twin.reply import MODELARTS, Reply, json_body


def answer(call: Call) -> Reply:
    """Tell everything about the call but its secret."""
    seen = {
        "method": call.method,
        "target": call.target,
        "headers": call.fields,
        "body": {"bytes": len(call.body), "sha256": hashlib.sha256(call.body).hexdigest()},
    }
    return Reply(200, json_body(seen), MODELARTS)
