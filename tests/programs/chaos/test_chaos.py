"""The short form of `make chaos`."""

from pathlib import Path

from tests.programs.chaos.books import Books, Deed
from tests.programs.chaos.campaign import campaign


async def test_no_response_goes_astray(tmp_path: Path) -> None:
    """Three thousand exchanges with a service that behaves at random, each known by its id."""
    books = await campaign(3000, 7, tmp_path)
    assert books.wrong == []
    assert books.exchanges == 3000
    assert set(books.deeds.values()) == set(Deed)
    assert books.ended["200"] > 1500


def test_what_goes_astray_is_noticed() -> None:
    """Another's response, another's body, a cut one that looks whole, a POST sent twice."""
    books = Books()
    for number, deed in ((5, Deed.ANSWER), (6, Deed.CUT), (6, Deed.CUT)):
        books.arrived(number, b"POST", deed)
    books.got(5, 200, b"6", b"6.", is_ours=False)
    books.got(5, 200, b"5", b"6.", is_ours=False)
    books.got(5, 200, b"5", b"", is_ours=False)
    books.got(6, 200, b"6", b"6." + b"x" * 6, is_ours=False)
    books.got(6, 502, b"", b"whatever", is_ours=True)
    assert len(books.wrong) == 5
