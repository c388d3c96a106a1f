"""The log contract: seven methods, two implementations, one conformance suite (tests/log/contract.py).

Everything that passes between services is a record on a topic of this log. Offsets grow for ever and are
never used twice; `time` is the log's clock (wall seconds UTC), never the writer's.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from msgspec import Struct

BEGIN, END = -2, -1  # starts for `follow`: the oldest record still there; only what is appended from now on

Headers = Sequence[tuple[str, bytes]]


class Record(Struct, frozen=True, gc=False):
    """One record as stored. `value` None is a tombstone."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    headers: Headers
    time: float

    def header(self, name: str) -> bytes | None:
        """The first header called `name`, or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Stored(Struct, frozen=True):
    """An acknowledgement: the record is durable at `offset`; `time` is the log's clock."""

    offset: int
    time: float


class Batch(Struct, frozen=True):
    """What `follow` yields for one partition.

    `position` is the next offset that will be read, `end` the end of the partition as last seen: caught up
    means `position >= end`. `gap` says that records between the last batch and this were truncated unread.
    """

    partition: int
    records: Sequence[Record]
    position: int
    end: int
    gap: bool


class Bounds(NamedTuple):
    """`begin` and `end` offsets, `since` the first offset not older than the time asked for (`end` if none),
    `disk` the share (0..1) of the fullest log disk that is used."""

    begin: int
    end: int
    since: int
    disk: float


class LogError(Exception):
    """Any failure of the log; the subclass says what may be assumed."""


class NotStored(LogError):  # noqa: N818 the contract's word
    """Certain: the record never appears."""


class Ambiguous(LogError):  # noqa: N818
    """The record may appear, now or later."""


class Unavailable(LogError):  # noqa: N818
    """Nothing is known; try again."""


class Gone(LogError):  # noqa: N818
    """The offset is below the partition's begin."""


class Superseded(LogError):  # noqa: N818
    """Compacted away: a newer record with this key exists."""


class NotOwner(LogError):  # noqa: N818
    """The claim is not held (any more)."""


class Misconfigured(LogError):  # noqa: N818
    """A topic is missing or has other settings than topics.py demands."""


class Claim(Protocol):
    """Ownership of partition number `partition` of every topic, within `group`."""

    @property
    def group(self) -> str: ...
    @property
    def partition(self) -> int: ...
    def held(self) -> bool:
        """No I/O. Once False, False for ever."""
        ...


class Owner(Protocol):
    """Told of claims. Both return at once; a kept partition keeps its claim without a call."""

    def gained(self, claim: Claim) -> None: ...
    def lost(self, claim: Claim) -> None: ...


class Log(Protocol):
    """A partitioned, ordered, durable log."""

    async def append(
        self,
        topic: str,
        partition: int,
        key: bytes,
        value: bytes | None,
        *,
        within: float,
        headers: Headers = (),
        claim: Claim | None = None,
    ) -> Stored:
        """Store one record durably within `within` seconds.

        With `claim`: NotOwner unless it is held when the record is handed over. Raises NotStored, Ambiguous
        (also when cancelled: whoever cancels must treat the record as Ambiguous), NotOwner, Misconfigured.
        """
        ...

    def follow(self, topic: str, starts: Mapping[int, int]) -> AsyncGenerator[Batch, None]:
        """Yield batches of each partition in `starts` (number -> first offset, BEGIN or END), for ever.

        An empty Batch for each partition at least once a second proves freshness; when the log cannot be
        reached nothing is yielded, and the iterator goes on by itself when it is back. A start below begin
        goes on at begin with gap=True. Close the iterator (`aclosing`) to stop.
        """
        ...

    async def read(self, topic: str, partition: int, offset: int, key: bytes) -> Record:
        """Exactly this record (offset and key). Raises Gone, Superseded, Unavailable (also: empty fetch)."""
        ...

    def own(self, group: str, owner: Owner) -> AbstractAsyncContextManager[None]:
        """Be a member of `group`: numbers 0..N-1 are shared among its members, all topics alike.

        Leaving the context gives every claim up (held() is False, then lost()) before others gain them.
        """
        ...

    async def commit(self, claim: Claim, topic: str, offset: int | None = None) -> int | None:
        """With `offset`: remember it as the group's position in claim.partition of `topic`. Returns the
        position remembered (after the write), or None where there is none. Raises NotOwner, Unavailable."""
        ...

    async def bounds(self, topic: str, partition: int, since: float = 0) -> Bounds:
        """Raises Unavailable, Misconfigured."""
        ...

    async def truncate(self, claim: Claim, topic: str, before: int) -> None:
        """Delete what is below `before`. Raises NotOwner, Unavailable. Offsets are never used again."""
        ...
