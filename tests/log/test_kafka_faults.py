"""Three real brokers, each of which may be killed, frozen or stopped while the log is in use."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from itertools import pairwise

import pytest

from deploy.kafka.cluster import Cluster
from libs.log.contract import BEGIN, Ambiguous, LogError, NotStored, Record, Stored, Unavailable
from libs.log.kafka import KafkaLog
from tests.helpers.kafka import log_on
from tests.helpers.patience import PATIENCE_S, until
from tests.log.contract import fresh_key, read_to_end

PARTITIONS = 3
TOPICS = ("content", "queue")

pytestmark = pytest.mark.xdist_group("brokers")


@pytest.fixture
async def log(brokers: Cluster) -> AsyncIterator[KafkaLog]:
    async with log_on(brokers.bootstrap, partitions=PARTITIONS, replication=3) as started:
        yield started


class Writers:
    """Append to every partition of content and queue, for ever; note what was said of each record."""

    def __init__(self, log: KafkaLog, within: float = 30.0) -> None:
        self._log, self._within = log, within
        self.said: dict[bytes, tuple[str, int, Stored | LogError]] = {}
        self.longest = 0.0

    async def run(self, ended: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for topic in TOPICS:
                for number in range(PARTITIONS):
                    for _ in range(3):
                        group.create_task(self._write(topic, number, ended))

    async def _write(self, topic: str, number: int, ended: asyncio.Event) -> None:
        size = 20_000 if topic == "content" else 400
        while not ended.is_set():
            key, began = fresh_key(), time.monotonic()
            said: Stored | LogError
            try:
                said = await self._log.append(topic, number, key, bytes(size), within=self._within)
            except LogError as error:
                said = error
            self.longest = max(self.longest, time.monotonic() - began)
            self.said[key] = (topic, number, said)
            await asyncio.sleep(0.005)

    @property
    def stored(self) -> int:
        return sum(isinstance(said, Stored) for _, _, said in self.said.values())

    async def account(self) -> None:
        """Stored: there, once, where it was said. NotStored: not there. Ambiguous: at most once."""
        found: dict[bytes, list[Record]] = {}
        for topic in TOPICS:
            for number in range(PARTITIONS):
                for record in await patiently(partial(read_to_end, self._log, topic, number, BEGIN)):
                    found.setdefault(record.key, []).append(record)
        for key, (topic, number, said) in self.said.items():
            here = [(each.topic, each.partition, each.offset) for each in found.get(key, [])]
            if isinstance(said, Stored):
                assert here == [(topic, number, said.offset)]
            elif isinstance(said, NotStored):
                assert here == []
            else:
                assert isinstance(said, Ambiguous)
                assert len(here) <= 1
        assert found.keys() <= self.said.keys()


async def patiently(call: Callable[[], Awaitable[list[Record]]]) -> list[Record]:
    """Unavailable means: try again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.2)


async def through(log: KafkaLog, fault: Callable[[], Awaitable[None]], within: float = 30.0) -> Writers:
    """Write before, through and after the fault."""
    writers, ended = Writers(log, within), asyncio.Event()
    running = asyncio.create_task(writers.run(ended))
    try:
        await until(lambda: writers.stored >= 300)
        await fault()
        after = writers.stored
        await until(lambda: writers.stored >= after + 300)
    finally:
        ended.set()
        await running
    return writers


async def leads(log: KafkaLog, topic: str, number: int) -> int:
    return await log._reads.leader(log._topic(topic), number)


async def test_a_killed_broker_costs_a_wait_and_no_record(brokers: Cluster, log: KafkaLog) -> None:
    """kill -9 of one of three brokers while it leads: no caller sees an error, every acknowledged record is
    there once, and the longest wait is under 10 s."""
    dead = await leads(log, "queue", 0)

    async def fault() -> None:
        brokers.kill(dead)
        await asyncio.sleep(6)

    writers = await through(log, fault)
    assert not [said for _, _, said in writers.said.values() if isinstance(said, LogError)]
    assert writers.longest < 10
    await writers.account()
    brokers.restart(dead)
    await brokers.ready()


async def test_a_frozen_broker_costs_a_wait_and_no_record(brokers: Cluster, log: KafkaLog) -> None:
    """A broker that accepts connections and never answers is left for another one; when it is back after 12 s
    nothing appears that was not acknowledged, nothing twice, and nothing is gone."""
    frozen = await leads(log, "queue", 0)

    async def fault() -> None:
        brokers.freeze(frozen)
        await asyncio.sleep(12)
        brokers.thaw(frozen)

    writers = await through(log, fault)
    assert not [said for _, _, said in writers.said.values() if isinstance(said, LogError)]
    assert writers.longest < 10
    await brokers.ready()
    await writers.account()


async def test_impatient_writers_are_told_the_truth(brokers: Cluster, log: KafkaLog) -> None:
    """Writers that wait half a second while a broker is frozen get errors, and each error means what it says,
    also for what the frozen broker still had in its sockets."""
    frozen = await leads(log, "queue", 0)

    async def fault() -> None:
        brokers.freeze(frozen)
        await asyncio.sleep(6)
        brokers.thaw(frozen)

    writers = await through(log, fault, within=0.5)
    said = [type(said) for _, _, said in writers.said.values()]
    assert Ambiguous in said
    assert NotStored in said
    await brokers.ready()
    await writers.account()


async def test_without_a_quorum_nothing_is_promised(brokers: Cluster, log: KafkaLog) -> None:
    """With one of three replicas left no append is acknowledged; when the brokers are back, appends are, and
    every record that was acknowledged before is there."""
    dead = [number for number in range(3) if number != await leads(log, "queue", 0)]
    promised: list[int] = []
    writers, ended = Writers(log, within=2.0), asyncio.Event()
    running = asyncio.create_task(writers.run(ended))
    try:
        await until(lambda: writers.stored >= 300)
        for number in dead:
            brokers.kill(number)
        await asyncio.sleep(1)  # what was acknowledged by two replicas before the second one died
        promised.append(writers.stored)
        await asyncio.sleep(6)
        promised.append(writers.stored)
        for number in dead:
            brokers.restart(number)
        await brokers.ready()
        await until(lambda: writers.stored >= promised[1] + 300)
    finally:
        ended.set()
        await running
    assert promised[0] == promised[1]
    await writers.account()


async def test_a_follower_survives_a_broker(brokers: Cluster, log: KafkaLog) -> None:
    """A follower gets every record once and in order although the leader it reads from is killed; while it
    hears nothing of a partition it yields nothing for it."""
    dead = await leads(log, "content", 1)
    got: dict[int, list[Record]] = {number: [] for number in range(PARTITIONS)}
    heard: dict[int, list[float]] = {number: [] for number in range(PARTITIONS)}
    ended = asyncio.Event()

    async def follow() -> None:
        async with aclosing(log.follow("content", dict.fromkeys(range(PARTITIONS), BEGIN))) as following:
            async for batch in following:
                got[batch.partition] += batch.records
                heard[batch.partition].append(time.monotonic())

    async def fault() -> None:
        brokers.kill(dead)
        await asyncio.sleep(5)

    following = asyncio.create_task(follow())
    try:
        writers = await through(log, fault)
        wanted = {
            key
            for key, (topic, _, said) in writers.said.items()
            if topic == "content" and isinstance(said, Stored)
        }
        await until(lambda: wanted <= {each.key for records in got.values() for each in records})
    finally:
        ended.set()
        following.cancel()
        await asyncio.wait({following})
    for records in got.values():
        offsets = [each.offset for each in records]
        assert offsets == sorted(set(offsets))
    pauses = [max(b - a for a, b in pairwise(of)) for of in heard.values()]
    assert max(pauses) < 10
    brokers.restart(dead)
    await brokers.ready()


async def test_a_stopped_broker_is_not_noticed(brokers: Cluster, log: KafkaLog) -> None:
    """A broker that is asked to stop hands its partitions over: no error, and the longest wait is under 8
    s."""
    stopped = await leads(log, "queue", 1)
    writers = await through(log, lambda: asyncio.to_thread(brokers.terminate, stopped))
    assert not [said for _, _, said in writers.said.values() if isinstance(said, LogError)]
    assert writers.longest < 8
    await writers.account()
    brokers.restart(stopped)
    await brokers.ready()
