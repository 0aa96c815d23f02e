"""Token counts are found at the end of a response, whatever stands before them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.usage import KEPT_BYTES, Tail, usage_in

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 34,
    "total_tokens": 46,
    "prompt_tokens_details": {"cached_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


@pytest.mark.parametrize(
    ("end", "tokens"),
    [
        (json.dumps({"choices": [], "usage": USAGE}), (12, 34)),
        (json.dumps({"usage": USAGE, "service_tier": None}), (12, 34)),
        (json.dumps({"usage": dict(reversed(USAGE.items()))}), (12, 34)),
        ('{"usage" : {\n "prompt_tokens" : 1 ,\n "completion_tokens" : 2 } }', (1, 2)),
        ('{"usage":{"prompt_tokens":8,"total_tokens":8}}', (8, 0)),
        ('{"usage":{"input_tokens":3,"output_tokens":4}}', (3, 4)),
        ('data: {"usage":null}\n\ndata: {"usage":{"prompt_tokens":1}}\n\ndata: [DONE]', (1, 0)),
        # Some servers repeat the counts in each event, as they grow.
        ('data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":{"output_tokens":9}}\n\n', (0, 9)),
        ('{"usage":{"prompt_tokens":1,"completion_tokens":2},"extra":{"usage":null}}', (1, 2)),
        (json.dumps({"content": '"usage":{"prompt_tokens":1}'}), None),
        ('{"usage":null}', None),
        ('{"usage":{}}', None),
        ('{"usage":"none"}', None),
        ('{"usage":{"prompt_tokens":-1,"completion_tokens":1.5}}', None),
        ('{"usage":{"prompt_tokens":9999999999999}}', None),
        ('{"usage":{"prompt_tokens":1e9}}', None),
        ("", None),
        ('"usage"', None),
        ('"usage":{"prompt_tok', None),
    ],
)  # fmt: skip
def test_the_last_usage_counts(end: str, tokens: tuple[int, int] | None) -> None:
    """In a JSON response and in the last event of a stream; never one that a text quotes."""
    assert usage_in(end.encode()) == tokens


@given(st.binary(max_size=200))
def test_any_bytes_are_searched(end: bytes) -> None:
    """Nothing that a service sends is an error."""
    assert usage_in(b'"usage":{' + end) is None or b"_tokens" in end


@given(st.lists(st.binary(max_size=3 * KEPT_BYTES), max_size=20), st.integers(1, 4))
def test_a_tail_is_the_end_of_a_body(pieces: list[bytes], together: int) -> None:
    """However the body arrives; and no more than twice that is kept meanwhile."""
    tail = Tail()
    for at in range(0, len(pieces), together):
        tail.add(pieces[at : at + together])
        assert sum(map(len, tail._pieces)) <= 2 * KEPT_BYTES

    assert tail.last_bytes() == b"".join(pieces)[-KEPT_BYTES:]


def test_a_tail_of_many_small_pieces_has_few_objects() -> None:
    """A byte is 34 bytes in memory when it is an object of its own."""
    tail = Tail()
    for _ in range(KEPT_BYTES):
        tail.add([b"x"])
        assert len(tail._pieces) <= 64

    assert tail.last_bytes() == b"x" * KEPT_BYTES


def test_nothing_is_kept_of_a_compressed_body() -> None:
    """Nobody could read it."""
    tail = Tail(is_readable=False)
    tail.add([b"x"])

    assert tail.last_bytes() == b""
