"""A topic folded into a dict: ready at its end, fresh while it keeps up, and its changes can be awaited."""

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import aclosing, suppress
from typing import Generic, TypeVar

from libs.log.contract import BEGIN, Log, Record
from libs.mail.codec import Undecodable
from libs.runtime.clock import Clock

T = TypeVar("T")

TURN = 200  # records folded, then others of the event loop have theirs
FRESH_S = 10.0  # rule 7: a 5xx needs a table that was caught up within this time


class Table(Generic[T]):
    """The newest value of each key of `topic` over `partitions`.

    `decode(record)` gives the value kept (None drops the key) and may raise Undecodable: the record is handed
    to `quarantined`, and what was known of its key stays. `changed(record)` is called after each fold.
    `values`: where they are kept, if not in a dict.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        partitions: range,
        decode: Callable[[Record], T | None],
        clock: Clock,
        *,
        quarantined: Callable[[Record], None],
        changed: Callable[[Record], None] = lambda _: None,
        values: MutableMapping[bytes, T] | None = None,
    ) -> None:
        self.values: MutableMapping[bytes, T] = {} if values is None else values
        self._log, self._topic, self._partitions, self._clock = log, topic, partitions, clock
        self._decode, self._quarantined, self._changed = decode, quarantined, changed
        self._caught_up_at: dict[int, float] = {}
        self._ready = asyncio.Event()
        self._waiters: dict[bytes, set[asyncio.Future[None]]] = {}

    def get(self, key: bytes) -> T | None:
        return self.values.get(key)

    def items(self) -> Mapping[bytes, T]:
        return self.values

    async def run(self) -> None:
        """Fold for ever."""
        async with aclosing(self._log.follow(self._topic, dict.fromkeys(self._partitions, BEGIN))) as batches:
            async for batch in batches:
                for count, record in enumerate(batch.records, 1):
                    self._fold(record)
                    if count % TURN == 0:
                        await asyncio.sleep(0)  # somebody waits for an answer out of another table
                if batch.position >= batch.end:
                    self._caught_up_at[batch.partition] = self._clock.mono()
                    if len(self._caught_up_at) == len(self._partitions):
                        self._ready.set()

    @property
    def whole(self) -> bool:
        """Was every partition read to its end?"""
        return self._ready.is_set()

    async def caught_up(self) -> None:
        """Return once every partition has been read to its end."""
        await self._ready.wait()

    def fresh(self, partition: int) -> bool:
        """Was this partition read to its end within FRESH_S?"""
        at = self._caught_up_at.get(partition)
        return at is not None and self._clock.mono() - at < FRESH_S

    def watch(self, key: bytes) -> "asyncio.Future[None]":
        """Done at the next record of `key`. Cancel it when no longer wanted."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, set()).add(future)
        future.add_done_callback(lambda done: self._unwatch(key, done))
        return future

    def _unwatch(self, key: bytes, future: "asyncio.Future[None]") -> None:
        if waiting := self._waiters.get(key):
            waiting.discard(future)
            if not waiting:
                del self._waiters[key]

    def _fold(self, record: Record) -> None:
        try:
            value = None if record.value is None else self._decode(record)
        except Undecodable:
            self._quarantined(record)
            return
        if value is None:
            with suppress(KeyError):
                del self.values[record.key]
        else:
            self.values[record.key] = value
        self._changed(record)
        if self._waiters:
            for future in tuple(self._waiters.get(record.key, ())):
                if not future.done():
                    future.set_result(None)
