"""Chunks -> messages, under one budget of octets; and the lowest offset that is still needed.

A gap, a repeat or an unreadable chunk breaks an assembly: its octets are let go, and when its last chunk
comes it is Complete with the reason in `broken`: authentication says temperror, nobody is refused for it.
Where the octets are (memory or the spill file) is the caller's business: here they are parts with a length.
"""

from collections.abc import Iterator
from typing import NamedTuple

from libs.log.contract import Record
from libs.mail.codec import Undecodable, decode
from libs.mail.records import Trace

END_S = 30 * 60.0  # an assembly that is not complete by then is let go


class Extent(NamedTuple):
    """Octets in the spill file."""

    start: int
    length: int


Part = bytes | Extent


class Chunk(NamedTuple):
    """A `content` record: `number` counts from 0; `trace` on the last one; `error`: why it cannot be read."""

    number: int
    trace: Trace | None
    error: str = ""


class Abort(NamedTuple):
    """The session ended without a message."""


class Complete(NamedTuple):
    """All chunks of one id are there, or its last one at least (`broken` says why it has no parts)."""

    id: str
    first: int
    parts: tuple[Part, ...]
    trace: Trace
    broken: str = ""


def read(record: Record) -> Chunk | Abort | None:
    """What a `content` record is; None: not for verify (written by deliver, a tombstone)."""
    index: bytes | None = None
    trace: Trace | None = None
    error = ""
    for name, value in record.headers:
        if name == "index":
            index = value
        elif name == "trace":
            try:
                trace = decode(value, Trace)
            except Undecodable as found:
                error = str(found)
        elif name == "by":
            return None
        elif name == "abort":
            return Abort()
    if record.value is None:
        return None
    if index is None or not index.isdigit() or len(index) > 9:
        return Chunk(-1, trace, error or "no index")
    return Chunk(int(index), trace, error)


class _Open:
    __slots__ = ("began", "broken", "first", "parts")

    def __init__(self, first: int, began: float) -> None:
        self.first, self.began = first, began
        self.parts: list[Part] = []
        self.broken = ""


class Assemblies:
    """The open assemblies of one partition, and the messages under evaluation."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Open] = {}
        self._evaluated: dict[bytes, int] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._open

    def add(
        self, key: bytes, offset: int, chunk: Chunk, part: Part, now: float
    ) -> tuple[Complete | None, tuple[Part, ...]]:
        """(the message if this chunk completes it, the parts that are not needed any more).

        `now`: monotonic seconds. A complete message counts as evaluated until `done(key)`.
        """
        opened = self._open.get(key)
        if opened is None:
            opened = self._open[key] = _Open(offset, now)
        freed: tuple[Part, ...] = ()
        wrong = chunk.error or _wrong(chunk, len(opened.parts))
        if wrong or opened.broken:
            freed = (*opened.parts, part)
            opened.parts.clear()
            opened.broken = opened.broken or wrong
        else:
            opened.parts.append(part)
        if chunk.trace is None:
            return None, freed
        del self._open[key]
        self._evaluated[key] = opened.first
        id_ = key.decode("ascii", "replace")
        return Complete(id_, opened.first, tuple(opened.parts), chunk.trace, opened.broken), freed

    def evaluate(self, key: bytes, offset: int) -> None:
        """A message that is whole in one chunk counts as evaluated until `done(key)`."""
        self._evaluated[key] = offset

    def drop(self, key: bytes) -> tuple[Part, ...]:
        """An abort chunk came. Returns the parts that are not needed any more."""
        opened = self._open.pop(key, None)
        return tuple(opened.parts) if opened else ()

    def done(self, key: bytes) -> None:
        """The verdict of a complete message is stored, or given up."""
        self._evaluated.pop(key, None)

    def expire(self, now: float) -> tuple[int, tuple[Part, ...]]:
        """Let go of assemblies older than 30 min: (how many, their parts)."""
        old = [key for key, opened in self._open.items() if now - opened.began >= END_S]
        return len(old), tuple(part for key in old for part in self.drop(key))

    def needed(self, position: int) -> int:
        """The lowest offset still needed when all below `position` has been read: what may be committed. A
        broken assembly needs nothing: read again from its middle it is broken again."""
        return min((position, *self._firsts()))

    def _firsts(self) -> Iterator[int]:
        yield from self._evaluated.values()
        yield from (opened.first for opened in self._open.values() if not opened.broken)

    def parts(self) -> Iterator[Part]:
        """Of all open assemblies: what is not needed any more when the claim is lost."""
        for opened in self._open.values():
            yield from opened.parts


def _wrong(chunk: Chunk, expected: int) -> str:
    """Why this is not the chunk that comes next."""
    if chunk.number != expected:
        return "chunk repeated" if 0 <= chunk.number < expected else "chunk missing"
    if chunk.trace is not None and chunk.trace.chunks != expected + 1:
        return "chunks miscounted"
    return ""


class Budget:
    """Octets in memory, over all open assemblies and evaluations. `take` says whether there is room for more;
    what was taken is given back."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def take(self, octets: int) -> bool:
        if self.used + octets > self.limit:
            return False
        self.used += octets
        return True

    def give(self, octets: int) -> None:
        self.used -= octets
