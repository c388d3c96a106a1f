"""The log over a real Kafka of one broker: the conformance suite, and what only Kafka can get wrong."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from libs import topics
from libs.log import kafka_topics
from libs.log.contract import Log
from libs.log.kafka import KafkaLog
from libs.runtime.clock import SystemClock
from tests.helpers.patience import PATIENCE_S
from tests.log.contract import Contract, end_of, put, read_to_end
from tests.log.kafka_configure import configure

PARTITIONS = 4
CLEAN = {"min.compaction.lag.ms": "0", "segment.ms": "1", "min.cleanable.dirty.ratio": "0.01"}


class KafkaLogs:
    """One broker; every member is a KafkaLog of its own, as in a process of its own."""

    partitions = PARTITIONS
    content, compacted = "content", "queue"

    def __init__(self, bootstrap: tuple[str, ...], prefix: str, stack: AsyncExitStack) -> None:
        self._bootstrap, self._prefix, self._stack = bootstrap, prefix, stack

    async def member(self) -> Log:
        log = KafkaLog(
            self._bootstrap, partitions=PARTITIONS, replication=1, clock=SystemClock(), prefix=self._prefix
        )
        await log.start()
        self._stack.push_async_callback(log.close)
        return log

    async def compact(self, partition: int) -> None:
        """Let the cleaner run at once, roll the segment with fillers until nothing superseded is left."""
        log = await self.member()
        end = await end_of(log, self.compacted, partition)
        await self._configure(CLEAN)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await put(log, self.compacted, partition, b"~filler")
                    keys = [
                        each.key
                        for each in await read_to_end(log, self.compacted, partition)
                        if each.offset < end
                    ]
                    if len(set(keys)) == len(keys):
                        return
                    await asyncio.sleep(0.2)
        finally:
            await self._configure({})

    async def _configure(self, over: dict[str, str]) -> None:
        config = {**kafka_topics.settings(topics.TOPICS[self.compacted], 1), **over}
        await configure(self._bootstrap, self._prefix + self.compacted, config)


PREFIX = f"c{os.getpid()}."


class TestKafka(Contract):
    """The suite over Kafka."""

    @pytest.fixture
    async def logs(self, broker: tuple[str, ...]) -> AsyncIterator[KafkaLogs]:
        await kafka_topics.apply(broker, partitions=PARTITIONS, replication=1, prefix=PREFIX)
        async with AsyncExitStack() as stack:
            yield KafkaLogs(broker, PREFIX, stack)
