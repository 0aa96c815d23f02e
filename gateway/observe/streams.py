"""What is counted of the bodies of responses: when they begin, how they go on, what they used."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from gateway.observe.histogram import Histogram, Shifted

PAUSE_BUCKETS_S: Final[Sequence[float]] = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
)  # fmt: skip


class BodyCounts:
    """What is counted of the bodies of a service's responses."""

    __slots__ = ("chunks", "first_chunk", "pause", "usage")

    def __init__(self, first_byte: Histogram) -> None:
        """Begin; `first_byte` observes when each response began."""
        self.first_chunk = Shifted(first_byte)
        """Nearly all bodies begin with their head; only the others are counted here."""
        self.chunks = 0
        """Of event streams."""
        self.pause = Histogram(PAUSE_BUCKETS_S)
        """The longest one of each event stream."""
        self.usage: UsageCounts | None = None
        """If responses are searched for token counts."""


class UsageCounts:
    """What the models of a service report to have used."""

    __slots__ = ("input_tokens", "missing", "output_tokens")

    def __init__(self) -> None:
        self.input_tokens = 0
        self.output_tokens = 0
        self.missing = 0
        """Responses that did not say."""

    def totals(self) -> dict[str, int]:
        """Return tokens of `input` and `output`, and how many responses were `missing` theirs."""
        return {"input": self.input_tokens, "output": self.output_tokens, "missing": self.missing}

    def count(self, tokens: tuple[int, int] | None) -> None:
        """Count tokens of input and output; None: the response did not say."""
        if tokens is None:
            self.missing += 1
        else:
            self.input_tokens += tokens[0]
            self.output_tokens += tokens[1]


def body_families(
    services: Iterable[tuple[str, BodyCounts]],
) -> Iterator[Metric]:
    """Yield the families of every service: name and counts."""
    one = ["service"]
    first_chunk = HistogramMetricFamily(
        "gateway_upstream_first_chunk_seconds",
        "Time from the request sent to the first byte of the response's body.",
        labels=one,
    )
    pause = HistogramMetricFamily(
        "gateway_stream_pause_seconds",
        "Longest pause between two chunks of each event stream (`text/event-stream`).",
        labels=one,
    )
    chunks = CounterMetricFamily(
        "gateway_stream_chunks", "Chunks of event streams that were forwarded.", labels=one
    )
    tokens = CounterMetricFamily(
        "gateway_llm_tokens",
        "Tokens that language models report as used (`usage: true`).",
        labels=["service", "type"],
    )
    missing = CounterMetricFamily(
        "gateway_llm_usage_missing",
        "Responses without token counts (`usage: true`).",
        labels=one,
    )
    for name, bodies in services:
        begun = bodies.first_chunk.histogram()
        first_chunk.add_metric([name], begun.exposed(), begun.total)
        pause.add_metric([name], bodies.pause.buckets(), bodies.pause.total)
        chunks.add_metric([name], bodies.chunks)
        usage = bodies.usage
        if usage is not None:
            tokens.add_metric([name, "input"], usage.input_tokens)
            tokens.add_metric([name, "output"], usage.output_tokens)
            missing.add_metric([name], usage.missing)
    yield from (first_chunk, chunks, pause)
    if missing.samples:
        yield from (tokens, missing)
