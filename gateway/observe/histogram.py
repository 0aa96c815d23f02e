"""Histograms of plain integers: an observation costs two additions and a short search."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from prometheus_client.samples import Exemplar

from gateway.http.trace_context import trace_id_of

_NO_EXEMPLAR: Final[tuple[bytes, float, float]] = (b"", 0.0, 0.0)
_place_of: Final = bisect_left  # compiled, an imported name is looked up at each use


class Histogram:
    """Counts per bucket, a sum, and an example per bucket; not shared between threads."""

    __slots__ = ("_last", "bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(map(float, bounds))  # comparing with an integer takes thrice as long
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars = [_NO_EXEMPLAR] * (len(bounds) + 1)
        """Of each bucket its newest traced value: traceparent as received, value, seconds since the
        epoch."""
        self._last = 0  # bucket of the value before

    def observe(self, value: float, traceparent: bytes = b"", at: float = 0.0) -> None:
        """Count one value, and remember its trace, in place of an earlier one of its bucket.

        Args:
            value: in the unit of the bounds.
            traceparent: as received; read at the scrape, where one that is no trace is left out.
            at: when, in seconds since the epoch.
        """
        bounds, place = self.bounds, self._last
        while place < len(bounds) and value > bounds[place]:
            place += 1
        while place > 0 and value <= bounds[place - 1]:
            place -= 1
        self._last = place  # most values are near the one before
        self.counts[place] += 1
        self.total += value
        if traceparent:
            self.exemplars[place] = traceparent, value, at

    def buckets(self) -> list[tuple[str, float]]:
        """Return cumulative counts by upper bound, as the exposition wants them."""
        running = 0
        result = []
        for bound, count in zip(
            [*map(str, map(float, self.bounds)), "+Inf"], self.counts, strict=True
        ):
            running += count
            result.append((bound, float(running)))
        return result

    def exposed(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Return `buckets`, each with its exemplar if it has one."""
        result: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for bucket, (traceparent, value, at) in zip(self.buckets(), self.exemplars, strict=True):
            trace_id = trace_id_of(traceparent)
            if trace_id is None:
                result.append(bucket)
            else:
                result.append((*bucket, Exemplar({"trace_id": trace_id}, value, round(at, 3))))
        return result


class Shifted:
    """A histogram that is kept as its difference from another one.

    For values that are nearly always those of the other one: those cost nothing.
    """

    __slots__ = ("_counts", "_exemplars", "_origin", "_total")

    def __init__(self, origin: Histogram) -> None:
        self._origin = origin
        self._counts = [0] * len(origin.counts)
        self._total = 0.0
        self._exemplars = [_NO_EXEMPLAR] * len(origin.counts)

    def move(self, value: float, to: float) -> None:
        """Count `to` here, and not `value`, which the other histogram has observed."""
        bounds, counts = self._origin.bounds, self._counts
        counts[_place_of(bounds, value)] -= 1
        counts[_place_of(bounds, to)] += 1
        self._total += to - value

    def leave_out(self, value: float) -> None:
        """Do not count `value`, which the other histogram has observed."""
        self._counts[_place_of(self._origin.bounds, value)] -= 1
        self._total -= value

    def exemplify(self, value: float, traceparent: bytes, at: float) -> None:
        """Remember the trace of a value that was moved; see `Histogram`."""
        self._exemplars[_place_of(self._origin.bounds, value)] = traceparent, value, at

    def histogram(self) -> Histogram:
        """Return the histogram itself."""
        result = Histogram(self._origin.bounds)
        result.counts = [
            count + moved for count, moved in zip(self._origin.counts, self._counts, strict=True)
        ]
        result.total = max(self._origin.total + self._total, 0.0)
        result.exemplars = self._exemplars
        return result
