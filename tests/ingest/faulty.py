"""A log whose appends can be made to fail, to wait, or to be answered wrongly: the real one does the rest."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from libs.log.contract import Batch, Bounds, Log, NotStored, Stored


class Faulty:
    """`fail[topic]`: errors for its next appends, None for one that works; `after`: the record is stored and
    the error raised all the same (Ambiguous). `hold[topic]`: appends wait until the event is set. `silent`:
    followers hear nothing, as when the log cannot be reached. `appended`: (topic, size) of each append.
    `disk`: the share of its disk that the log says is used. `away`: topics that store nothing."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.fail: dict[str, deque[BaseException | None]] = defaultdict(deque)
        self.after = False
        self.hold: dict[str, asyncio.Event] = {}
        self.silent = False
        self.away: set[str] = set()
        self.disk: float | None = None
        self.appended: list[tuple[str, int]] = []
        self.tombstones: list[bytes] = []

    async def append(self, topic: str, partition: int, key: bytes, value: bytes | None, **how: Any) -> Stored:
        self.appended.append((topic, len(value or b"")))
        if value is None:
            self.tombstones.append(key)
        if (event := self.hold.get(topic)) is not None:
            await event.wait()
        if topic in self.away:
            raise NotStored("away")
        error = self.fail[topic].popleft() if self.fail[topic] else None
        if error is not None and not self.after:
            raise error
        stored = await self._log.append(topic, partition, key, value, **how)
        if error is not None:
            raise error
        return stored

    async def follow(self, topic: str, starts: Mapping[int, int]) -> AsyncIterator[Batch]:
        async for batch in self._log.follow(topic, starts):
            while self.silent:  # noqa: ASYNC110 a switch of the test
                await asyncio.sleep(0.01)
            yield batch

    async def bounds(self, topic: str, partition: int, since: float = 0) -> Bounds:
        found = await self._log.bounds(topic, partition, since)
        return found if self.disk is None else found._replace(disk=self.disk)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)
