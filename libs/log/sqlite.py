"""The embedded log: one file, one process, group commit. The same contract and suite as Kafka."""

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import structlog

from libs.log import sqlite_chores
from libs.log.claims import Groups
from libs.log.contract import (
    Ambiguous,
    Batch,
    Bounds,
    Claim,
    Gone,
    Headers,
    LogError,
    Misconfigured,
    NotOwner,
    NotStored,
    Owner,
    Record,
    Stored,
    Superseded,
    Unavailable,
)
from libs.log.deadlines import Deadlines
from libs.log.sqlite_file import InUse, LogFile, Table
from libs.log.sqlite_follow import Chunks, Follower, Tail, first_since, read_one
from libs.log.sqlite_writer import Append, Chore, Committed, Failed, Job, Writer, is_content
from libs.runtime.clock import Clock
from libs.topics import TOPICS, Topic

__all__ = ["InUse", "SqliteLog"]

T = TypeVar("T")

MAX_OCTETS = 2**20  # of one record: key, value and headers; as Kafka's max.message.bytes
_BEAT_S = 0.8  # an empty batch of each followed partition at least once a second
_SWITCH_S = 0.0005  # a busy event loop must not keep the writer waiting at each of its statements (5 ms)
_KEEP_PAGES = 8_192  # free pages kept for what comes next (64 MiB); a daily round gives back all


def end_process(why: str) -> None:
    """After an I/O error nothing is known about what is on the disk, so no 250 may follow: say it and end."""
    structlog.get_logger().critical("the process ends", why=why)
    sys.stdout.flush()
    os._exit(74)  # EX_IOERR


class SqliteLog:
    """`async with SqliteLog(path, partitions=12, clock=SystemClock()) as log`, or start() and close().

    `partitions` counts for a new file only: an existing one keeps its number (attribute `partitions`).
    `created`: no record was ever stored here. Content is refused (NotStored) when less than `reserve` (share
    of the disk, octets; the larger counts) is free; `free()` gives the free and all octets of the disk; while
    there is room it is asked once in `free_every_s`, since asking costs a tenth of storing a mail.
    `page_limit`: pages of 8 KiB that the file may have, 0 without limit. `fatal(why)` is called, in the
    writer's thread, when the file can no longer be written; it should not return.
    start() raises InUse (another process has it) and Misconfigured (it is no log of ours).
    """

    def __init__(
        self,
        path: Path,
        *,
        partitions: int,
        clock: Clock,
        topics: Mapping[str, Topic] = TOPICS,
        reserve: tuple[float, int] = (0.05, 2**30),
        free: Callable[[], tuple[int, int]] | None = None,
        free_every_s: float = 1.0,
        page_limit: int = 0,
        fatal: Callable[[str], None] = end_process,
        chores_every_s: float = 60.0,
    ) -> None:
        self.path, self.partitions = path, partitions
        self.created = False
        self._clock, self._topics, self._page_limit = clock, topics, page_limit
        self._reserve, self._free, self._fatal = reserve, free or self._disk, fatal
        self._chores_every_s = chores_every_s
        self._followers: dict[int, list[Follower]] = {}
        self._tails: dict[int, dict[int, Tail]] = {}
        self._tables: dict[str, Table] = {}
        self._chunks = Chunks()
        self._open = False
        self._free_every_s, self._room_until = free_every_s, 0.0
        self._turn: list[Append | Job | Chore] = []
        self._deadlines = Deadlines()

    async def __aenter__(self) -> "SqliteLog":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        file = LogFile(self.path, self.partitions, self._topics, self._clock, self._page_limit)
        self._file, self.partitions, self._tables = file, file.partitions, file.tables
        self.created = not any(file.ends.values())
        self._positions = dict(file.positions)
        for table in file.tables.values():
            self._followers[table.id] = []
            self._tails[table.id] = {
                partition: Tail(
                    file.begins.get(table.number(partition), 0), file.ends.get(table.number(partition), 0)
                )
                for partition in range(self.partitions)
            }
        self._loop = asyncio.get_running_loop()
        self._groups = Groups(self.partitions, self._owner_failed)
        self._reader = file.reader()
        self._writer = Writer(file, self._told, self._fatal, self._chores, self._chores_every_s)
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(min(_SWITCH_S, self._switch_s))
        self._open = True
        self._beat()

    async def close(self) -> None:
        """What was appended before is stored first; followers end with Unavailable."""
        if not self._open:
            return
        self._open = False
        self._beating.cancel()
        for followers in self._followers.values():
            for follower in followers:
                follower.wake()
        self._reader.close()
        self._hand_over()
        await asyncio.to_thread(self._writer.stop)
        sys.setswitchinterval(self._switch_s)

    # --- the clock (rule 10), and what it costs ---

    @property
    def clock_difference_s(self) -> float:
        """Wall time at start minus the time of the newest record; 0 for a new log."""
        return self._file.clock.difference_s

    @property
    def clock_trusted(self) -> bool:
        """False for 24 h after a start whose wall time was over 1 d after, or over 2 min before, the newest
        record; restarts do not shorten it."""
        return self._file.clock.now() >= self._file.distrust_until

    async def trust_clock(self) -> None:
        """A person looked at the clock and found it right: the distrust ends. Records that a wrong clock
        stamped later than now are stamped now, and the log's clock goes on from now."""
        wall = self._clock.wall()
        late = self._file.clock.now() > wall

        def settle(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM meta WHERE name = 'distrust'")
            if late:
                for name in ("ends", *(table.name for table in self._tables.values())):
                    connection.execute(f"UPDATE {name} SET time = ? WHERE time > ?", (wall, wall))
                self._file.clock.set_back(wall)

        await self._job(settle)
        self._file.distrust_until = 0.0

    @property
    def commits(self) -> int:
        """Transactions so far: each stored, with one fsync, all that waited."""
        return self._writer.commits

    # --- the contract ---

    async def append(
        self,
        topic: str,
        partition: int,
        key: bytes,
        value: bytes | None,
        *,
        within: float,
        headers: Headers = (),
        claim: Claim | None = None,
    ) -> Stored:
        if claim is not None and not claim.held():
            raise NotOwner(f"{claim.group} {claim.partition}")
        table = self._table(topic, partition)
        packed = tuple((name, content) for name, content in headers)
        size = len(key) + len(value or b"") + sum(len(name) + len(content) for name, content in packed)
        if size > MAX_OCTETS:
            raise NotStored(f"a record of {size} octets; the largest has {MAX_OCTETS}")
        if not self._open:
            raise NotStored("the log is closed")
        if is_content(table):
            self._refuse_without_room()
        future: asyncio.Future[Stored] = self._loop.create_future()
        self._deadlines.watch(future, within)
        self._put(Append(table, partition, key, value, packed, future))
        try:
            return await future
        except TimeoutError:
            raise Ambiguous("not acknowledged in time") from None

    def follow(self, topic: str, starts: Mapping[int, int]) -> AsyncGenerator[Batch, None]:
        table = self._table(topic, *starts)
        return self._follow(Follower(table, starts, self._tails[table.id], self._chunks))

    async def _follow(self, follower: Follower) -> AsyncGenerator[Batch, None]:
        followers = self._followers[follower.table.id]
        followers.append(follower)
        try:
            while self._open:
                for batch in follower.take(self._reader):
                    yield batch
                await follower.wait()
        finally:
            followers.remove(follower)
        raise Unavailable("the log is closed")

    async def read(self, topic: str, partition: int, offset: int, key: bytes) -> Record:
        table = self._table(topic, partition)
        tail = self._tails[table.id][partition]
        if not self._open:
            raise Unavailable("the log is closed")
        if offset < tail.begin:
            raise Gone(f"{topic} {partition} begins at {tail.begin}, {offset} is gone")
        if offset >= tail.end:
            raise Unavailable(f"{topic} {partition} ends at {tail.end}, {offset} is not there")
        record = read_one(self._reader, table, partition, offset)
        if record is None:
            raise Superseded(f"{topic} {partition} {offset}: a newer record has its key")
        if record.key != key:
            raise Unavailable(f"{topic} {partition} {offset} has another key")
        return record

    @asynccontextmanager
    async def own(self, group: str, owner: Owner) -> AsyncIterator[None]:
        member = self._groups.join(group, owner)
        try:
            yield
        finally:
            self._groups.leave(member)

    async def commit(self, claim: Claim, topic: str, offset: int | None = None) -> int | None:
        table = self._table(topic, claim.partition)
        if not claim.held():
            raise NotOwner(f"{claim.group} {claim.partition}")
        place = (claim.group, table.id, claim.partition)
        if offset is not None:
            row = (*place, offset)
            await self._job(lambda to: to.execute("REPLACE INTO positions VALUES (?, ?, ?, ?)", row))
            self._positions[place] = offset
        return self._positions.get(place)

    async def bounds(self, topic: str, partition: int, since: float = 0) -> Bounds:
        table = self._table(topic, partition)
        if not self._open:
            raise Unavailable("the log is closed")
        tail = self._tails[table.id][partition]
        found = first_since(self._reader, table, partition, tail.begin, tail.end, since)
        free, disk = self._free()
        return Bounds(tail.begin, tail.end, found, 1 - free / disk)

    async def truncate(self, claim: Claim, topic: str, before: int) -> None:
        table, partition = self._table(topic, claim.partition), claim.partition
        if not claim.held():
            raise NotOwner(f"{claim.group} {claim.partition}")

        def move(connection: sqlite3.Connection) -> int:
            now = sqlite_chores.marks(connection, table, partition)
            end = connection.execute(
                "SELECT next FROM ends WHERE id = ?", (table.number(partition),)
            ).fetchone()
            begin: int = max(now.begin, min(before, end[0] if end else 0))
            sqlite_chores.mark(connection, table, partition, now._replace(begin=begin))
            return begin

        begin: int = await self._job(move)
        self._moved(table, partition, begin)

    # --- beyond the contract ---

    async def sweep(self, *, lag_s: float | None = None) -> None:
        """All housekeeping, now: compaction (of records older than `lag_s`; None: as each topic says),
        retention, deletion of what was truncated, free pages back to the file system."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._put(Chore(self._round(lag_s, 0), future))
        await future

    # --- within ---

    def _table(self, topic: str, *partitions: int) -> Table:
        table = self._tables.get(topic)
        if table is None:
            raise Misconfigured(f"there is no topic {topic}")
        for partition in partitions:
            if not 0 <= partition < self.partitions:
                raise Misconfigured(f"{topic} has no partition {partition}")
        return table

    def _put(self, operation: Append | Job | Chore) -> None:
        """To the writer, with all else of this turn of the event loop: it wakes once for larger groups."""
        if not self._turn:
            self._loop.call_soon(self._hand_over)
        self._turn.append(operation)

    def _hand_over(self) -> None:
        operations, self._turn = self._turn, []
        for operation in operations:
            self._writer.put(operation)

    def _disk(self) -> tuple[int, int]:
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize, (disk.f_blocks - disk.f_bfree + disk.f_bavail) * disk.f_frsize

    def _refuse_without_room(self) -> None:
        if (now := self._loop.time()) < self._room_until:
            return
        free, disk = self._free()
        share, octets = self._reserve
        if free < max(share * disk, octets):
            raise NotStored(f"{free} octets are free on the disk of the log: too few for content")
        self._room_until = now + self._free_every_s

    async def _job(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if not self._open:
            raise Unavailable("the log is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(Job(work, future))
        try:
            return await future
        except (NotStored, Ambiguous) as error:
            raise Unavailable(str(error)) from error

    def _chores(self, daily: bool) -> Iterator[int]:
        """A round of housekeeping, started by the writer."""
        return self._round(None, 0 if daily else _KEEP_PAGES)

    def _round(self, lag_s: float | None, keep: int) -> Iterator[int]:
        return sqlite_chores.everything(
            self._file.writer,
            self._tables.values(),
            self.partitions,
            lambda table, partition: self._tails[table.id][partition].end,
            self._file.clock.now(),
            self._moved_by_chore,
            lag_s=lag_s,
            keep=keep,
        )

    def _told(self, what: Committed | Failed) -> None:
        """The writer's news, in the event loop."""
        if isinstance(what, Failed):
            self._failed(what.operations, what.error)
            return
        for operation, record in what.appends:
            if not operation.future.done():
                operation.future.set_result(Stored(record.offset, record.time))
        for table, partition, records in what.runs:
            self._tails[table.id][partition].end = records[-1].offset + 1
            size = sum(len(record.value or b"") for record in records)
            for follower in self._followers[table.id]:
                follower.feed(partition, records, size)
        for job, result in what.jobs:
            if not job.future.done():
                job.future.set_result(result)

    @staticmethod
    def _failed(operations: Any, error: LogError) -> None:
        for operation in operations:
            if not operation.future.done():
                operation.future.set_exception(error)

    def _moved_by_chore(self, table: Table, partition: int, begin: int) -> None:
        self._loop.call_soon_threadsafe(self._moved, table, partition, begin)

    def _moved(self, table: Table, partition: int, begin: int) -> None:
        tail = self._tails[table.id][partition]
        tail.begin = max(tail.begin, begin)
        for follower in self._followers[table.id]:
            follower.wake()

    def _beat(self) -> None:
        for followers in self._followers.values():
            for follower in followers:
                follower.beat()
        self._beating = self._loop.call_later(_BEAT_S, self._beat)

    def _owner_failed(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "an owner raised", "exception": error})
