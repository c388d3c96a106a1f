"""Verdicts as they come: a tail of the topic, and who waits for which mail.

Where verify does not answer nobody waits any more (patience.py); the content is the request all the same,
so the first verdict that is seen of a partition shows that it is back.
"""

import asyncio
from contextlib import aclosing

import structlog

from libs.log.contract import END, Record
from libs.log.deadlines import Deadlines
from libs.mail.codec import Undecodable, decode
from libs.mail.records import Verdict
from libs.runtime.deps import Deps
from services.ingest.patience import FULL_PATIENCE, Patience

log = structlog.get_logger()


class Verdicts:
    """`run` for ever; `expect` an id before the verdict can come, then `wait` for it once."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._waiting: dict[bytes, asyncio.Future[Verdict]] = {}
        self._patience: dict[int, Patience] = {}
        self._deadlines = Deadlines()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        starts = dict.fromkeys(range(self._deps.partitions), END)
        async with aclosing(self._deps.log.follow("verdicts", starts)) as batches:
            async for batch in batches:
                if batch.records:
                    self._patience.pop(batch.partition, None)
                for record in batch.records:
                    self._came(record)

    def expect(self, id_: str) -> None:
        self._waiting[id_.encode()] = self._loop.create_future()

    def forget(self, id_: str) -> None:
        """The mail will not be committed."""
        self._waiting.pop(id_.encode(), None)

    async def wait(self, id_: str, partition: int, within: float) -> Verdict | None:
        """The verdict of an expected id; None when it did not come within `within` seconds."""
        future = self._waiting[id_.encode()]
        try:
            if future.done():
                return future.result()
            now = self._deps.clock.mono()
            patience = self._patience.get(partition, FULL_PATIENCE)
            if not patience.waits(now):
                return None
            self._patience[partition] = patience.began(now)
            self._deadlines.watch(future, within)
            return await future
        except TimeoutError:
            before = self._patience.get(partition, FULL_PATIENCE)
            self._patience[partition] = before.timed_out(self._deps.clock.mono())
            return None
        finally:
            self.forget(id_)

    def _came(self, record: Record) -> None:
        future = self._waiting.get(record.key)
        if future is None or future.done() or record.value is None:
            return
        try:
            future.set_result(decode(record.value, Verdict))
        except Undecodable:
            self._deps.quarantined(record)
