"""Words that must not get out, and the search for them in every spelling that text may have.

A secret is made of many copies of a short word, so that a text that quotes only a part of it, as
`reprlib` and parsers do, still quotes the word.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote_from_bytes


@dataclass(frozen=True)
class Canary:
    """One secret: its name, for the report, and its word, visible ASCII."""

    name: str
    word: bytes

    def times(self, count: int) -> bytes:
        """Return a secret of `count` copies of the word."""
        return self.word * count

    @cached_property
    def spellings(self) -> dict[str, frozenset[bytes]]:
        """What to look for, by encoding, in lower case where the encoding does not care."""
        return {name: frozenset(words) for name, words in _spellings(self.word)}


def _spellings(word: bytes) -> Iterator[tuple[str, Iterable[bytes]]]:
    text = word.decode("ascii")
    yield "raw", [word]
    yield "repr", [repr(word)[2:-1].encode(), repr(text)[1:-1].encode()]
    # What a container's repr, or JSON in JSON, makes of it.
    yield "repr of repr", [repr(repr(word)[2:-1])[1:-1].encode()]
    yield "JSON", [json.dumps(text)[1:-1].encode()]
    yield "JSON of JSON", [json.dumps(json.dumps(text)[1:-1])[1:-1].encode()]
    every = b"".join(b"%%%02X" % octet for octet in word)
    quoted = quote_from_bytes(word, safe="")
    yield "percent", [every, every.lower(), quoted.encode(), _lower_percent(quoted).encode()]
    yield "hex", [word.hex().encode(), word.hex().upper().encode()]
    for before in range(3):  # where the word begins within a group of three octets
        yield f"base64 at {before}", _base64(word, before)


def _lower_percent(quoted: str) -> str:
    return re.sub("%..", lambda found: found[0].lower(), quoted)


def _base64(word: bytes, before: int) -> Iterator[bytes]:
    """Yield the digits that depend on `word` alone, `before` octets into a group."""
    first = -(-before * 8 // 6)
    end = (before + len(word)) * 8 // 6
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(bytes(before) + word)[first:end]


def leaks_in(data: bytes, canaries: Iterable[Canary]) -> list[str]:
    """Return what was found: `name as encoding: …what stands around it…`."""
    found = []
    for canary in canaries:
        for encoding, words in canary.spellings.items():
            for word in words:
                if (at := data.find(word)) >= 0:
                    around = data[max(0, at - 150) : at + len(word) + 50]
                    found.append(f"{canary.name} as {encoding}: {around!r}")
                    break
    return found
