"""Which values of `traceparent` name a trace."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.trace_context import trace_id_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "value",
    [
        GOOD,
        f"00-{TRACE}-00f067aa0ba902b7-00",
        f"00-{TRACE}-00f067aa0ba902b7-ff",
        f"cc-{TRACE}-00f067aa0ba902b7-01",
        f"01-{TRACE}-00f067aa0ba902b7-01-what-the-future-brings",
        f"01-{TRACE}-00f067aa0ba902b7-01-",
    ],
)
def test_a_trace_is_recognised(value: str) -> None:
    """Sampled or not, and in versions to come, which may only add to the end."""
    assert trace_id_of(value.encode()) == TRACE


@pytest.mark.parametrize(
    "value",
    [
        "",
        GOOD.upper(),
        GOOD + "\n",
        GOOD + "-",
        GOOD + "-00",
        " " + GOOD,
        GOOD[:-1],
        GOOD.replace("-", "_"),
        GOOD.replace("00-4", "ff-4"),
        GOOD.replace("00-4", "0g-4"),
        GOOD.replace("00-4", "0-4"),
        GOOD.replace(TRACE, "0" * 32),
        GOOD.replace(TRACE, TRACE[:-1]),
        GOOD.replace("00f067aa0ba902b7", "0" * 16),
        GOOD.replace("00f067aa0ba902b7", "00f067aa0ba902bz"),
        f"01-{TRACE}-00f067aa0ba902b7-01.what",
        f"{GOOD},{GOOD}",
    ],
)
def test_what_is_no_trace(value: str) -> None:
    """Anything the specification calls invalid, down to the letter case."""
    assert trace_id_of(value.encode()) is None


@given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f]{2}(-[0-9a-f]+){3}", fullmatch=True))
def test_a_trace_id_is_always_plain(value: bytes) -> None:
    """Whatever a caller sends, what comes out is 32 digits of its own."""
    found = trace_id_of(value)

    assert found is None or (len(found) == 32 and found.encode() in value)
