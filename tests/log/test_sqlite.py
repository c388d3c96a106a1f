"""The embedded log: the conformance suite, its speed-ups, its clock."""

import _sqlite3
import asyncio
import ctypes
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest

from libs.log.contract import BEGIN, END, Log, Record
from libs.log.sqlite import SqliteLog
from libs.runtime.clock import SystemClock
from tests.helpers.clock import Clock
from tests.helpers.patience import until
from tests.log.contract import Contract, owning, put, read_to_end

DAY = 86_400.0


class SqliteLogs:
    """One file; every member is the same Log, as in solo."""

    partitions = 4
    content, compacted = "content", "queue"

    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    async def member(self) -> Log:
        return self._log

    async def compact(self, partition: int) -> None:
        await self._log.sweep(lag_s=0)


class TestSqlite(Contract):
    """The suite over the embedded log."""

    @pytest.fixture
    async def logs(self, tmp_path: Path) -> AsyncIterator[SqliteLogs]:
        async with SqliteLog(tmp_path / "log.db", partitions=4, clock=SystemClock()) as log:
            yield SqliteLogs(log)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    async with SqliteLog(tmp_path / "log.db", partitions=4, clock=SystemClock()) as log:
        yield log


# --- the file ---


async def test_a_new_log_is_new_until_it_holds_a_record(tmp_path: Path) -> None:
    """`created` holds until the first record is stored: a crash before it leaves the log new."""
    for wanted in (True, True):
        async with SqliteLog(tmp_path / "log.db", partitions=4, clock=SystemClock()) as log:
            assert log.created is wanted
    async with SqliteLog(tmp_path / "log.db", partitions=4, clock=SystemClock()) as log:
        await put(log, "domains", 0, b"@installation")
    async with SqliteLog(tmp_path / "log.db", partitions=4, clock=SystemClock()) as log:
        assert not log.created
        async with owning(log, 4) as keeper:
            await log.truncate(keeper.claims[0], "domains", 1)
        await log.sweep()
    async with SqliteLog(tmp_path / "log.db", partitions=4, clock=SystemClock()) as log:
        assert not log.created


async def test_the_file_keeps_its_number_of_partitions(tmp_path: Path) -> None:
    """N is of the file: another number in the constructor does not change it."""
    async with SqliteLog(tmp_path / "log.db", partitions=4, clock=SystemClock()):
        pass
    async with SqliteLog(tmp_path / "log.db", partitions=12, clock=SystemClock()) as log:
        assert log.partitions == 4


def ask(query: str, connection: sqlite3.Connection) -> object:
    return connection.execute(query).fetchone()


async def test_what_a_commit_means(log: SqliteLog) -> None:
    """The file is in WAL mode, commits are synced in full, and it can give space back."""
    asked = {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 2, "secure_delete": 2}
    for pragma, wanted in asked.items():
        found = await log._job(partial(ask, f"PRAGMA {pragma}"))
        assert found == (wanted,), pragma


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """Records, offsets, begins and positions are as before after closing and opening."""
    path = tmp_path / "log.db"
    async with SqliteLog(path, partitions=4, clock=SystemClock()) as log:
        for turn in range(10):
            await put(log, "content", 1, b"k%d" % turn, b"v", (("index", b"%d" % turn),))
        before = await read_to_end(log, "content", 1, 6)
        async with owning(log, 4) as keeper:
            group = keeper.ledger.group
            await log.commit(keeper.claims[1], "content", 8)
            await log.truncate(keeper.claims[1], "content", 6)
    async with SqliteLog(path, partitions=4, clock=SystemClock()) as log:
        bounds = await log.bounds("content", 1)
        assert (bounds.begin, bounds.end) == (6, 10)
        assert await read_to_end(log, "content", 1) == before
        async with log.own(group, keeper):
            await until(lambda: len(keeper.claims) == 4)
            assert await log.commit(keeper.claims[1], "content") == 8
            await log.truncate(keeper.claims[1], "content", 10)
        await log.sweep()
    async with SqliteLog(path, partitions=4, clock=SystemClock()) as log:
        assert (await put(log, "content", 1, b"next")).offset == 10


# --- group commit and followers ---


async def test_one_fsync_for_all_that_wait(log: SqliteLog) -> None:
    """Hundreds of appends at once cost a few transactions."""
    before = log.commits
    stored = await asyncio.gather(*(put(log, "content", turn % 4, b"k") for turn in range(400)))
    assert sorted({each.offset for each in stored}) == list(range(100))
    assert log.commits - before <= 20


async def test_a_follower_sees_the_same_from_memory_and_from_the_file(log: SqliteLog) -> None:
    """What a follower at the tail is handed equals what is read back later."""
    sent = [(b"a", b"1", (("h", b"x"),)), (b"b", None, ()), (b"c", b"", (("h", b""), ("h", b"2")))]
    live: list[Record] = []
    async with aclosing(log.follow("queue", {2: END})) as following:
        await anext(following)
        for key, value, headers in sent:
            await put(log, "queue", 2, key, value, [list(each) for each in headers])  # type: ignore[misc]
        async for batch in following:
            live += batch.records
            if len(live) == 3:
                break
    assert live == await read_to_end(log, "queue", 2, BEGIN)


async def test_a_slow_follower_costs_no_memory(log: SqliteLog) -> None:
    """What a follower does not take is dropped from memory beyond a few MiB and read from the file later."""
    async with aclosing(log.follow("content", {0: END, 1: END})) as following:
        await anext(following)
        for turn in range(40):
            await put(log, "content", turn % 2, b"%d" % turn, bytes(500_000))
        (follower,) = log._followers[log._tables["content"].id]
        held = sum(len(each.value or b"") for lane in follower._lanes.values() for each in lane.queued)
        assert 0 < held <= 5 * 2**20
        seen: dict[int, list[int]] = {0: [], 1: []}
        async for batch in following:
            seen[batch.partition] += [int(each.key) for each in batch.records]
            assert not batch.gap
            if sum(map(len, seen.values())) == 40:
                break
        assert seen == {0: list(range(0, 40, 2)), 1: list(range(1, 40, 2))}
        await put(log, "content", 0, b"40")
        while not (batch := await anext(following)).records:
            pass
        assert [each.key for each in batch.records] == [b"40"]


async def test_a_start_beyond_the_end_goes_on_at_begin(log: SqliteLog) -> None:
    """A position from a log that is lost misses nothing of the new one, and the gap is told."""
    await put(log, "content", 0, b"k")
    async with aclosing(log.follow("content", {0: 1000})) as following:
        batch = await anext(following)
    assert (batch.gap, [each.key for each in batch.records]) == (True, [b"k"])


async def test_a_bug_of_an_owner_does_not_split_a_group(log: SqliteLog) -> None:
    """An owner that raises is reported; the other members have their claims."""

    class Buggy:
        def gained(self, claim: object) -> None:
            raise ValueError("a bug")

        lost = gained

    reported: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what["exception"]))
    async with log.own("group", Buggy()):
        assert len(reported) == 4
        async with owning(log, 4) as keeper:
            assert len(keeper.claims) == 4
    assert len(reported) == 8


async def test_large_records_leave_nothing_in_memory(log: SqliteLog) -> None:
    """However many are stored at once: a statement that stays prepared keeps what it stored last."""
    used = ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used
    used.restype = ctypes.c_int64
    before = used()
    value = bytes(250_000)
    for together in range(1, 25):
        await asyncio.gather(*(put(log, "content", 0, b"k", value) for _ in range(together)))
    assert used() - before < 30 * 2**20


# --- the clock (rule 10) ---


async def at(path: Path, clock: Clock, *, appends: int = 1) -> tuple[list[float], bool, float]:
    """Open the log with this clock, append: the times, is the clock trusted, its difference."""
    async with SqliteLog(path, partitions=4, clock=clock) as log:
        times = [(await put(log, "queue", 0, b"k")).time for _ in range(appends)]
        return times, log.clock_trusted, log.clock_difference_s


async def test_the_log_goes_on_with_monotonic_time(tmp_path: Path) -> None:
    """Wall time at start and monotonic time since: steps of the wall clock change nothing."""
    clock = Clock()
    start = clock.wall()
    async with SqliteLog(tmp_path / "log.db", partitions=4, clock=clock) as log:
        assert (await put(log, "queue", 0, b"k")).time == start
        clock.jump_wall(-start)
        clock.advance(5)
        assert (await put(log, "queue", 0, b"k")).time == start + 5
        clock.jump_wall(2 * start)
        assert (await put(log, "queue", 0, b"k")).time == start + 5
        assert log.clock_trusted


@pytest.mark.parametrize(
    ("jump", "trusted"),
    [
        (0, True), (3600, True), (DAY - 1, True), (DAY + 1, False),
        (-119, True), (-121, False), (-1.8e9, False), (50 * DAY, False),
    ],
)  # fmt: skip
async def test_a_strange_clock_at_start_is_distrusted(tmp_path: Path, jump: float, trusted: bool) -> None:
    """A start over a day after, or over two minutes before, the newest record counts as a difference; times
    never decrease."""
    clock = Clock()
    (before,), first_trusted, difference = await at(tmp_path / "log.db", clock)
    assert (first_trusted, difference) == (True, 0)
    clock.jump_wall(jump)
    (after,), now_trusted, difference = await at(tmp_path / "log.db", clock)
    assert now_trusted is trusted
    assert difference == pytest.approx(jump)
    assert after == pytest.approx(before + max(0, jump))


async def test_distrust_lasts_a_day_over_restarts(tmp_path: Path) -> None:
    """Restarting does not end it, 24 h of the log's own time do."""
    path, clock = tmp_path / "log.db", Clock()
    await at(path, clock)
    clock.jump_wall(10 * DAY)
    for hours in (0, 1, 22):
        clock.advance(hours * 3600)
        assert (await at(path, clock))[1] is False
    clock.advance(3601)
    assert (await at(path, clock))[1] is True


async def test_a_person_ends_the_distrust(tmp_path: Path) -> None:
    """After `trust_clock` the log goes on from the wall clock, records from the future are stamped now."""
    path, clock = tmp_path / "log.db", Clock()
    (before,), _, _ = await at(path, clock)
    clock.jump_wall(100 * DAY)
    await at(path, clock)
    clock.jump_wall(-100 * DAY)
    async with SqliteLog(path, partitions=4, clock=clock) as log:
        assert [log.clock_trusted] == [False]
        assert (await put(log, "queue", 0, b"k")).time == before + 100 * DAY
        clock.advance(60)
        await log.trust_clock()
        assert log.clock_trusted
        assert (await put(log, "queue", 0, b"k")).time == before + 60
        times = [each.time for each in await read_to_end(log, "queue", 0)]
        assert times == [before, before + 60, before + 60, before + 60]
    assert (await at(path, clock))[1] is True
