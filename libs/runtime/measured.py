"""A log that is measured: how long appends take, how far each follower is behind. It decides nothing."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing

from libs.log.contract import Batch, Bounds, Claim, Headers, Log, LogError, NotOwner, Owner, Record, Stored
from libs.runtime.clock import Clock
from libs.runtime.clocks import trusts_itself
from libs.runtime.metrics import Metrics


class Follower:
    """How far one follow() is: per partition the records before its end, and when it stood there."""

    def __init__(self, partitions: Mapping[int, int], now: float) -> None:
        self._behind = dict.fromkeys(partitions, 0)
        self._at_end = dict.fromkeys(partitions, now)

    def saw(self, batch: Batch, now: float) -> None:
        behind = batch.end - batch.position
        self._behind[batch.partition] = max(0, behind)
        if behind <= 0:
            self._at_end[batch.partition] = now

    @property
    def records(self) -> int:
        return sum(self._behind.values())

    def seconds(self, now: float) -> float:
        """An end that is not heard of grows old, too: the log may be away."""
        return now - min(self._at_end.values(), default=now)


class MeasuredLog:
    """`log` as it is (see the contract), and in `metrics` what is seen of it."""

    def __init__(self, log: Log, clock: Clock, metrics: Metrics) -> None:
        self._log, self._clock, self._metrics = log, clock, metrics
        self._followers: dict[str, set[Follower]] = {}

    @property
    def clock_trusted(self) -> bool:
        return trusts_itself(self._log)

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
        began = self._clock.mono()
        try:
            stored = await self._log.append(
                topic, partition, key, value, within=within, headers=headers, claim=claim
            )
        except NotOwner:
            raise  # no fault of the log's
        except LogError as error:
            self._metrics.append_errors.labels(topic, type(error).__name__).inc()
            raise
        self._metrics.append_seconds.observe(self._clock.mono() - began, topic)
        return stored

    async def follow(self, topic: str, starts: Mapping[int, int]) -> AsyncGenerator[Batch, None]:
        follower = Follower(starts, self._clock.mono())
        followers = self._of(topic)
        followers.add(follower)
        try:
            async with aclosing(self._log.follow(topic, starts)) as batches:
                async for batch in batches:
                    follower.saw(batch, self._clock.mono())
                    yield batch
        finally:
            followers.remove(follower)

    def _of(self, topic: str) -> set[Follower]:
        """The followers of `topic`, in the metrics from the first on."""
        if (found := self._followers.get(topic)) is not None:
            return found
        found = self._followers[topic] = set()
        records, seconds = (
            gauge.labels(topic) for gauge in (self._metrics.lag_records, self._metrics.lag_seconds)
        )
        records.set_function(lambda: sum(each.records for each in found))
        seconds.set_function(lambda: max((each.seconds(self._clock.mono()) for each in found), default=0.0))
        return found

    async def read(self, topic: str, partition: int, offset: int, key: bytes) -> Record:
        return await self._log.read(topic, partition, offset, key)

    def own(self, group: str, owner: Owner) -> AbstractAsyncContextManager[None]:
        return self._log.own(group, owner)

    async def commit(self, claim: Claim, topic: str, offset: int | None = None) -> int | None:
        return await self._log.commit(claim, topic, offset)

    async def bounds(self, topic: str, partition: int, since: float = 0) -> Bounds:
        return await self._log.bounds(topic, partition, since)

    async def truncate(self, claim: Claim, topic: str, before: int) -> None:
        await self._log.truncate(claim, topic, before)
