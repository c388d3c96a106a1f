"""Counters and histograms that only the event loop writes: without locks they cost a mail a third.

prometheus_client takes a lock at each step, for programs of many threads; what is counted for each mail or
reply is counted here, and becomes its families when the page is asked for (docs/decisions/0027).
"""

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Labels = tuple[str, ...]


class Tally(Collector):
    """A counter; one without labels begins at 0."""

    def __init__(self, name: str, text: str, labels: Labels, registry: CollectorRegistry | None) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._counts: dict[Labels, int] = {} if labels else {(): 0}
        if registry is not None:
            registry.register(self)

    def inc(self, *labels: str, by: int = 1) -> None:
        try:
            self._counts[labels] += by
        except KeyError:
            self._counts[labels] = by

    def begin(self, *labels: str) -> None:
        """Be there, with 0: a rate knows of the first one then."""
        self._counts.setdefault(labels, 0)

    def forget(self, *labels: str) -> None:
        self._counts.pop(labels, None)

    def describe(self) -> Iterable[CounterMetricFamily]:
        return [CounterMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[CounterMetricFamily]:
        [family] = self.describe()
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        return [family]


class _Row:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total = 0.0


class Times(Collector):
    """A histogram of seconds; one without labels begins at 0."""

    def __init__(self, name: str, text: str, labels: Labels, registry: CollectorRegistry | None) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._rows: dict[Labels, _Row] = {} if labels else {(): _Row()}
        if registry is not None:
            registry.register(self)

    def observe(self, seconds: float, *labels: str) -> None:
        row = self._rows.get(labels)
        if row is None:
            row = self._rows[labels] = _Row()
        row.counts[bisect_left(BOUNDS_S, seconds)] += 1
        row.total += seconds

    def describe(self) -> Iterable[HistogramMetricFamily]:
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        [family] = self.describe()
        for labels, row in self._rows.items():
            buckets, below = [], 0
            for bound, count in zip(
                (*(str(float(bound)) for bound in BOUNDS_S), "+Inf"), row.counts, strict=True
            ):
                below += count
                buckets.append((bound, below))
            family.add_metric(labels, buckets, row.total)
        return [family]
