"""Chunked bodies: what is written can be read, however it is cut, and its overhead is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.chunked import LAST_CHUNK, ChunkedReader, ChunkError, chunk
from tests.support.upstream import unchunked


@given(st.lists(st.binary(min_size=1, max_size=50)))
def test_chunks_can_be_undone(pieces: list[bytes]) -> None:
    """Whatever octets are wrapped, the same come out."""
    assert unchunked(b"".join(map(chunk, pieces)) + LAST_CHUNK) == b"".join(pieces)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5), st.integers(1, 40), st.binary())
def test_our_own_chunks_are_read(pieces: list[bytes], step: int, behind: bytes) -> None:
    """In reads of any size; what is behind the end is handed back."""
    stream = b"".join(map(chunk, pieces)) + LAST_CHUNK
    reader = ChunkedReader(100)
    found: list[bytes] = []
    at = 0
    while len(stream) - at > step:
        assert reader.read(stream[at : at + step], found) == b""
        assert not reader.ended
        at += step

    assert reader.read(stream[at:] + behind, found) == behind
    assert reader.ended
    assert all(found)
    assert b"".join(found) == b"".join(pieces)


@pytest.mark.parametrize("size", [1, 10, 255, 511, 512, 513, 70_000])
@pytest.mark.parametrize("written", ["%x", "%X", "%08x"])
def test_a_size_means_the_same_however_it_is_written(size: int, written: str) -> None:
    """Small ones are looked up, others worked out."""
    data = b"x" * size
    found: list[bytes] = []
    ChunkedReader(100).read((written % size).encode() + b"\r\n" + data + b"\r\n", found)
    assert found == [data]
    assert chunk(data) == b"%x\r\n%b\r\n" % (size, data)


def _is_refused(reader: ChunkedReader, pieces: list[bytes]) -> bool:
    try:
        for piece in pieces:
            reader.read(piece, [])
    except ChunkError:
        return True
    return False


@pytest.mark.parametrize("begin", [b"1;a=", b"0\r\nA: "])
def test_overhead_has_a_limit(begin: bytes) -> None:
    """Extensions and trailers end, or are refused, in one read or in many."""
    for size, refused in ((100, False), (101, True)):
        stream = begin + b"x" * (size - len(begin) - 2) + b"\r\n"
        for step in (1, size):
            reader = ChunkedReader(100)
            pieces = [stream[at : at + step] for at in range(0, size, step)]
            assert _is_refused(reader, pieces) == refused


def test_a_byte_of_the_body_makes_room_for_overhead() -> None:
    """Many chunks with an extension each are a body, not an attack."""
    reader = ChunkedReader(20)
    pieces: list[bytes] = []
    reader.read(b"1;a=bcdef\r\nx\r\n" * 50, pieces)

    assert b"".join(pieces) == b"x" * 50
