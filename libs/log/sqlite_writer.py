"""The one thread that writes the file of the embedded log: group commit, checkpoints, housekeeping.

Everything that waits is taken at once into one transaction with one fsync. Statements take many rows, because
each one costs a hand-over of the interpreter lock to the event loop and back.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from libs.log.contract import Ambiguous, LogError, NotStored, Record, Stored
from libs.log.sqlite_file import PAGE, SHIFT, LogFile, Table

_GROUP = 1000  # operations in one transaction at most
_GROUP_OCTETS = 8 * 2**20
# Where so many came at once others follow: they have so long to share the next transaction. Each transaction
# costs as much as the records of some mails. Who comes alone does not wait.
_CROWD, _GATHER_S = 8, 0.004
_CHECKPOINT_OCTETS = 8 * 2**20
_DAY_S = 86_400.0
_SLICE_EVERY_S = 0.05  # housekeeping under load: one slice in this time

_pack = msgspec.msgpack.Encoder().encode


class Append:
    """One record on its way. With `future` done nobody waits for it any more; it need not be stored."""

    __slots__ = ("future", "headers", "key", "partition", "table", "value")

    def __init__(
        self,
        table: Table,
        partition: int,
        key: bytes,
        value: bytes | None,
        headers: tuple[tuple[str, bytes], ...],
        future: "asyncio.Future[Stored]",
    ) -> None:
        self.table, self.partition, self.future = table, partition, future
        self.key, self.value, self.headers = key, value, headers


class Job:
    """Something else to do inside the next transaction; `work` may run again after a failed one."""

    __slots__ = ("future", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Any], future: "asyncio.Future[Any]") -> None:
        self.work, self.future = work, future


class Chore:
    """Housekeeping that somebody waits for: all of it, now."""

    __slots__ = ("future", "slices")

    def __init__(self, slices: Iterator[int], future: "asyncio.Future[None]") -> None:
        self.slices, self.future = slices, future


class Committed(NamedTuple):
    """What one transaction stored: `runs` of records by table and partition, in the order of offsets."""

    appends: Sequence[tuple[Append, Record]]
    runs: Sequence[tuple[Table, int, Sequence[Record]]]
    jobs: Sequence[tuple[Job, Any]]


class Failed(NamedTuple):
    operations: Sequence[Append | Job | Chore]
    error: LogError


class Writer:
    """`told(Committed | Failed)` is called in the event loop, once a transaction.

    `chores(daily)` makes a round of housekeeping: slices, each giving the pages it wrote, about.
    """

    def __init__(
        self,
        file: LogFile,
        told: Callable[[Committed | Failed], None],
        fatal: Callable[[str], None],
        chores: Callable[[bool], Iterator[int]],
        chores_every_s: float,
    ) -> None:
        self._file, self._connection, self._told, self._fatal = file, file.writer, told, fatal
        self._new_chores, self._chores_every_s = chores, chores_every_s
        self._chores: Iterator[int] = iter(())
        self._chores_at = time.monotonic() + chores_every_s
        self._busy_chores = False
        self._slice_at = 0.0
        self._daily, self._daily_at = False, time.monotonic() + _DAY_S
        self._waiting: queue.SimpleQueue[Append | Job | Chore | None] = queue.SimpleQueue()
        self._ends = dict(file.ends)
        self._unchecked = 0  # octets in the WAL, about
        self._broken = ""
        self._crowded = False
        self.commits = 0
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def put(self, operation: Append | Job | Chore) -> None:
        self._waiting.put(operation)

    def stop(self) -> None:
        """Everything put before is done, then the file is closed. Blocks."""
        self._waiting.put(None)
        self._thread.join()

    # --- in the thread ---

    def _run(self) -> None:
        try:
            going = True
            while going:
                group, going = self._take()
                self._crowded = len(group) >= _CROWD
                chores = [operation for operation in group if isinstance(operation, Chore)]
                if writes := [each for each in group if not isinstance(each, Chore)]:
                    self._commit(writes)
                for chore in chores:
                    self._all(chore)
                self._keep_house()
        except BaseException as error:
            self._break(f"{type(error).__name__}: {error}")
            raise
        finally:
            self._file.close()

    def _take(self) -> tuple[list[Append | Job | Chore], bool]:
        """What waits, in order; at least one unless it is time for housekeeping. False: it was the last."""
        group: list[Append | Job | Chore] = []
        size = 0
        next_slice = self._slice_at if self._busy_chores else self._chores_at
        patience = max(0.0, next_slice - time.monotonic())
        try:
            operation = self._waiting.get(timeout=patience) if patience else self._waiting.get_nowait()
            if self._crowded:
                time.sleep(_GATHER_S)
            while True:
                if operation is None:
                    return group, False
                group.append(operation)
                if isinstance(operation, Append):
                    size += len(operation.value or b"")
                if len(group) >= _GROUP or size >= _GROUP_OCTETS:
                    return group, True
                operation = self._waiting.get_nowait()
        except queue.Empty:
            return group, True

    def _commit(self, group: list[Append | Job]) -> None:
        """Store all of them; with a full disk at least what is no content."""
        if self._broken:
            self._tell(Failed(group, NotStored(self._broken)))
            return
        wanted = [each for each in group if not (isinstance(each, Append) and each.future.done())]
        try:
            committed = self._transaction(wanted)
        except sqlite3.Error as error:
            if not _full(error):
                self._break(f"{error.sqlite_errorname}: {error}", wanted)
                return
            self._connection.rollback()
            refused = NotStored("the disk of the log is full")
            content = [each for each in wanted if isinstance(each, Append) and is_content(each.table)]
            if not content:
                self._tell(Failed(wanted, refused))
                return
            self._tell(Failed(content, refused))
            kept = set(map(id, content))
            self._commit([each for each in wanted if id(each) not in kept])
            return
        self._tell(committed)
        if self._unchecked > _CHECKPOINT_OCTETS:
            self.checkpoint("PASSIVE")

    def _transaction(self, group: Sequence[Append | Job]) -> Committed:
        connection = self._connection
        ends: dict[int, int] = {}
        appends: list[tuple[Append, Record]] = []
        runs: dict[int, tuple[Table, int, list[Record]]] = {}
        rows: dict[int, tuple[Table, list[Any]]] = {}
        large: list[tuple[Table, list[Any]]] = []
        now = self._file.clock.now()
        size = 0
        for operation in group:
            if isinstance(operation, Job):
                continue
            table, partition, value = operation.table, operation.partition, operation.value
            number = table.number(partition)
            offset = ends[number] if number in ends else self._ends.get(number, 0)
            ends[number] = offset + 1
            record = Record(table.topic.name, partition, offset, operation.key, value, operation.headers, now)
            appends.append((operation, record))
            if number in runs:
                runs[number][2].append(record)
            else:
                runs[number] = (table, partition, [record])
            row = (
                partition << SHIFT | offset,
                now,
                operation.key,
                _pack(operation.headers) if operation.headers else None,
                value,
            )
            if value is not None and len(value) > _LARGE_OCTETS:
                large.append((table, list(row)))
            elif table.id in rows:
                rows[table.id][1].extend(row)
            else:
                rows[table.id] = (table, list(row))
            size += PAGE + len(value or b"")
        connection.execute("BEGIN IMMEDIATE")
        for table, values in (*rows.values(), *large):
            _insert(connection, table.name, 5, values)
        if ends:
            _insert(connection, "ends", 3, [each for item in ends.items() for each in (*item, now)])
        jobs = [(each, each.work(connection)) for each in group if isinstance(each, Job)]
        connection.execute("COMMIT")
        self.commits += 1
        self._ends.update(ends)
        self._unchecked += size + 2 * PAGE
        return Committed(appends, list(runs.values()), jobs)

    def checkpoint(self, mode: str) -> None:
        """Move the WAL into the file. On a full disk it stays where it is, and the next try comes later."""
        self._unchecked = 0
        try:
            self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            if not _full(error):
                raise

    def _keep_house(self) -> None:
        now = time.monotonic()
        if self._broken or now < self._slice_at:
            return
        if now >= self._chores_at and not self._busy_chores:
            self._daily = now >= self._daily_at
            self._chores, self._busy_chores = self._new_chores(self._daily), True
        if not self._busy_chores:
            return
        self._busy_chores = self._slice(self._chores)
        if not self._busy_chores:
            self._chores_at = time.monotonic() + self._chores_every_s
            if self._daily:
                self._daily_at = now + _DAY_S
                self.checkpoint("TRUNCATE")  # what was deleted leaves the WAL too
        elif not self._waiting.empty():
            self._slice_at = time.monotonic() + _SLICE_EVERY_S

    def _slice(self, chores: Iterator[int]) -> bool:
        """One transaction of housekeeping; False when there is no more to do."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            written = next(chores, None)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if _full(error):
                self._connection.rollback()  # the next round tries again
                return False
            self._break(f"{error.sqlite_errorname}: {error}")
            return False
        if written is None:
            return False
        self._unchecked += written * PAGE
        if self._unchecked > _CHECKPOINT_OCTETS:
            self.checkpoint("PASSIVE")
        return True

    def _all(self, chore: Chore) -> None:
        while not self._broken and self._slice(chore.slices):
            pass
        if self._broken:
            self._tell(Failed([chore], NotStored(self._broken)))
        else:
            self.checkpoint("TRUNCATE")
            job = Job(lambda _: None, chore.future)
            self._tell(Committed([], [], [(job, None)]))

    def _break(self, why: str, group: Sequence[Append | Job] = ()) -> None:
        """An error after which nothing is known about what is on the disk: the process must end."""
        self._broken = f"the log {self._file.path} cannot be written ({why})"
        self._fatal(self._broken)
        self._tell(Failed(group, Ambiguous(self._broken)))

    def _tell(self, what: Committed | Failed) -> None:
        self._loop.call_soon_threadsafe(self._told, what)


def is_content(table: Table) -> bool:
    """Kept until truncated: what may fill the disk, and is refused first."""
    return not table.topic.compact and table.topic.retention_s is None


_MOST_ROWS = 64  # in one statement; each number of rows is a statement that stays prepared
# A prepared statement keeps a copy of what it stored last, so larger values have one to themselves: all of
# them together would hold hundreds of MiB for ever.
_LARGE_OCTETS = 16 * 1024


def _insert(connection: sqlite3.Connection, table: str, columns: int, values: list[Any]) -> None:
    """Insert rows, flat in `values`, with as few statements as can be."""
    # Not plain INSERT: with many rows it would copy every page it touches into a statement journal first.
    verb = "REPLACE" if table == "ends" else "INSERT OR ROLLBACK"
    place = "(" + ",".join("?" * columns) + ")"
    for at in range(0, len(values), _MOST_ROWS * columns):
        part = values[at : at + _MOST_ROWS * columns]
        rows = ",".join([place] * (len(part) // columns))
        connection.execute(f"{verb} INTO {table} VALUES {rows}", part)


def _full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
