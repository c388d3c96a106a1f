"""What the metrics say of a log: how fast it acknowledges, how far each follower is behind."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from libs.log.contract import BEGIN, Misconfigured
from libs.log.sqlite import SqliteLog
from libs.runtime.clock import SystemClock
from libs.runtime.clocks import trusts_itself
from libs.runtime.measured import MeasuredLog
from libs.runtime.metrics import Metrics
from tests.helpers.clock import Clock

TOPIC = {"topic": "queue"}


@asynccontextmanager
async def measured(folder: Path, clock: Clock) -> AsyncIterator[tuple[MeasuredLog, Metrics]]:
    metrics = Metrics()
    async with SqliteLog(folder / "log.sqlite", partitions=2, clock=SystemClock()) as log:
        yield MeasuredLog(log, clock, metrics), metrics


async def test_appends(tmp_path: Path) -> None:
    """What is acknowledged is timed; what is not is counted by its error, and still raised."""
    async with measured(tmp_path, Clock()) as (log, metrics):
        assert trusts_itself(log)
        await log.append("queue", 0, b"k", b"v", within=10)
        with pytest.raises(Misconfigured):
            await log.append("queue", 7, b"k", b"v", within=10)
        sample = metrics.registry.get_sample_value
        assert sample("backupmx_append_seconds_count", TOPIC) == 1
        assert sample("backupmx_append_errors_total", {**TOPIC, "error": "Misconfigured"}) == 1


async def test_a_follower_falls_behind_and_catches_up(tmp_path: Path) -> None:
    """Records count those not yet read; seconds are since the end of the slowest partition was seen; who has
    stopped following is behind nobody."""
    clock = Clock()
    async with measured(tmp_path, clock) as (log, metrics):

        def lag() -> tuple[float | None, float | None]:
            sample = metrics.registry.get_sample_value
            return tuple(sample(f"backupmx_consumer_lag_{unit}", TOPIC) for unit in ("records", "seconds"))

        assert lag() == (None, None)
        for value in (b"1", b"2"):
            await log.append("queue", 1, value, value, within=10)
        async with aclosing(log.follow("queue", {0: BEGIN, 1: BEGIN})) as batches:
            seen = set()
            async for batch in batches:
                seen.add(batch.partition)
                if len(seen) == 2 and batch.position >= batch.end:
                    break
            assert lag() == (0, 0)
            clock.advance(30)
            assert lag() == (0, 30)  # nothing was heard of it: the log may be away
            while (await anext(batches)).partition != 0:
                continue
            assert lag() in ((0, 30), (0, 0))  # partition 1 as well, or not yet
        assert lag() == (0, 0)
