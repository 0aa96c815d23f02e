"""Which trace a request belongs to. Pure.

Source: W3C Trace Context, Level 1, sections 3.2.2 to 3.2.4.
"""

import re
from typing import Final

# A version that is not known yet may be longer, after another dash; `ff` is none.
_TRACE_PARENT: Final = re.compile(
    rb"(?!ff)(?!00-.{52}.)[0-9a-f]{2}"
    rb"-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?",
    re.DOTALL,
)


def trace_id_of(traceparent: bytes) -> str | None:
    """Return the 32 hexadecimal digits of a trace id, sampled or not; None for what is no trace.

    Args:
        traceparent: value of the only field of that name.
    """
    found = _TRACE_PARENT.fullmatch(traceparent)
    return found[1].decode("ascii") if found else None
