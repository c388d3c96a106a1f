"""One aiokafka producer, and the records that it is given: started, handed batches, ended for good.

Shell: sockets and tasks. What aiokafka keeps to itself and we need stands here alone: the moment of handing
over, giving up, a batch that lies with a broker that was deposed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer, errors
from aiokafka.client import CloseReason, ConnectionGroup
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from libs.log.contract import Claim, Headers, LogError, Stored, Unavailable
from libs.log.kafka_client import bootstrap as find_brokers
from libs.log.kafka_request import Produce
from libs.log.kafka_wire import Wire

BATCH = 1_000_000  # octets; a topic takes batches of up to 1 MiB
LARGEST = 2**20 - 512  # octets of one record with its headers: alone in a batch it still fits
START_S = 8.0
CANCEL_S = 5.0
LATE_S = 2.0  # a batch without an answer: is its broker still the leader?


class Item:
    """One record on its way. `line`: the producer it was handed to."""

    __slots__ = ("claim", "future", "headers", "key", "line", "size", "value")

    def __init__(
        self,
        key: bytes,
        value: bytes | None,
        headers: Headers,
        claim: Claim | None,
        future: "asyncio.Future[Stored]",
    ) -> None:
        self.key, self.value, self.headers, self.claim, self.future = key, value, list(headers), claim, future
        self.size = int(DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, self.headers))
        self.line: Line | None = None

    def fail(self, error: LogError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Line:
    """One aiokafka producer. `stuck`: partitions it may not be given anything for any more."""

    def __init__(self, bootstrap: Sequence[str], name: str, timeout_ms: int, wire: Wire) -> None:
        self._wire = wire
        self._producer = AIOKafkaProducer(
            bootstrap_servers=list(bootstrap),
            client_id=f"backupmx-{name}",
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=timeout_ms,
            retry_backoff_ms=50,
            max_batch_size=BATCH,
            max_request_size=LARGEST,
        )
        self.stuck: set[TopicPartition] = set()
        self._sent: dict[TopicPartition, Any] = {}
        self._since: dict[TopicPartition, tuple[float, int | None]] = {}  # when, to which leader
        self.batches: dict[TopicPartition, list[Item]] = {}

    async def start(self, topics: Sequence[str]) -> None:
        """Connect, get a producer id, learn the leaders. Raises Unavailable; then nothing is left open."""
        # A producer that is patient with a slow link would be as patient with a frozen broker when it looks
        # for the leaders: let somebody else look.
        client = self._producer.client
        client._metadata_update = self._metadata
        client.bootstrap = partial(find_brokers, client)
        client.send = partial(_packed, client.send)
        try:
            async with asyncio.timeout(START_S):
                await self._producer.start()
                answered = await client.set_topics(topics)
        except (errors.KafkaError, OSError, TimeoutError) as error:
            await self.discard()
            raise Unavailable(f"no producer: {error!r}") from error
        except BaseException:
            await self.discard()
            raise
        if not answered:
            await self.discard()
            raise Unavailable("no broker tells about the topics")

    async def _metadata(self, cluster: Any, topics: Iterable[str]) -> bool:
        try:
            return await self._wire.metadata(cluster, topics)
        except Unavailable:
            return False

    @property
    def dead(self) -> bool:
        """Has aiokafka's sender given up?"""
        task = self._producer._sender.sender_task
        return task is None or task.done() or self._producer._message_accumulator._exception is not None

    def knows(self, at: TopicPartition) -> bool:
        """Is the partition in the metadata? When it is not, the brokers are asked again, for the next
        time."""
        known = at.partition in (self._producer.client.cluster.partitions_for_topic(at.topic) or ())
        if not known:
            self._producer.client.force_metadata_update()
        return known

    def builder(self) -> Any:
        return self._producer.create_batch()

    def send(self, at: TopicPartition, builder: Any, items: list[Item]) -> "asyncio.Future[Any]":
        """Give the batch to the sender, at once. From here on nobody knows until the future does."""
        builder.close()
        self.batches[at] = items
        for item in items:
            item.line = self
        batch: Any = self._producer._message_accumulator._append_batch(builder, at)
        self._sent[at] = batch
        self._since[at] = (asyncio.get_running_loop().time(), self._leader(at))
        future: asyncio.Future[Any] = batch.future
        return future

    def _leader(self, at: TopicPartition) -> int | None:
        leader: int | None = self._producer.client.cluster.leader_for_partition(at)
        return leader

    async def leave_deposed(self) -> None:
        """Hang up on a broker that keeps a batch and does not lead its partition any more: it is frozen or
        cut off, and the batch goes to the new leader, which stores it once."""
        now = asyncio.get_running_loop().time()
        late = {at: self._since[at][1] for at in self.batches if now - self._since[at][0] > LATE_S}
        if not late or not await self._wire.refresh():
            return
        deposed = set()
        for at, node in late.items():
            leader = (await self._wire.leaders(at.topic, (at.partition,))).get(at.partition)
            if leader is not None and leader != node:
                deposed.add(node)
                self._since[at] = (now, leader)
        for node in deposed:
            connection = self._producer.client._conns.get((node, ConnectionGroup.DEFAULT))
            if connection is not None:
                connection.close(reason=CloseReason.CONNECTION_TIMEOUT)

    @property
    def awaited(self) -> bool:
        """Does anybody still wait for something handed over?"""
        return any(not item.future.done() for items in self.batches.values() for item in items)

    async def discard(self) -> None:
        """End it for good: stop() would go on sending, or hang. What is under way fails."""
        producer, self._producer._closed = self._producer, True
        client, sender = producer.client, producer._sender

        async def refuse(*_: Any, **__: Any) -> Any:
            raise errors.KafkaConnectionError("this producer was discarded")

        client.send = refuse  # a request that is being prepared must not open a new connection
        for connection in list(client._conns.values()):
            connection.close()
        task = sender.sender_task
        deadline = asyncio.get_running_loop().time() + CANCEL_S
        while task is not None and not task.done() and asyncio.get_running_loop().time() < deadline:
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_S / 5)
        producer._message_accumulator.fail_all(errors.ProducerClosed())
        for batch in self._sent.values():
            if batch._drain_waiter.done():
                batch._drain_waiter.exception()  # nobody waits for it; asyncio would report it as forgotten
        await client.close()


async def _packed(send: Callable[..., Awaitable[Any]], node: int, request: Any, **how: Any) -> Any:
    return await send(node, Produce(request) if isinstance(request, ProduceRequest) else request, **how)
