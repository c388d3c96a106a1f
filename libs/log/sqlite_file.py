"""The file of the embedded log: its lock, its pragmas, its tables, its clock.

A topic is a table `records_<id>`; the rowid of a record is its partition number and offset in one integer, so
that reading from an offset on is a walk along the table. What must survive the records is kept beside them:
the next offset and the newest time (`ends`), begin and how far compaction came (`begins`), the positions of
groups. `time` stands before `value`: looking at the time of a record does not read its value.
"""

import fcntl
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from libs.log.contract import LogError, Misconfigured
from libs.runtime.clock import Clock
from libs.topics import Topic

SHIFT = 44  # bits of an offset in a rowid: 17 * 10**12 records a partition
PAGE = 8192  # octets; a mail of 10 kB costs a fifth less to write than with 4096
FORMAT = "1"

_DISTRUST_S = 86_400.0  # rule 10: so long a strange clock at start counts as a difference
_LATE_S, _EARLY_S = 86_400.0, 120.0

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE ends (id INTEGER PRIMARY KEY, next INTEGER NOT NULL, time REAL NOT NULL);
CREATE TABLE begins (id INTEGER PRIMARY KEY, begin INTEGER NOT NULL, cleaned INTEGER NOT NULL,
                     forgotten INTEGER NOT NULL);
CREATE TABLE positions (member TEXT, topic INTEGER, number INTEGER, next INTEGER NOT NULL,
                        PRIMARY KEY (member, topic, number)) WITHOUT ROWID;
"""


class InUse(LogError):  # noqa: N818
    """Another process has this log open."""


class Table(NamedTuple):
    """One topic in the file. `number(p)` is the id of partition p in `ends` and `begins`."""

    id: int
    topic: Topic
    name: str

    def number(self, partition: int) -> int:
        return self.id << 16 | partition


class LogClock:
    """The log's clock: wall time at start plus monotonic time, and never before the newest record (rule 10).

    `difference_s`: wall time at start minus the time of the newest record (0 for a new log).
    """

    def __init__(self, clock: Clock, newest: float) -> None:
        wall = clock.wall()
        self.difference_s = wall - newest if newest else 0.0
        self.strange = not -_EARLY_S <= self.difference_s <= _LATE_S
        self._mono, self._base = clock.mono, max(wall, newest) - clock.mono()

    def now(self) -> float:
        return self._base + self._mono()

    def set_back(self, wall: float) -> None:
        """Go on from `wall`. Only once no record is newer."""
        self._base = wall - self._mono()


class LogFile:
    """The open file: the lock, the one connection that writes, and what the tables said at the start.

    Only the writer thread may use `writer` once it runs.
    """

    def __init__(
        self, path: Path, partitions: int, topics: Mapping[str, Topic], clock: Clock, page_limit: int
    ) -> None:
        self.path = path
        self._lock = _lock(path)
        try:
            self.writer = _connect(path)
            self._set_up(partitions, topics, clock, page_limit)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise Misconfigured(f"{path} cannot be used as a log: {error}") from error
            raise

    def _set_up(self, partitions: int, topics: Mapping[str, Topic], clock: Clock, page_limit: int) -> None:
        writer = self.writer
        writer.execute(f"PRAGMA page_size = {PAGE}")  # this and the next only before the first table
        writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = FULL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")  # the writer does it, after the acknowledgements
        writer.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")
        writer.execute("PRAGMA cache_size = -16384")
        writer.execute("PRAGMA temp_store = MEMORY")
        writer.execute("PRAGMA secure_delete = FAST")  # ON, some builds' default, writes all it deletes again
        if page_limit:
            writer.execute(f"PRAGMA max_page_count = {page_limit}")
        writer.execute("BEGIN IMMEDIATE")
        if not writer.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
            for statement in _SCHEMA.split(";"):
                writer.execute(statement)
            writer.execute("INSERT INTO meta VALUES ('format', ?), ('partitions', ?)", (FORMAT, partitions))
        meta = dict(writer.execute("SELECT name, value FROM meta").fetchall())
        if meta["format"] != FORMAT:
            raise Misconfigured(f"{self.path} has format {meta['format']}, this version reads {FORMAT}")
        self.partitions: int = meta["partitions"]
        self.tables = {name: self._table(topic) for name, topic in topics.items()}
        self.ends: dict[int, int] = dict(writer.execute("SELECT id, next FROM ends"))
        self.begins: dict[int, int] = dict(writer.execute("SELECT id, begin FROM begins"))
        self.positions: dict[tuple[str, int, int], int] = {
            (group, topic, number): offset
            for group, topic, number, offset in writer.execute("SELECT * FROM positions")
        }
        self.newest: float = writer.execute("SELECT max(time) FROM ends").fetchone()[0] or 0.0
        self.clock = LogClock(clock, self.newest)
        if self.clock.strange:
            self.distrust_until = self.clock.now() + _DISTRUST_S
            writer.execute("INSERT OR REPLACE INTO meta VALUES ('distrust', ?)", (self.distrust_until,))
        else:
            self.distrust_until = meta.get("distrust", 0.0)
        writer.execute("COMMIT")
        if writer.execute("PRAGMA auto_vacuum").fetchone() != (2,):
            raise Misconfigured(f"{self.path} was not made by backupmx: it cannot give space back")
        _sync_directory(self.path.parent)

    def _table(self, topic: Topic) -> Table:
        writer = self.writer
        writer.execute("INSERT OR IGNORE INTO topics (name) VALUES (?)", (topic.name,))
        (number,) = writer.execute("SELECT id FROM topics WHERE name = ?", (topic.name,)).fetchone()
        name = f"records_{number}"
        writer.execute(
            f"CREATE TABLE IF NOT EXISTS {name}"
            "(id INTEGER PRIMARY KEY, time REAL NOT NULL, key BLOB NOT NULL, headers BLOB, value BLOB)"
        )
        if topic.compact:
            writer.execute(f"CREATE INDEX IF NOT EXISTS keys_{number} ON {name} (key)")
        return Table(number, topic, name)

    def reader(self) -> sqlite3.Connection:
        """A connection that cannot write, for the event loop's thread. Close it before the file."""
        reader = _connect(self.path)
        reader.execute("PRAGMA query_only = ON")
        return reader

    def close(self) -> None:
        if writer := getattr(self, "writer", None):
            writer.close()
        os.close(self._lock)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=5, isolation_level=None, check_same_thread=False, cached_statements=1024
    )


def _lock(path: Path) -> int:
    """One process: the lock is on a file beside (closing any descriptor of the log itself would drop SQLite's
    own locks)."""
    descriptor = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InUse(f"the log {path} is in use by another process") from None
    return descriptor


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
