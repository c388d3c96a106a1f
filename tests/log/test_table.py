"""The table over the embedded log: what it holds, when it is whole, when it is fresh, whom it wakes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from libs.log.contract import Log, Record
from libs.log.sqlite import SqliteLog
from libs.log.table import FRESH_S, Table
from libs.mail.codec import Undecodable
from libs.runtime.clock import SystemClock
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.log.contract import put

TOPIC = "recipients"


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    async with SqliteLog(tmp_path / "log.db", partitions=3, clock=SystemClock()) as log:
        yield log


def number(record: Record) -> int | None:
    """Values are decimal numbers; b"drop" drops the key."""
    assert record.value is not None
    if record.value == b"drop":
        return None
    try:
        return int(record.value)
    except ValueError as error:
        raise Undecodable("no number") from error


class Seen:
    """What the callbacks were told."""

    def __init__(self) -> None:
        self.quarantined: list[Record] = []
        self.changed: list[Record] = []


def table_of(
    log: Log, clock: Clock, seen: Seen, decode: Callable[[Record], int | None] = number
) -> Table[int]:
    return Table(
        log, TOPIC, range(3), decode, clock,
        quarantined=seen.quarantined.append, changed=seen.changed.append,
    )  # fmt: skip


@asynccontextmanager
async def running(table: Table[int]) -> AsyncIterator[None]:
    task = asyncio.create_task(table.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await table.caught_up()
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def test_a_table_holds_the_newest_of_each_key(log: SqliteLog) -> None:
    """After caught_up everything stored before is in it, of every partition; later records follow."""
    for turn in range(300):
        await put(log, TOPIC, turn % 3, b"k%d" % (turn % 30), b"%d" % turn)
    seen = Seen()
    table = table_of(log, Clock(), seen)
    async with running(table):
        assert dict(table.items()) == {b"k%d" % key: 270 + key for key in range(30)}
        assert len(seen.changed) == 300
        await put(log, TOPIC, 0, b"new", b"1")
        await until(lambda: table.get(b"new") == 1)
        assert table.get(b"never") is None


async def test_tombstones_drop(log: SqliteLog) -> None:
    """A tombstone, and a record that decodes to None, drop their key; a later record brings it back."""
    for key, value in ((b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"a", None), (b"b", b"drop")):
        await put(log, TOPIC, 1, key, value)
    table = table_of(log, Clock(), Seen())
    async with running(table):
        assert dict(table.items()) == {b"c": 3}
        await put(log, TOPIC, 1, b"a", b"4")
        await put(log, TOPIC, 1, b"c", None)
        await until(lambda: dict(table.items()) == {b"a": 4})


async def test_undecodable_records_are_stepped_over(log: SqliteLog) -> None:
    """They are handed to `quarantined`, what was known of their key stays, their neighbours go on."""
    for key, value in ((b"a", b"1"), (b"a", b"x"), (b"b", b"y"), (b"c", b"3")):
        await put(log, TOPIC, 2, key, value)
    seen = Seen()
    table = table_of(log, Clock(), seen)
    async with running(table):
        assert dict(table.items()) == {b"a": 1, b"c": 3}
        assert [(each.key, each.value) for each in seen.quarantined] == [(b"a", b"x"), (b"b", b"y")]
        assert [each.key for each in seen.changed] == [b"a", b"c"]
        await put(log, TOPIC, 2, b"b", b"2")
        await until(lambda: table.get(b"b") == 2)


async def test_an_empty_topic_is_caught_up(log: SqliteLog) -> None:
    """A table of a topic without records is whole at once."""
    table = table_of(log, Clock(), Seen())
    async with running(table):
        assert dict(table.items()) == {}
        assert all(table.fresh(partition) for partition in range(3))


async def test_a_table_is_fresh_while_the_log_answers(log: SqliteLog) -> None:
    """Fresh: read to the end within FRESH_S. Empty batches renew it; when they stop, it ends."""
    clock = Clock()
    table = table_of(log, clock, Seen())
    assert not table.fresh(0)
    async with running(table):
        clock.advance(FRESH_S - 0.1)
        assert table.fresh(1)
        clock.advance(0.2)
        assert not table.fresh(1)
        await until(lambda: all(table.fresh(partition) for partition in range(3)))
    clock.advance(FRESH_S + 0.1)
    assert not any(table.fresh(partition) for partition in range(3))
    assert not table.fresh(99)


async def test_a_partition_that_lags_is_not_fresh(log: SqliteLog) -> None:
    """Each partition is fresh by itself: batches that do not reach the end prove nothing."""
    clock = Clock()
    await asyncio.gather(*(put(log, TOPIC, 0, b"k%d" % turn, b"1") for turn in range(1200)))
    folded: list[bool] = []

    def decode(_: Record) -> int:
        folded.append(table.fresh(0))
        return 1

    table = table_of(log, clock, Seen(), decode)
    async with running(table):
        assert len(folded) == 1200
        assert not any(folded)
        assert table.fresh(0)


async def test_a_watcher_is_woken_once(log: SqliteLog) -> None:
    """`watch` is done at the next record of its key, a tombstone too, and at no other; a cancelled one is
    forgotten."""
    table = table_of(log, Clock(), Seen())
    async with running(table):
        first, second, other, given_up = (table.watch(key) for key in (b"a", b"a", b"b", b"a"))
        given_up.cancel()
        await put(log, TOPIC, 0, b"a", b"1")
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(first, second)
        assert table.get(b"a") == 1
        assert not other.done()
        await put(log, TOPIC, 0, b"a", b"2")
        await put(log, TOPIC, 0, b"b", None)
        async with asyncio.timeout(PATIENCE_S):
            await other
        assert not table._waiters
        again = table.watch(b"a")
        await until(lambda: table.get(b"a") == 2)
        assert not again.done()
        again.cancel()
        await asyncio.sleep(0)
        assert not table._waiters


async def test_a_bug_ends_the_table(log: SqliteLog) -> None:
    """An error that is not Undecodable is a bug: run() raises it, nothing is swallowed."""

    def buggy(_: Record) -> int:
        raise ZeroDivisionError("a bug")

    await put(log, TOPIC, 0, b"a", b"1")
    with pytest.raises(ZeroDivisionError):
        await table_of(log, Clock(), Seen(), buggy).run()
