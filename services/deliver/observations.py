"""What deliveries teach about recipients, said on `callouts` for verify; a loss costs a callout, no mail."""

import asyncio
from contextlib import suppress

from libs import topics
from libs.log.contract import Log, LogError
from libs.mail.address import BadAddress, mailbox
from libs.mail.codec import encode
from libs.mail.knowledge import Observed
from libs.runtime.clock import Clock

_ROOM = 5000  # that wait, and that are remembered
_AGAIN_S = 60.0  # the same news of the same recipient is said so often
_AT_ONCE = 100


class Observations:
    """`saw` returns at once; `run` publishes."""

    def __init__(self, log: Log, clock: Clock, partitions: int) -> None:
        self._log, self._clock, self._partitions = log, clock, partitions
        self._waiting: asyncio.Queue[tuple[int, bytes, bytes]] = asyncio.Queue(_ROOM)
        self._said: dict[tuple[str, str], float] = {}

    def saw(self, domain: str, recipient: str, stage: str, reply: str, era: int) -> None:
        """`reply` came to `stage` for `recipient` of relay domain `domain`, in this `era`. Dropped when there
        is no room."""
        now = self._clock.mono()
        news = (recipient, f"{stage} {reply[:3]}")
        if now - self._said.get(news, float("-inf")) < _AGAIN_S or self._waiting.full():
            return
        try:
            key = mailbox(recipient).key
        except BadAddress:
            return  # the bare postmaster: nobody's recipient
        self._said.pop(news, None)
        self._said[news] = now
        while len(self._said) > _ROOM:
            del self._said[next(iter(self._said))]
        record = encode(Observed(recipient, stage, reply, era))
        self._waiting.put_nowait((topics.partition_of(domain, self._partitions), key.encode(), record))

    async def run(self) -> None:
        """For ever."""
        slots = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                partition, key, value = await self._waiting.get()
                await slots.acquire()
                group.create_task(self._append(partition, key, value, slots))

    async def _append(self, partition: int, key: bytes, value: bytes, slots: asyncio.Semaphore) -> None:
        try:
            with suppress(LogError):  # MeasuredLog counts it
                await self._log.append("callouts", partition, key, value, within=10)
        finally:
            slots.release()
