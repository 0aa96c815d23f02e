"""The page for Prometheus, written in pieces, so that a scrape does not delay requests.

prometheus-client writes the text, 4 to 10 µs a series; a hundred services have tens of thousands.
"""

from collections.abc import Generator, Iterable, Iterator
from typing import Final, TypeVar

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

SERIES_AT_A_TIME: Final = 100
"""After this many series other work may run; one family of one service is never split."""
_END: Final = b"# EOF\n"
"""The last line of an OpenMetrics page."""

T = TypeVar("T")


class _Piece(Collector):
    """One family, in the form that prometheus-client's encoders accept."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]


def write_page(families: Iterator[Metric], accept: str) -> Generator[int, None, tuple[bytes, str]]:
    """Write the page of all `families`; several of one name become one.

    Args:
        families: made while the page is written.
        accept: value of the field, which the format depends on.

    Yields:
        How many series have been written since the last time: others may run now.

    Returns:
        The page and its content type.
    """
    encode, content_type = choose_encoder(accept)
    page: dict[str, list[bytes]] = {}
    written = 0
    is_open_metrics = False
    for family in families:
        text = encode(_Piece(family))
        if text.endswith(_END):
            is_open_metrics = True
            text = text[: -len(_END)]
        parts = page.setdefault(family.name, [])
        if parts:
            text = _without_head(text)
        parts.append(text)
        written += len(family.samples)
        if written >= SERIES_AT_A_TIME:
            yield written
            written = 0
    if written:
        yield written
    joined = b"".join(part for parts in page.values() for part in parts)
    return joined + _END if is_open_metrics else joined, content_type


def returned_by(steps: Generator[int, None, T]) -> T:
    """Take all steps at once; return what comes of them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            returned: T = end.value
            return returned


def merged(families: Iterable[Metric]) -> Iterator[Metric]:
    """Yield each family once, with the series of all of its name."""
    whole: dict[str, Metric] = {}
    for family in families:
        known = whole.setdefault(family.name, family)
        if known is not family:
            known.samples.extend(family.samples)
    yield from whole.values()


def _without_head(text: bytes) -> bytes:
    """Return a family's text without its first two lines, HELP and TYPE."""
    return text.split(b"\n", 2)[2]
