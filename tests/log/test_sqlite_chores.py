"""Housekeeping of the embedded log: compaction, retention, space given back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from libs.log.contract import BEGIN, Gone, Superseded
from libs.log.sqlite import SqliteLog
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.log.contract import owning, put, read_to_end

HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def log(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteLog]:
    async with SqliteLog(tmp_path / "log.db", partitions=2, clock=clock) as log:
        yield log


async def offsets(log: SqliteLog, topic: str, partition: int = 0) -> list[int]:
    return [each.offset for each in await read_to_end(log, topic, partition)]


async def test_compaction_waits_for_its_lag(log: SqliteLog, clock: Clock) -> None:
    """A record supersedes once it is an hour old (min.compaction.lag.ms), not before."""
    for _ in range(3):
        await put(log, "queue", 0, b"k")
    await log.sweep()
    assert await offsets(log, "queue") == [0, 1, 2]
    clock.advance(HOUR + 1)
    await put(log, "queue", 0, b"k")
    await log.sweep()
    assert await offsets(log, "queue") == [2, 3]
    with pytest.raises(Superseded):
        await log.read("queue", 0, 1, b"k")


async def test_compaction_keeps_the_newest_of_each_key(log: SqliteLog, clock: Clock) -> None:
    """Over many rounds exactly the newest record of each key stays, in its partition only."""
    newest: dict[tuple[int, bytes], int] = {}
    for turn in range(1500):
        key, partition = b"k%d" % (turn * turn % 97), turn % 2
        stored = await put(log, "queue", partition, key) if turn % 100 else None
        if stored is None:
            await log.sweep(lag_s=0)
            clock.advance(1)
        else:
            newest[partition, key] = stored.offset
    clock.advance(1)
    await log.sweep(lag_s=0)
    for partition in (0, 1):
        wanted = sorted(offset for (of, _), offset in newest.items() if of == partition)
        assert await offsets(log, "queue", partition) == wanted


async def test_old_tombstones_go(log: SqliteLog, clock: Clock) -> None:
    """A tombstone goes two days after it was written (delete.retention.ms); its key stays gone."""
    await put(log, "queue", 0, b"a")
    await put(log, "queue", 0, b"a", None)
    await put(log, "queue", 0, b"b")
    clock.advance(DAY)
    await log.sweep()
    assert await offsets(log, "queue") == [1, 2]
    clock.advance(DAY + 1)
    await log.sweep()
    assert await offsets(log, "queue") == [2]
    with pytest.raises(Superseded):
        await log.read("queue", 0, 1, b"a")


async def test_the_newest_record_of_a_partition_stays(log: SqliteLog, clock: Clock) -> None:
    """Even an old tombstone, so that a reader sees the partition's end; it goes when a newer one is there."""
    await put(log, "queue", 0, b"a")
    await put(log, "queue", 0, b"a", None)
    clock.advance(30 * DAY)
    await log.sweep()
    await log.sweep()
    assert await offsets(log, "queue") == [1]
    await put(log, "queue", 0, b"b")
    await log.sweep()
    assert await offsets(log, "queue") == [2]


async def test_a_key_that_returns_after_its_tombstone_stays(log: SqliteLog, clock: Clock) -> None:
    """Removing tombstones never removes a later value of the key."""
    for value in (b"1", None, b"2", None, b"3"):
        await put(log, "queue", 0, b"a", value)
    clock.advance(3 * DAY)
    await log.sweep()
    assert [each.value for each in await read_to_end(log, "queue", 0)] == [b"3"]


@pytest.mark.parametrize(
    ("topic", "age_s"), [("callouts", HOUR), ("verdicts", HOUR), ("events", 7 * DAY), ("requests", 30 * DAY)]
)
async def test_ageing_topics_age(log: SqliteLog, clock: Clock, topic: str, age_s: float) -> None:
    """Records go by the log's time after the topic's retention; begin moves, offsets go on, a late
    follower is told of the gap."""
    for turn in range(1200):
        await put(log, topic, 1, b"%d" % turn) if turn % 300 == 0 else None
    clock.advance(age_s / 2)
    await put(log, topic, 1, b"young")
    clock.advance(age_s / 2 + 1)
    await log.sweep()
    assert await offsets(log, topic, 1) == [4]
    await until(lambda: log._tails[log._tables[topic].id][1].begin == 4)
    with pytest.raises(Gone):
        await log.read(topic, 1, 3, b"900")
    async with aclosing(log.follow(topic, {1: 2})) as following:
        batch = await anext(following)
    assert (batch.gap, [each.offset for each in batch.records]) == (True, [4])
    clock.advance(age_s + 1)
    await log.sweep()
    assert await offsets(log, topic, 1) == []
    assert (await put(log, topic, 1, b"next")).offset == 5


async def test_content_and_state_do_not_age(log: SqliteLog, clock: Clock) -> None:
    """Content stays until it is truncated, a compacted record until it is superseded: for years."""
    for topic in ("content", "queue", "domains", "recipients", "primaries"):
        await put(log, topic, 0, b"k")
    clock.advance(3650 * DAY)
    await log.sweep()
    for topic in ("content", "queue", "domains", "recipients", "primaries"):
        assert await offsets(log, topic) == [0]


def files(folder: Path) -> list[bytes]:
    """The file, its WAL and what else lies beside it."""
    return [path.read_bytes() for path in folder.glob("log.db*")]


async def test_truncated_content_is_off_the_disk(log: SqliteLog, tmp_path: Path) -> None:
    """After truncation and a full round neither file nor WAL holds the octets, and the file shrank."""
    secret = b"the-secret-of-a-deleted-mail"
    for turn in range(100):
        await put(log, "content", 0, b"%d" % turn, secret * 2000)
    await put(log, "content", 1, b"kept", b"kept-content" * 2000)
    grown = sum(map(len, files(tmp_path)))
    async with owning(log, 2) as keeper:
        await log.truncate(keeper.claims[0], "content", 100)
    await log.sweep()
    assert not any(secret in each for each in files(tmp_path))
    assert sum(map(len, files(tmp_path))) < grown / 10
    assert (await log.read("content", 1, 0, b"kept")).value == b"kept-content" * 2000


async def test_housekeeping_happens_by_itself(tmp_path: Path, clock: Clock) -> None:
    """Rounds run while appends go on, and none of these fails or is lost."""
    async with SqliteLog(tmp_path / "log.db", partitions=2, clock=clock, chores_every_s=0.01) as log:
        for turn in range(600):
            await put(log, "queue", 0, b"k%d" % (turn % 5))
        clock.advance(HOUR + 1)

        async def write() -> None:
            for turn in range(300):
                await put(log, "queue", 0, b"other-%d" % turn)

        await asyncio.gather(write(), write())
        async with asyncio.timeout(PATIENCE_S):
            while len(await offsets(log, "queue")) > 605:  # noqa: ASYNC110 the housekeeping is not ours
                await asyncio.sleep(0.01)
        kept = await read_to_end(log, "queue", 0, BEGIN)
        assert len([each for each in kept if each.key.startswith(b"other")]) == 600
        assert [each.offset for each in kept[:5]] == list(range(595, 600))
