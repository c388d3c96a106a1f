"""Housekeeping of the embedded log, in slices: each `yield` ends one short transaction.

Compaction goes through a partition once, with two marks: below `cleaned` every record is the newest of its
key or the newest of the partition, below `forgotten` (never above `cleaned`) old tombstones are gone too.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

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
) -> Iterator[int]:  # fmt: skip
    """Remove what a record older than `dirty_before` supersedes, and tombstones older than `forget_before`.

    `end` is the partition's end: the record before it stays, whatever it is.
    """
    first = partition << SHIFT
    while True:
        now = marks(connection, table, partition)
        rows = _old(connection, table, "key", first | now.cleaned, first | end, dirty_before)
        if not rows:
            break
        gone = 0
        for number, key in rows:
            gone += connection.execute(
                f"DELETE FROM {table.name} WHERE key = ? AND id >= ? AND id < ?", (key, first, number)
            ).rowcount
        mark(connection, table, partition, now._replace(cleaned=_after(rows)))
        yield 2 + gone
    while True:
        now = marks(connection, table, partition)
        last = first | min(now.cleaned, end - 1)
        rows = _old(connection, table, "value IS NULL", first | now.forgotten, last, forget_before)
        if not rows:
            return
        tombstones = [(number,) for number, is_tombstone in rows if is_tombstone]
        connection.executemany(f"DELETE FROM {table.name} WHERE id = ?", tombstones)
        mark(connection, table, partition, now._replace(forgotten=_after(rows)))
        yield 2 + len(tombstones)


def age(
    connection: sqlite3.Connection, table: Table, partition: int, end: int, before: float,
    moved: Callable[[Table, int, int], None],
) -> Iterator[int]:  # fmt: skip
    """Move begin over records older than `before`; `moved(table, partition, begin)` tells it."""
    first = partition << SHIFT
    while True:
        now = marks(connection, table, partition)
        rows = _old(connection, table, "NULL", first | now.begin, first | end, before)
        if not rows:
            return
        begin = _after(rows)
        mark(connection, table, partition, now._replace(begin=begin))
        moved(table, partition, begin)
        yield 2


def sweep_out(connection: sqlite3.Connection, table: Table, partition: int) -> Iterator[int]:
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
        yield gone


def give_back(connection: sqlite3.Connection, keep: int) -> Iterator[int]:
    """Give free pages back to the file system, all but `keep`."""
    while True:
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        if free <= keep:
            return
        pages = min(_PAGES, free - keep)
        connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
        yield pages


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
) -> Iterator[int]:
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
        yield 0
    yield from give_back(connection, keep)


def _old(
    connection: sqlite3.Connection, table: Table, column: str, start: int, stop: int, before: float
) -> list[tuple[int, Any]]:
    """(id, column) of the first rows in start..stop, as far as they are older than `before`."""
    query = f"SELECT id, {column}, time FROM {table.name} WHERE id >= ? AND id < ? ORDER BY id LIMIT "
    oldest = connection.execute(query + "1", (start, stop)).fetchone()
    if oldest is None or oldest[2] >= before:
        return []
    rows = connection.execute(query + str(_ROWS), (start, stop)).fetchall()
    return [(number, value) for number, value, time in rows if time < before]  # times never decrease


def _after(rows: list[tuple[int, Any]]) -> int:
    return (rows[-1][0] & _OFFSET) + 1
