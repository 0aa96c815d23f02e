"""The counts of response bodies: their first byte, the pace of streams, tokens used."""

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import Metric

from gateway.observe.families import counter, histogram
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


def body_families(name: str, bodies: BodyCounts) -> Iterator[Metric]:
    """Yield the families of one service; token counts only where `usage` is on."""
    of_service = ("service",)
    yield histogram(
        "gateway_upstream_first_chunk_seconds",
        "Time from the request sent to the first byte of the response's body.",
        of_service,
        (name,),
        bodies.first_chunk.histogram(),
    )
    yield counter(
        "gateway_stream_chunks",
        "Chunks of event streams that were forwarded.",
        of_service,
        [((name,), bodies.chunks)],
    )
    yield histogram(
        "gateway_stream_pause_seconds",
        "Longest pause between two chunks of each event stream (`text/event-stream`).",
        of_service,
        (name,),
        bodies.pause,
    )
    if (usage := bodies.usage) is not None:
        yield counter(
            "gateway_llm_tokens",
            "Tokens that language models report as used (`usage: true`).",
            ("service", "type"),
            [((name, "input"), usage.input_tokens), ((name, "output"), usage.output_tokens)],
        )
        yield counter(
            "gateway_llm_usage_missing",
            "Responses without token counts (`usage: true`).",
            of_service,
            [((name,), usage.missing)],
        )
