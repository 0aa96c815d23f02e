"""A login as it is kept for the fleet. Pure: no I/O, no clock."""

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from gateway.identity.source import LONGEST_TOKEN, Login, TokenFacts

_LINE = re.compile(rb"[A-Za-z0-9-]{1,64}: [\x21-\x7e]{1,%d}\r\n" % LONGEST_TOKEN)


@dataclass(frozen=True, slots=True)
class Entry:
    """A login of some replica."""

    field_lines: bytes
    usable_s: float
    """For how long the credential may be used, from the moment of asking IAM."""
    facts: TokenFacts


def encode(login: Login, usable_s: float) -> bytes | None:
    """Return what is encrypted and kept; None: the login is not fit to be shared."""
    if login.facts is None or not _LINE.fullmatch(login.credential.field_lines):
        return None
    facts = asdict(login.facts)
    for key in ("issued_at", "expires_at"):
        facts[key] = facts[key].isoformat() if facts[key] is not None else None
    line = login.credential.field_lines.decode("ascii")
    return json.dumps({"line": line, "usable_s": usable_s, "facts": facts}).encode()


def decode(content: bytes) -> Entry | None:
    """Return what `encode` has made; None for anything else."""
    try:
        read: Any = json.loads(content)
        facts = read["facts"]
        for key in ("issued_at", "expires_at"):
            facts[key] = datetime.fromisoformat(facts[key]) if facts[key] is not None else None
        facts["roles"] = tuple(facts["roles"])
        entry = Entry(read["line"].encode("ascii"), float(read["usable_s"]), TokenFacts(**facts))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return entry if _LINE.fullmatch(entry.field_lines) and entry.usable_s > 0 else None
