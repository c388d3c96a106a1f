"""A fetch request and its answer (Kafka's protocol, Fetch version 11, isolation level 0).

A follower asks for all partitions of a topic at once, many times a second. aiokafka's own classes take every
field of each of them by itself, 30 us a partition and as much for its answer; here a partition is one piece.
"""

from collections.abc import Mapping
from io import BytesIO
from struct import Struct
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import AbstractType, Array, Int8, Int16, Int32, Schema, String
from aiokafka.record.memory_records import MemoryRecords

from libs.log.contract import Record

_ASKED = Struct("!iiqqi")  # partition, leader epoch, offset, log start, octets at most
_ANSWERED = Struct("!ihqqqi")  # partition, error, end, last stable offset, log start, aborted transactions
_ABORTED_OCTETS = 16  # of one aborted transaction; there are none at this isolation level
_RECORDS = Struct("!ii")  # preferred replica, octets of the records that follow
_UNKNOWN, _NO_SESSION = -1, (0, -1)


class _Asked(AbstractType):  # type: ignore[misc]
    """(partition, offset, octets at most)."""

    @classmethod
    def encode(cls, value: tuple[int, int, int]) -> bytes:
        partition, offset, octets = value
        return _ASKED.pack(partition, _UNKNOWN, offset, _UNKNOWN, octets)

    @classmethod
    def decode(cls, data: BytesIO) -> tuple[int, int, int]:
        partition, _, offset, _, octets = _ASKED.unpack(data.read(_ASKED.size))
        return partition, offset, octets


class _Answered(AbstractType):  # type: ignore[misc]
    """(partition, error, end, octets of record batches, the last of which may be cut off)."""

    @classmethod
    def decode(cls, data: BytesIO) -> tuple[int, int, int, bytes]:
        partition, code, end, _, _, aborted = _ANSWERED.unpack(data.read(_ANSWERED.size))
        data.seek(_ABORTED_OCTETS * max(0, aborted), 1)
        _, octets = _RECORDS.unpack(data.read(_RECORDS.size))
        return partition, code, end, data.read(max(0, octets))

    @classmethod
    def encode(cls, value: tuple[int, int, int, bytes]) -> bytes:
        partition, code, end, octets = value
        head = _ANSWERED.pack(partition, code, end, end, 0, _UNKNOWN)
        return head + _RECORDS.pack(_UNKNOWN, len(octets)) + octets


class _FetchResponse(Response):  # type: ignore[misc]
    API_KEY = 1
    API_VERSION = 11
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        ("topics", Array(("topic", String("utf-8")), ("partitions", Array(_Answered)))),
    )


class _FetchRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 1
    API_VERSION = 11
    RESPONSE_TYPE = _FetchResponse
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_time", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        ("topics", Array(("topic", String("utf-8")), ("partitions", Array(_Asked)))),
        ("forgotten_topics_data", Array(("topic", String("utf-8")), ("partitions", Array(Int32)))),
        ("rack_id", String("utf-8")),
    )


class FetchRequest(Request[_FetchRequest]):  # type: ignore[misc]
    """See fetch_request()."""

    API_KEY = 1

    def __init__(self, topic: str, partitions: list[tuple[int, int, int]], wait_ms: int, total: int) -> None:
        self._topic, self._partitions, self._wait_ms, self._total = topic, partitions, wait_ms, total

    def build(self, request_struct_class: type[_FetchRequest]) -> _FetchRequest:
        topics = [(self._topic, self._partitions)]
        return request_struct_class(_UNKNOWN, self._wait_ms, 1, self._total, 0, *_NO_SESSION, topics, [], "")


class Fetched:
    """What a leader answered about one partition. `records` may start before the offset asked for."""

    __slots__ = ("code", "end", "position", "records")

    def __init__(self, code: int, end: int, position: int, records: list[Record]) -> None:
        self.code, self.end, self.position, self.records = code, end, position, records


def fetch_request(
    topic: str, offsets: Mapping[int, int], *, wait_ms: int, each: int, total: int
) -> FetchRequest:
    """A fetch from each partition's offset: at most `each` octets of a partition (but always one whole batch)
    and `total` in all; the leader waits up to `wait_ms` for something to come."""
    partitions = [(number, offset, each) for number, offset in offsets.items()]
    return FetchRequest(topic, partitions, wait_ms, total)


def fetched(response: Any, topic: str, name: str, offsets: Mapping[int, int]) -> dict[int, Fetched]:
    """Read a fetch response. `name` is the contract's name of Kafka's `topic`. A batch that fails its
    checksum ends the reading of its partition; the position stays before it: it is fetched again."""
    result = {}
    for got, partitions in response.topics:
        if got != topic:
            continue
        for number, code, end, raw in partitions:
            position = offsets[number]
            records: list[Record] = []
            batches = MemoryRecords(raw)
            while not code and batches.has_next():
                batch = batches.next_batch()
                if not batch.validate_crc():
                    break
                if not batch.is_control_batch:
                    records += (
                        Record(
                            name,
                            number,
                            r.offset,
                            r.key or b"",
                            r.value,
                            tuple(r.headers),
                            r.timestamp / 1000,
                        )
                        for r in batch
                        if r.offset >= position
                    )
                position = max(position, batch.next_offset)
            result[number] = Fetched(code, end, position, records)
    return result
