"""The log over Apache Kafka. Shell: it puts the parts together.

kafka_produce: appending     kafka_read: following     kafka_record: one record     kafka_group: ownership
kafka_line: one producer     kafka_topics: the settings     kafka_wire: the client underneath all the others
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from aiokafka import errors

from libs import topics
from libs.log import kafka_read, kafka_topics
from libs.log.contract import (
    Batch,
    Bounds,
    Claim,
    Headers,
    Misconfigured,
    NotOwner,
    Owner,
    Record,
    Stored,
    Unavailable,
)
from libs.log.kafka_group import KafkaClaim, Membership, member
from libs.log.kafka_line import Item
from libs.log.kafka_produce import Lane
from libs.log.kafka_record import Reader
from libs.log.kafka_wire import EARLIEST, LATEST, DescribeLogDirsRequest, Wire
from libs.runtime.clock import Clock

# A chunk may take long on a slow link; a commit should find the new leader soon.
BULK_MS, STATE_MS = 15_000, 2_000
DISK_S = 10.0
TRY_S = 0.25
CHECK_S, CHECK_AGAIN_S = 3600.0, 60.0
KEPT = (topics.CONTENT.name, topics.QUEUE.name)
NUMBERS = topics.QUEUE.name  # the topic whose numbers a group shares out


class KafkaLog:
    """See the contract. `bootstrap`: `host:port` of some brokers. `partitions`: N. `replication`: how many
    replicas each topic should have. `prefix`: before the names of topics and groups, for a cluster shared
    with others. `differences`: by topic, what differs from libs/topics.py, in sentences (read at start and
    hourly)."""

    def __init__(
        self,
        bootstrap: Sequence[str],
        *,
        partitions: int,
        replication: int,
        clock: Clock,
        prefix: str = "",
        name: str = "log",
    ) -> None:
        self._bootstrap, self._clock, self._prefix, self._name = tuple(bootstrap), clock, prefix, name
        self._partitions, self._replication = partitions, replication
        names = {topic: prefix + topic for topic in topics.TOPICS}
        content = names.pop(topics.CONTENT.name)
        everything = (content, *names.values())
        self._reads = Wire(bootstrap, everything, f"{name}-read")
        self._reader = Reader(self._reads)
        self._ends = Wire(bootstrap, everything, f"{name}-ends")
        self._bulk = Lane(bootstrap, (content,), f"{name}-content", BULK_MS, self._ends)
        # A client waits for these at RCPT.
        prompt = {names[topic.name] for topic in (topics.CALLOUTS, topics.RECIPIENTS)}
        state = tuple(names.values())
        self._state = Lane(bootstrap, state, f"{name}-state", STATE_MS, self._ends, prompt)
        self._disk: tuple[float, float] = (float("-inf"), 0.0)
        self._checking: asyncio.Task[None] | None = None
        self.differences: Mapping[str, list[str]] = {}

    async def start(self, within: float = 30.0) -> None:
        """Connect. Raises Unavailable after `within` seconds without success, and may then be called
        again."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within):
                for part in (
                    self._reads.client,
                    self._ends.client,
                    self._bulk.start,
                    self._state.start,
                    self._check,
                ):
                    await _until_available(part)
        except TimeoutError:
            await self.close()
            raise Unavailable(f"no answer of {', '.join(self._bootstrap)} within {within:g} s") from None
        except BaseException:
            await self.close()
            raise
        self._checking = self._loop.create_task(self._check_hourly())

    async def _check(self) -> None:
        """Compare the topics with libs/topics.py. Raises Unavailable."""
        self.differences = await kafka_topics.differences(
            self._ends,
            topics.TOPICS,
            partitions=self._partitions,
            replication=self._replication,
            prefix=self._prefix,
        )

    async def _check_hourly(self) -> None:
        wait = CHECK_S
        while True:
            await asyncio.sleep(wait)
            try:
                await self._check()
                wait = CHECK_S
            except Unavailable:
                wait = CHECK_AGAIN_S

    async def close(self) -> None:
        """What waits and was not handed over is NotStored, what was and is not acknowledged is Ambiguous."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait({self._checking})
            self._checking = None
        for part in (self._bulk, self._state, self._reads, self._ends):
            await part.close()

    def _topic(self, topic: str) -> str:
        if topic not in topics.TOPICS:
            raise Misconfigured(f"there is no topic {topic}")
        return self._prefix + topic

    def _agreed(self, topic: str) -> None:
        """New mail must not go into a topic that may lose it; an owner's state and a tombstone still may."""
        if topic in KEPT and (found := self.differences.get(topic)):
            raise Misconfigured(" ".join(found))

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
        name = self._topic(topic)
        if claim is not None and not claim.held():
            raise NotOwner(f"{claim.group} does not hold {claim.partition}")
        if claim is None and value is not None:
            self._agreed(topic)
        item = Item(key, value, headers, claim, self._loop.create_future())
        lane = self._bulk if topic == topics.CONTENT.name else self._state
        return await lane.append(name, partition, item, within)

    def follow(self, topic: str, starts: Mapping[int, int]) -> AsyncGenerator[Batch, None]:
        name = self._topic(topic)
        wire = Wire(self._bootstrap, (name,), f"{self._name}-{topic}")
        return kafka_read.follow(wire, name, topic, starts)

    async def read(self, topic: str, partition: int, offset: int, key: bytes) -> Record:
        name = self._topic(topic)
        return await self._reads.patiently(lambda: self._reader.read(name, topic, partition, offset, key))

    def own(self, group: str, owner: Owner) -> AbstractAsyncContextManager[None]:
        return self._own(group, owner)

    @contextlib.asynccontextmanager
    async def _own(self, group: str, owner: Owner) -> AsyncIterator[None]:
        membership = Membership(
            self._bootstrap, group, self._prefix + group, self._topic(NUMBERS), owner, self._clock
        )
        async with member(membership):
            yield

    async def commit(self, claim: Claim, topic: str, offset: int | None = None) -> int | None:
        if not isinstance(claim, KafkaClaim):
            raise NotOwner(f"{claim.group} does not hold {claim.partition}: the claim is of another log")
        return await claim.membership.commit(claim, self._topic(topic), offset)

    async def bounds(self, topic: str, partition: int, since: float = 0) -> Bounds:
        name = self._topic(topic)
        begin, end, first = await self._ends.patiently(lambda: self._ranges(name, partition, since))
        return Bounds(begin, end, first, await self._ends.patiently(self._used))

    async def _ranges(self, name: str, partition: int, since: float) -> tuple[int, int, int]:
        begin, end = await asyncio.gather(
            self._ends.offset(name, partition, EARLIEST), self._ends.offset(name, partition, LATEST)
        )
        if since <= 0:
            return begin, end, begin
        first = await self._ends.offset(name, partition, math.ceil(since * 1000))
        return begin, end, end if first < 0 else max(first, begin)

    async def _used(self) -> float:
        """The share of the fullest log directory's volume that is used, asked for each DISK_S."""
        at, used = self._disk
        now = self._loop.time()
        if now - at >= DISK_S:
            used = max(await self._shares())
            self._disk = (now, used)
        return used

    async def _shares(self) -> Iterable[float]:
        nodes = await self._ends.nodes()
        answers = await asyncio.gather(
            *(self._ends.ask(node, DescribeLogDirsRequest()) for node in nodes), return_exceptions=True
        )
        shares = []
        for answer in answers:
            if isinstance(answer, Unavailable):
                continue  # a broker that is down has no disk to fill
            if isinstance(answer, BaseException):
                raise answer
            shares += [
                1 - free / total for code, _, _, total, free, _ in answer.results if not code and total > 0
            ]
        if not shares:
            raise Unavailable("no broker tells about its disks")
        return shares

    async def replicas(self) -> kafka_topics.Replicas:
        """How its topics are kept now. Raises Unavailable."""
        return await kafka_topics.replicas(self._ends, replication=self._replication, prefix=self._prefix)

    async def truncate(self, claim: Claim, topic: str, before: int) -> None:
        if not claim.held():
            raise NotOwner(f"{claim.group} does not hold {claim.partition}")
        self._agreed(topic)
        name = self._topic(topic)
        code = await self._ends.delete_below(name, claim.partition, before)
        if code == errors.OffsetOutOfRangeError.errno:  # beyond the end: everything
            code = await self._ends.delete_below(name, claim.partition, -1)
        if code == errors.PolicyViolationError.errno:
            raise Misconfigured(f"{topic} is compacted: nothing can be truncated")
        await self._ends.check(code, name, claim.partition)


async def _until_available(call: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await call()
        except Unavailable:
            await asyncio.sleep(TRY_S)
        else:
            return
