"""Counters and histograms without locks say the same as prometheus_client's own."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from libs.runtime.tally import BOUNDS_S, Tally, Times

SECONDS = (0.0, 0.001, 0.0011, 0.3, 29.9, 30.0, 31.0, 5000.0)


def test_a_histogram_reads_like_prometheus_clients() -> None:
    """Each bucket, sum and count, also of values that lie on a bound or above the last."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    times = Times("x_seconds", "Text", ("topic",), ours)
    histogram = Histogram("x_seconds", "Text", ("topic",), registry=theirs, buckets=BOUNDS_S)
    for seconds in SECONDS:
        times.observe(seconds, "queue")
        histogram.labels("queue").observe(seconds)
    assert _samples(ours) == _samples(theirs)
    Times("y_seconds", "Text", (), ours)
    Histogram("y_seconds", "Text", (), registry=theirs, buckets=BOUNDS_S)
    assert _samples(ours) == _samples(theirs)


def test_a_counter_reads_like_prometheus_clients() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally, counter = (
        Tally("x_total", "Text", ("domain",), ours),
        Counter("x_total", "Text", ("domain",), registry=theirs),
    )
    tally.inc("a.example")
    tally.inc("a.example", by=2)
    counter.labels("a.example").inc(3)
    tally.begin("b.example")
    tally.begin("a.example")
    counter.labels("b.example")
    tally.inc("c.example")
    tally.forget("c.example")
    assert _samples(ours) == _samples(theirs)
    assert ours.get_sample_value("x_total", {"domain": "c.example"}) is None
    Tally("y_total", "Text", (), ours)
    assert ours.get_sample_value("y_total") == 0


def _samples(registry: CollectorRegistry) -> set[tuple[str, str, tuple[tuple[str, str], ...], float]]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (family.name, sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in families
        for sample in family.samples
    }
