"""A waiting mail as the index holds it: one `bytes` object, so that a million of them fit into memory.

Entries compare as they are to be delivered: by when they are due (0: now), then by arrival, then by their
place in the queue. Fields are big-endian, and no time here is negative, so octets compare as the numbers do.
"""

from struct import Struct
from typing import NamedTuple

from libs.mail.records import State

_FIELDS = Struct(">ddQQQIHIB")
_DUE, _ARRIVED = slice(0, 8), slice(8, 16)
_CONTENT, _FIRST = slice(24, 32), slice(32, 40)
_SIZE, _ROUTE, _FLAGS, _ID = slice(40, 44), slice(46, 50), 50, 51
_MOST_OCTETS, _MOST_CHUNKS = 2**32 - 1, 2**16 - 1  # more is counted as so much
_STATES = tuple(State)
_MOVING = {_STATES.index(State.QUEUED), _STATES.index(State.DEFERRED)}
_NOW = bytes(8)
_time = Struct(">d")


class Fields(NamedTuple):
    """What an entry says; see waiting.Waiting. `route`: a number of the index's."""

    due: float
    arrived: float
    offset: int
    content: int
    first: int
    size: int
    chunks: int
    route: int
    state: State
    delay_told: bool
    id: str


def packed(fields: Fields) -> bytes:
    """Size and chunks beyond what an entry has room for are its most."""
    flags = _STATES.index(fields.state) << 1 | fields.delay_told
    size, chunks = min(fields.size, _MOST_OCTETS), min(fields.chunks, _MOST_CHUNKS)
    numbers = (fields.offset, fields.content, fields.first, size, chunks, fields.route, flags)
    return _FIELDS.pack(fields.due, fields.arrived, *numbers) + fields.id.encode()


def unpacked(entry: bytes) -> Fields:
    due, arrived, offset, content, first, size, chunks, route, flags = _FIELDS.unpack_from(entry)
    state, told = _STATES[flags >> 1], bool(flags & 1)
    return Fields(due, arrived, offset, content, first, size, chunks, route, state, told, id_of(entry))


def id_of(entry: bytes) -> str:
    return entry[_ID:].decode()


def route_of(entry: bytes) -> int:
    return int.from_bytes(entry[_ROUTE])


def size_of(entry: bytes) -> int:
    return int.from_bytes(entry[_SIZE])


def arrived_at(entry: bytes) -> float:
    """Wall seconds."""
    at: float = _time.unpack(entry[_ARRIVED])[0]
    return at


def due_at(entry: bytes) -> float:
    """Wall seconds, 0 for now."""
    at: float = _time.unpack(entry[_DUE])[0]
    return at


def is_ready(entry: bytes) -> bool:
    """Is it due now, whatever the clock says?"""
    return entry[_DUE] == _NOW


def same_due(one: bytes, other: bytes) -> bool:
    return one[_DUE] == other[_DUE]


def with_due(entry: bytes, due: float) -> bytes:
    return (_time.pack(due) if due else _NOW) + entry[8:]


def is_still(entry: bytes) -> bool:
    """No attempts are made (held, parked, content lost)."""
    return entry[_FLAGS] >> 1 not in _MOVING


def needs(entry: bytes, begin: bytes) -> bytes:
    """As waiting.Waiting.needs, of offsets that are packed."""
    content = entry[_CONTENT]
    return content if content >= begin else entry[_FIRST]


def packed_offset(offset: int) -> bytes:
    """As an entry has it."""
    return offset.to_bytes(8)
