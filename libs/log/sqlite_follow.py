"""Followers of the embedded log: fed from memory at the tail, from the file when they lag.

All of it runs in the event loop's thread. A lane that was not fed (its follower is slow) reads the file from
where it stands, so a slow follower costs no memory beyond _ROOM and no follower sees a hole.
"""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from libs.log.contract import BEGIN, END, Batch, Record
from libs.log.sqlite_file import SHIFT, Table

_ROOM = 4 * 2**20  # octets queued in memory for one follower
_ROWS = 500
_OCTETS = 2**20
_CHUNKS = 4
_OFFSET = (1 << SHIFT) - 1

_unpack = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode


class Tail:
    """One partition as the event loop knows it: begin and end."""

    __slots__ = ("begin", "end")

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = begin, end


class Chunks:
    """What followers read last of the file, and another one that began at the same time will read next. Only
    what can have no more records behind it is kept."""

    def __init__(self) -> None:
        self._read: dict[tuple[int, int, int], tuple[list[Record], int]] = {}

    def read_on(
        self, reader: sqlite3.Connection, table: Table, partition: int, start: int, end: int
    ) -> tuple[list[Record], int]:
        """As read_on."""
        place = table.id, partition, start
        found = self._read.pop(place, None)
        if found is not None and found[1] <= end:
            return found
        found = read_on(reader, table, partition, start, end)
        if found[1] < end:
            while len(self._read) >= _CHUNKS:
                del self._read[next(iter(self._read))]
            self._read[place] = found
        return found


class Lane:
    """One partition of one follower. `at`: the next offset to be queued or read."""

    __slots__ = ("at", "gap", "partition", "queued", "tail")

    def __init__(self, partition: int, start: int, tail: Tail) -> None:
        self.partition, self.tail = partition, tail
        self.queued: list[Record] = []
        # A start beyond the end belongs to a log that was lost: nothing is missed from begin on.
        self.gap = start > tail.end
        self.at = {BEGIN: tail.begin, END: tail.end}.get(start, tail.begin if self.gap else start)


class Follower:
    """What one `follow` holds. `due`: an empty batch of each lane is owed."""

    def __init__(
        self, table: Table, starts: Mapping[int, int], tails: Mapping[int, Tail], chunks: Chunks
    ) -> None:
        self.table, self._chunks = table, chunks
        self.due = True
        self._lanes = {number: Lane(number, start, tails[number]) for number, start in starts.items()}
        self._ready: dict[int, None] = dict.fromkeys(self._lanes)
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, partition: int, records: Sequence[Record], size: int) -> None:
        """`records` were committed at the end of `partition`."""
        lane = self._lanes.get(partition)
        if lane is None:
            return
        if lane.at == records[0].offset and self._size < _ROOM:
            lane.queued.extend(records)
            lane.at = records[-1].offset + 1
            self._size += size
        self._ready[partition] = None
        self.wake()

    def beat(self) -> None:
        self.due = True
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Until there is something to take."""
        if self._ready or self.due:
            await asyncio.sleep(0)  # a follower that lags must not keep the loop
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self, reader: sqlite3.Connection) -> list[Batch]:
        """What there is now: at most one batch of each lane."""
        lanes, self._ready = list(self._lanes) if self.due else list(self._ready), {}
        self.due = False
        return [self._batch(self._lanes[number], reader) for number in lanes]

    def _batch(self, lane: Lane, reader: sqlite3.Connection) -> Batch:
        records: Sequence[Record] = ()
        tail = lane.tail
        if lane.queued:
            records, lane.queued = lane.queued, []
            self._size -= sum(len(record.value or b"") for record in records)
        elif lane.at < tail.end:
            if lane.at < tail.begin:
                lane.at, lane.gap = tail.begin, True
            records, lane.at = self._chunks.read_on(reader, self.table, lane.partition, lane.at, tail.end)
        if lane.at < tail.end:
            self._ready[lane.partition] = None
        gap, lane.gap = lane.gap, False
        return Batch(lane.partition, records, lane.at, tail.end, gap)


def read_on(
    reader: sqlite3.Connection, table: Table, partition: int, start: int, end: int
) -> tuple[list[Record], int]:
    """Some records from `start` on, below `end`, and the offset to go on from."""
    first, name = partition << SHIFT, table.topic.name
    records: list[Record] = []
    size = 0
    rows = reader.execute(
        f"SELECT id, time, key, headers, value FROM {table.name} WHERE id >= ? AND id < ? ORDER BY id",
        (first | start, first | end),
    )
    try:
        for number, time, key, headers, value in rows:
            unpacked = _unpack(headers) if headers else ()
            records.append(Record(name, partition, number & _OFFSET, key, value, unpacked, time))
            size += len(value or b"")
            if len(records) >= _ROWS or size >= _OCTETS:
                return records, records[-1].offset + 1
    finally:
        rows.close()  # ends the read transaction: none lives across an await
    return records, end


def read_one(reader: sqlite3.Connection, table: Table, partition: int, offset: int) -> Record | None:
    row = reader.execute(
        f"SELECT time, key, headers, value FROM {table.name} WHERE id = ?", (partition << SHIFT | offset,)
    ).fetchone()
    if row is None:
        return None
    time, key, headers, value = row
    unpacked = _unpack(headers) if headers else ()
    return Record(table.topic.name, partition, offset, key, value, unpacked, time)


def first_since(
    reader: sqlite3.Connection, table: Table, partition: int, begin: int, end: int, since: float
) -> int:
    """The first offset in begin..end whose time is at least `since`: times never decrease, so by halving."""
    first = partition << SHIFT
    low, high = begin, end  # the answer is in low..high
    while low < high:
        middle = (low + high) // 2
        row = reader.execute(
            f"SELECT id, time FROM {table.name} WHERE id >= ? AND id < ? ORDER BY id LIMIT 1",
            (first | middle, first | high),
        ).fetchone()
        if row is None or row[1] >= since:
            high = middle
        else:
            low = (row[0] & _OFFSET) + 1
    row = reader.execute(
        f"SELECT id FROM {table.name} WHERE id >= ? AND id < ? ORDER BY id LIMIT 1",
        (first | low, first | end),
    ).fetchone()
    return end if row is None else row[0] & _OFFSET
