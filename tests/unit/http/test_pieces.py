"""Bytes in pieces: each limit from both sides."""

import pytest

from gateway.http.pieces import gathered, joined_if_small


@pytest.mark.parametrize(("size", "joined"), [(16 * 1024, True), (16 * 1024 + 1, False)])
def test_pieces_are_joined_up_to_one_record(size: int, joined: bool) -> None:
    """16 KiB are copied, one more are not."""
    pieces = [b"a", b"b" * (size - 1)]

    assert joined_if_small(pieces) == (b"".join(pieces) if joined else None)


@pytest.mark.parametrize(("size", "joined"), [(5461, True), (5462, False)])
def test_three_pieces_are_joined_up_to_one_record(size: int, joined: bool) -> None:
    """As two are."""
    pieces = [b"a" * size] * 3

    assert joined_if_small(pieces) == (b"".join(pieces) if joined else None)


@pytest.mark.parametrize(
    ("count", "size", "fragmented"),
    [(1000, 511, True), (1000, 512, False), (17, 2, True), (16, 2, False)],
)
def test_many_small_pieces_are_gathered(count: int, size: int, fragmented: bool) -> None:
    """More than 16, below half a KiB on average."""
    pieces = [b"a" * size] * count

    assert gathered(pieces) == ([b"".join(pieces)] if fragmented else pieces)


def test_a_single_piece_is_never_copied() -> None:
    """It is handed back as it is, however large."""
    piece = b"a" * 100_000

    assert joined_if_small([piece]) is piece
