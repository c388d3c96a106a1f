"""A waiting mail as the index holds it: one `bytes` object, so that a million of them fit into memory.

Entries compare as they are to be delivered: by when they are due (0: now), then by arrival, then by their
place in the queue. Fields are big-endian, and no time here is negative, so octets compare as the numbers do.
"""

from struct import Struct as Layout

from msgspec import Struct

from libs.mail.records import Kind, State

_FIELDS = Layout(">ddQQQIHIB")
_DUE, _ARRIVED = slice(0, 8), slice(8, 16)
_CONTENT, _FIRST = slice(24, 32), slice(32, 40)
_SIZE, _ROUTE, _FLAGS, _ID = slice(40, 44), slice(46, 50), 50, 51
_MOST_OCTETS, _MOST_CHUNKS = 2**32 - 1, 2**16 - 1  # more is counted as so much
_STATES = tuple(State)
_FLAG_OF = {state: number << 1 for number, state in enumerate(_STATES)}
_ATTEMPTED = (State.QUEUED, State.DEFERRED)
_MOVING = {_STATES.index(state) for state in _ATTEMPTED}
_NOW = bytes(8)
_pack = _FIELDS.pack
_time = Layout(">d")


class Waiting(Struct, frozen=True, order=True, gc=False):
    """One mail: `offset` of its newest queue record, `first` the lowest of the `chunks` content offsets that
    one refers to, `content` the lowest that any record of it did, `due` in wall seconds (0 for now),
    `delay_told`: its sender knows that it waits. Of mails that arrived at the same time, the one with the
    lower `offset` is delivered first."""

    arrived: float
    id: str
    domain: str
    next_hop: str
    kind: Kind
    state: State
    due: float
    size: int
    offset: int
    content: int
    first: int
    chunks: int
    delay_told: bool = False

    @property
    def still(self) -> bool:
        """No attempts are made (held, parked, content lost)."""
        return self.state not in _ATTEMPTED

    def needs(self, begin: int) -> int:
        """The lowest offset of what it needs, of content that begins at `begin`: a place that is gone was
        left when the content moved."""
        return self.content if self.content >= begin else self.first


def packed(mail: Waiting, route: int) -> bytes:
    """`route`: a number that stands for domain, next hop and kind. Size and chunks beyond what an entry has
    room for are its most."""
    size = min(mail.size, _MOST_OCTETS)
    chunks = min(mail.chunks, _MOST_CHUNKS)
    flags = _FLAG_OF[mail.state] | mail.delay_told
    offset, content, first = mail.offset, mail.content, mail.first
    fields = _pack(mail.due, mail.arrived, offset, content, first, size, chunks, route, flags)
    return fields + mail.id.encode()


def unpacked(entry: bytes, domain: str, next_hop: str, kind: Kind) -> Waiting:
    due, arrived, offset, content, first, size, chunks, _, flags = _FIELDS.unpack_from(entry)
    state, told = _STATES[flags >> 1], bool(flags & 1)
    places = (offset, content, first, chunks, told)
    return Waiting(arrived, id_of(entry), domain, next_hop, kind, state, due, size, *places)


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


def is_told(entry: bytes) -> bool:
    """Does its sender know that it waits?"""
    return bool(entry[_FLAGS] & 1)


def needs(entry: bytes, begin: bytes) -> bytes:
    """As Waiting.needs, of offsets that are packed."""
    content = entry[_CONTENT]
    return content if content >= begin else entry[_FIRST]


def packed_offset(offset: int) -> bytes:
    """As an entry has it."""
    return offset.to_bytes(8)
