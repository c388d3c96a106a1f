"""A client of a Kafka cluster that answers within a bounded time, and the request that aiokafka lacks.

Shell: sockets. Used for everything but producing; each user has a client of its own, because Kafka answers
the requests of one connection in order and a long poll would hold the others up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import sample
from typing import Any, TypeVar

from aiokafka import errors
from aiokafka.protocol.admin import DeleteRecordsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import TopicPartition

from libs.log.contract import Misconfigured, Unavailable
from libs.log.kafka_client import Client

REQUEST_MS = 2000  # a frozen broker accepts connections and never answers: ask another one after this time
RETRY_S = 0.05
TRIES = 3
START_S = 8.0

T = TypeVar("T")

EARLIEST, LATEST = -2, -1  # ListOffsets' words for begin and end; the contract's BEGIN and END are the same


class DescribeLogDirsResponse_v4(Response):  # type: ignore[misc]  # noqa: N801 aiokafka names them so
    """KIP-827: with the size and the free space of each log directory's volume."""

    API_KEY = 35
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "results",
            CompactArray(
                ("error_code", Int16),
                ("log_dir", CompactString("utf-8")),
                (
                    "topics",
                    CompactArray(
                        ("name", CompactString("utf-8")),
                        ("partitions", CompactArray(("partition_index", Int32), ("tags", TaggedFields))),
                        ("tags", TaggedFields),
                    ),
                ),
                ("total_bytes", Int64),
                ("usable_bytes", Int64),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class DescribeLogDirsRequest_v4(RequestStruct):  # type: ignore[misc]  # noqa: N801
    API_KEY = 35
    API_VERSION = 4
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = DescribeLogDirsResponse_v4
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class DescribeLogDirsRequest(Request[DescribeLogDirsRequest_v4]):  # type: ignore[misc]
    """Of no topic at all: only the directories and their volumes."""

    API_KEY = 35

    def build(self, request_struct_class: type[DescribeLogDirsRequest_v4]) -> DescribeLogDirsRequest_v4:
        return request_struct_class([], {})


class Wire:
    """A client of `topics` (Kafka's names). Every method raises Unavailable when no broker can answer."""

    def __init__(self, bootstrap: Sequence[str], topics: Sequence[str], name: str) -> None:
        self._bootstrap, self._topics, self._name = tuple(bootstrap), tuple(topics), name
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def client(self) -> Any:
        """The connected client; connects when there is none."""
        async with self._connecting:
            if self._client is None:
                client = Client(self._bootstrap, self._name, REQUEST_MS)
                try:
                    async with asyncio.timeout(START_S):
                        await client.bootstrap()
                        await client.set_topics(self._topics)
                except (errors.KafkaError, OSError, TimeoutError) as error:
                    await client.close()
                    raise Unavailable(f"no broker of {', '.join(self._bootstrap)} answers") from error
                except BaseException:
                    await client.close()
                    raise
                self._client = client
        return self._client

    async def refresh(self) -> bool:
        """Ask for the leaders again. Has a broker answered?"""
        client = await self.client()
        try:
            async with asyncio.timeout(2 * REQUEST_MS / 1000):  # wait_for of 3.11 may lose a cancellation
                return bool(await client.force_metadata_update())
        except TimeoutError:
            return False

    async def metadata(self, cluster: Any, topics: Iterable[str]) -> bool:
        """Ask about `topics` (none: all) and put the answer into `cluster`, aiokafka's. Has a broker
        answered?"""
        request = MetadataRequest(list(topics) or None, False)
        for node in sample(nodes := await self.nodes(), len(nodes)):
            try:
                cluster.update_metadata(await self.ask(node, request))
            except Unavailable:
                continue
            return True
        return False

    async def leaders(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> node, of those with a known leader; when one has none, the leaders are asked for
        again."""
        client = await self.client()
        found = {
            number: client.cluster.leader_for_partition(TopicPartition(topic, number))
            for number in partitions
        }
        known = {number: node for number, node in found.items() if node is not None and node != -1}
        if len(known) < len(found):
            client.force_metadata_update()
        return known

    async def leader(self, topic: str, partition: int) -> int:
        """The node that leads the partition. Raises Misconfigured when there is no such partition."""
        found = await self.leaders(topic, (partition,))
        if not found:
            answered = await self.refresh()
            found = await self.leaders(topic, (partition,))
            client = await self.client()
            if answered and partition not in (client.cluster.partitions_for_topic(topic) or ()):
                raise Misconfigured(f"there is no partition {partition} of topic {topic}")
        if not found:
            raise Unavailable(f"{topic}/{partition} has no leader")
        return found[partition]

    async def ask(self, node: int, request: Any) -> Any:
        """The response of `node`."""
        client = await self.client()
        try:
            return await client.send(node, request)
        except (errors.KafkaError, OSError, TimeoutError) as error:
            client.force_metadata_update()
            raise Unavailable(f"broker {node} does not answer: {error!r}") from error

    async def nodes(self) -> list[int]:
        client = await self.client()
        return [broker.nodeId for broker in client.cluster.brokers()]

    async def offset(self, topic: str, partition: int, at: int) -> int:
        """The first offset with a time of at least `at` (milliseconds; EARLIEST, LATEST); -1: there is
        none."""
        node = await self.leader(topic, partition)
        response = await self.ask(node, OffsetRequest(-1, 0, [(topic, [(partition, at)])]))
        code, found = response.topics[0][1][0][1], response.topics[0][1][0][3]
        await self.check(code, topic, partition)
        return int(found)

    async def delete_below(self, topic: str, partition: int, offset: int) -> int:
        """Let the leader delete what is below `offset` (-1: everything); returns the error code."""
        node = await self.leader(topic, partition)
        request = DeleteRecordsRequest([(topic, [(partition, offset)])], REQUEST_MS // 2)
        response = await self.ask(node, request)
        return int(response.topics[0][1][0][2])

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` gives; a leader that has just moved is worth another try."""
        for _ in range(TRIES - 1):
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(RETRY_S)
        return await call()

    async def check(self, code: int, topic: str, partition: int) -> None:
        """Raise Unavailable for an error code, and ask for the leaders again."""
        if code:
            await self.refresh()
            raise Unavailable(f"{topic}/{partition}: {errors.for_code(code).__name__}")
