"""One record by its offset: what came with the one that was asked for is kept for a moment.

Shell: sockets. A broker gives whole batches, and a batch of a busy hour holds dozens of mails. Who hands a
backlog over reads one after the other; without this each of them would bring the whole batch again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from aiokafka import errors

from libs.log.contract import Gone, Record, Superseded, Unavailable
from libs.log.kafka_fetch import fetch_request, fetched
from libs.log.kafka_wire import EARLIEST, Wire

KEPT_OCTETS = 16 * 2**20
KEPT_S = 5.0  # as late as this a record may be given that was compacted away meanwhile
OUT_OF_RANGE = errors.OffsetOutOfRangeError.errno


class Kept:
    """Records that came along, oldest first; each is given once."""

    def __init__(self, octets: int = KEPT_OCTETS) -> None:
        self._room = octets
        self._used = 0
        self._records: OrderedDict[tuple[str, int, int], tuple[float, Record]] = OrderedDict()

    def keep(self, records: Sequence[Record], now: float) -> None:
        for record in records:
            place = (record.topic, record.partition, record.offset)
            if place not in self._records:
                self._records[place] = now, record
                self._used += len(record.value or b"")
        while self._records and (self._used > self._room or now - self._oldest() > KEPT_S):
            self._forget(next(iter(self._records)))

    def take(self, topic: str, partition: int, offset: int, now: float) -> Record | None:
        place = (topic, partition, offset)
        if place not in self._records:
            return None
        at, record = self._forget(place)
        return record if now - at <= KEPT_S else None

    def _oldest(self) -> float:
        return next(iter(self._records.values()))[0]

    def _forget(self, place: tuple[str, int, int]) -> tuple[float, Record]:
        at, record = self._records.pop(place)
        self._used -= len(record.value or b"")
        return at, record


class Reader:
    """Reads single records with `wire`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._kept = Kept()
        self._turns: dict[tuple[str, int], asyncio.Lock] = {}

    async def read(self, topic: str, name: str, partition: int, offset: int, key: bytes) -> Record:
        """Exactly this record; `name` is the contract's name of Kafka's `topic`. Raises Gone, Superseded,
        Unavailable."""
        loop = asyncio.get_running_loop()
        # One at a time: what the next one wants has most often come with the answer to the one before.
        async with self._turns.setdefault((name, partition), asyncio.Lock()):
            record = self._kept.take(name, partition, offset, loop.time())
            if record is None:
                record, *others = await self._fetch(topic, name, partition, offset)
                self._kept.keep(others, loop.time())
        if record.key != key:
            raise Gone(f"{name}/{partition}: offset {offset} holds another key")
        return record

    async def _fetch(self, topic: str, name: str, partition: int, offset: int) -> list[Record]:
        """The rest of the batch that holds `offset`, from there on."""
        wire = self._wire
        node = await wire.leader(topic, partition)
        asked = {partition: offset}
        # max_bytes=1 gives one whole batch: the one that holds the offset
        response = await wire.ask(node, fetch_request(topic, asked, wait_ms=0, each=1, total=1))
        part = fetched(response, topic, name, asked)[partition]
        if part.code == OUT_OF_RANGE:
            begin = await wire.offset(topic, partition, EARLIEST)
            if offset < begin:
                raise Gone(f"{name}/{partition} begins at {begin}, after {offset}")
            raise Unavailable(f"{name}/{partition} has no offset {offset} yet")
        await wire.check(part.code, topic, partition)
        if part.position <= offset:
            raise Unavailable(f"{name}/{partition} gave nothing at {offset}")
        if not part.records or part.records[0].offset != offset:
            raise Superseded(f"{name}/{partition}: offset {offset} was compacted away")
        return part.records
