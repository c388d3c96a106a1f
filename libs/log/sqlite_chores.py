"""Housekeeping of the embedded log, in slices: each `yield` ends one short transaction.

Compaction goes through a partition once, with two marks: below `cleaned` every record is the newest of its
key or the newest of the partition, below `forgotten` (never above `cleaned`) old tombstones are gone too.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from libs.log.sqlite_file import SHIFT, Table

_ROWS = 500  # looked at or deleted in one transaction
_PAGES = 256  # given back to the file system in one transaction
_OFFSET = (1 << SHIFT) - 1


class Marks(NamedTuple):
    begin: int
    cleaned: int
    forgotten: int


def marks(connection: sqlite3.Connection, table: Table, partition: int) -> Marks:
    row = connection.execute(
        "SELECT begin, cleaned, forgotten FROM begins WHERE id = ?", (table.number(partition),)
    ).fetchone()
    return Marks(*row) if row else Marks(0, 0, 0)


def mark(connection: sqlite3.Connection, table: Table, partition: int, new: Marks) -> None:
    connection.execute("INSERT OR REPLACE INTO begins VALUES (?, ?, ?, ?)", (table.number(partition), *new))


def compact(
    connection: sqlite3.Connection, table: Table, partition: int, end: int, dirty_before: float,
    forget_before: float,
) -> Iterator[None]:  # fmt: skip
    """Remove what a record older than `dirty_before` supersedes, and tombstones older than `forget_before`.

    `end` is the partition's end: the record before it stays, whatever it is.
    """
    first = partition << SHIFT
    while True:
        now = marks(connection, table, partition)
        rows = connection.execute(
            f"SELECT id, key FROM {table.name} WHERE id >= ? AND id < ? AND time < ?"
            f" ORDER BY id LIMIT {_ROWS}",
            (first | now.cleaned, first | end, dirty_before),
        ).fetchall()
        if not rows:
            break
        for number, key in rows:
            connection.execute(
                f"DELETE FROM {table.name} WHERE key = ? AND id >= ? AND id < ?", (key, first, number)
            )
        mark(connection, table, partition, now._replace(cleaned=(rows[-1][0] & _OFFSET) + 1))
        yield
    while True:
        now = marks(connection, table, partition)
        last = first | min(now.cleaned, end - 1)
        rows = connection.execute(
            f"SELECT id, value IS NULL FROM {table.name} WHERE id >= ? AND id < ? AND time < ?"
            f" ORDER BY id LIMIT {_ROWS}",
            (first | now.forgotten, last, forget_before),
        ).fetchall()
        if not rows:
            return
        tombstones = [(number,) for number, is_tombstone in rows if is_tombstone]
        connection.executemany(f"DELETE FROM {table.name} WHERE id = ?", tombstones)
        mark(connection, table, partition, now._replace(forgotten=(rows[-1][0] & _OFFSET) + 1))
        yield


def age(
    connection: sqlite3.Connection, table: Table, partition: int, end: int, before: float,
    moved: Callable[[Table, int, int], None],
) -> Iterator[None]:  # fmt: skip
    """Move begin over records older than `before`; `moved(table, partition, begin)` tells it."""
    first = partition << SHIFT
    while True:
        now = marks(connection, table, partition)
        rows = connection.execute(
            f"SELECT id, time FROM {table.name} WHERE id >= ? AND id < ? ORDER BY id LIMIT {_ROWS}",
            (first | now.begin, first | end),
        ).fetchall()
        old = [number for number, time in rows if time < before]
        if not old:
            return
        begin = (old[-1] & _OFFSET) + 1
        mark(connection, table, partition, now._replace(begin=begin))
        moved(table, partition, begin)
        yield


def sweep_out(connection: sqlite3.Connection, table: Table, partition: int) -> Iterator[None]:
    """Delete what is below begin."""
    first = partition << SHIFT
    while True:
        begin = marks(connection, table, partition).begin
        gone = connection.execute(
            f"DELETE FROM {table.name} WHERE id IN"
            f" (SELECT id FROM {table.name} WHERE id >= ? AND id < ? ORDER BY id LIMIT {_ROWS})",
            (first, first | begin),
        ).rowcount
        if not gone:
            return
        yield


def give_back(connection: sqlite3.Connection, keep: int) -> Iterator[None]:
    """Give free pages back to the file system, all but `keep`."""
    while True:
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        if free <= keep:
            return
        connection.execute(f"PRAGMA incremental_vacuum({min(_PAGES, free - keep)})").fetchall()
        yield


def everything(
    connection: sqlite3.Connection,
    tables: Iterable[Table],
    partitions: int,
    ends: Callable[[Table, int], int],
    now: float,
    moved: Callable[[Table, int, int], None],
    *,
    lag_s: float | None,
    keep: int,
) -> Iterator[None]:
    """One round over all tables. `lag_s`: age of a record before it supersedes (None: as the topic says);
    `keep`: free pages to hold for what comes next."""
    for table in tables:
        topic = table.topic
        for partition in range(partitions):
            end = ends(table, partition)
            if topic.compact:
                lag = int(topic.config["min.compaction.lag.ms"]) / 1000 if lag_s is None else lag_s
                forget = int(topic.config["delete.retention.ms"]) / 1000
                yield from compact(connection, table, partition, end, now - lag, now - forget)
            if topic.retention_s is not None:
                yield from age(connection, table, partition, end, now - topic.retention_s, moved)
            yield from sweep_out(connection, table, partition)
    yield from give_back(connection, keep)
