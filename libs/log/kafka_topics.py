"""The topics on a Kafka cluster: create what is missing, and say what differs from libs/topics.py.

Shell: sockets. `apply` never changes a topic that exists: what its settings mean for the mail in it is for a
person to decide, who is told by `check`.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import errors
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from libs import topics
from libs.log.contract import Misconfigured, Unavailable
from libs.log.kafka_wire import LATEST, RETRY_S, Wire

APPLY_S = 60.0
CREATE_MS = 15_000
TOPIC = 2  # Kafka's resource type

_FLUSHED = (topics.CONTENT.name, topics.QUEUE.name)


def settings(topic: topics.Topic, replication: int) -> Mapping[str, str]:
    """The settings of `topic` with this many replicas. A single one has to be on disk before it counts."""
    if replication == 1:
        flush = {"flush.messages": "1"} if topic.name in _FLUSHED else {}
        return {**topic.config, "min.insync.replicas": "1", **flush}
    return {**topic.config, "min.insync.replicas": str(replication // 2 + 1)}


async def apply(
    bootstrap: Sequence[str],
    *,
    partitions: int,
    replication: int,
    prefix: str = "",
    only: Iterable[str] = tuple(topics.TOPICS),
    within: float = APPLY_S,
) -> list[str]:
    """Create the topics that are missing; returns their names. Returns when every topic has its leaders.

    Raises Unavailable, and Misconfigured when the cluster refuses.
    """
    wanted = {prefix + name: topics.TOPICS[name] for name in only}
    wire = Wire(bootstrap, (), "topics")
    created: list[str] = []
    try:
        async with asyncio.timeout(within):
            while True:
                try:
                    found = await _described(wire, list(wanted))
                    missing = [name for name in wanted if name not in found]
                    if missing:
                        created += await _create(
                            wire, {n: wanted[n] for n in missing}, partitions, replication
                        )
                    elif await _serving(wire, found):
                        return [name.removeprefix(prefix) for name in created]
                except Unavailable:
                    await wire.refresh()
                await asyncio.sleep(RETRY_S)
    except TimeoutError:
        raise Unavailable(f"the topics are not ready after {within:.0f} s") from None
    finally:
        await wire.close()


async def check(
    bootstrap: Sequence[str],
    *,
    partitions: int,
    replication: int,
    prefix: str = "",
    only: Iterable[str] = tuple(topics.TOPICS),
) -> list[str]:
    """What differs from libs/topics.py, a sentence each; [] when nothing does. Raises Unavailable."""
    wire = Wire(bootstrap, (), "topics")
    try:
        found = await differences(wire, only, partitions=partitions, replication=replication, prefix=prefix)
        return [sentence for sentences in found.values() for sentence in sentences]
    finally:
        await wire.close()


async def differences(
    wire: Wire, only: Iterable[str], *, partitions: int, replication: int, prefix: str = ""
) -> dict[str, list[str]]:
    """The same over a connected client, by topic (without the prefix); a topic without differences is not
    there."""
    wanted = {prefix + name: topics.TOPICS[name] for name in only}
    found = await _described(wire, list(wanted))
    configured = await _configured(wire, list(found))
    result = {}
    for name, topic in wanted.items():
        if name in found:
            expected = settings(topic, replication)
            sentences = _compared(
                name, found[name], configured.get(name, {}), expected, partitions, replication
            )
        else:
            sentences = [f"Topic {name} is missing."]
        if sentences:
            result[topic.name] = sentences
    return result


def _compared(
    name: str,
    found: Mapping[int, tuple[int, list[int]]],
    actual: Mapping[str, str],
    expected: Mapping[str, str],
    partitions: int,
    replication: int,
) -> list[str]:
    sentences = []
    if len(found) != partitions:
        sentences.append(f"Topic {name} has {len(found)} partitions, not {partitions}.")
    copies = {len(replicas) for _, replicas in found.values()}
    sentences += [
        f"Topic {name} has partitions with {count} replicas, not {replication}."
        for count in sorted(copies - {replication})
    ]
    sentences += [
        f"Topic {name} has {key}={actual.get(key)}, not {value}."
        for key, value in expected.items()
        if actual.get(key) != value
    ]
    return sentences


class Replicas(NamedTuple):
    """Numbers of partitions: that take no record, for want of replicas in sync; with any replica that is not
    in sync; without a leader."""

    below_min: int
    under_replicated: int
    offline: int


async def replicas(wire: Wire, *, replication: int, prefix: str = "") -> Replicas:
    """Of all topics. Raises Unavailable."""
    names = [prefix + name for name in topics.TOPICS]
    response = await wire.ask(await _any(wire), MetadataRequest(names, False))
    seen = [
        (leader, len(copies), len(in_sync))
        for code, _, _, partitions in response.topics
        if code == 0
        for _, _, leader, copies, in_sync, *_ in partitions
    ]
    least = replication // 2 + 1
    return Replicas(
        below_min=sum(in_sync < least for _, _, in_sync in seen),
        under_replicated=sum(in_sync < copies for _, copies, in_sync in seen),
        offline=sum(leader < 0 for leader, _, _ in seen),
    )


async def _described(wire: Wire, names: Sequence[str]) -> dict[str, dict[int, tuple[int, list[int]]]]:
    """Topic -> partition -> (leader or -1, replicas), of the topics that exist."""
    response = await wire.ask(await _any(wire), MetadataRequest(list(names), False))
    found = {}
    for code, name, _, partitions in response.topics:
        if code == 0:
            found[name] = {number: (leader, replicas) for _, number, leader, replicas, *_ in partitions}
        elif errors.for_code(code) is not errors.UnknownTopicOrPartitionError:
            raise Unavailable(f"topic {name}: {errors.for_code(code).__name__}")
    return found


async def _serving(wire: Wire, found: Mapping[str, Mapping[int, tuple[int, list[int]]]]) -> bool:
    """Does the leader of every partition know that it is?"""
    by_node: dict[int, list[tuple[str, list[tuple[int, int]]]]] = {}
    for name, of in found.items():
        for node in {leader for leader, _ in of.values()}:
            numbers = [(number, LATEST) for number, (leader, _) in of.items() if leader == node]
            by_node.setdefault(node, []).append((name, numbers))
    if -1 in by_node:
        return False
    answers = [await wire.ask(node, OffsetRequest(-1, 0, asked)) for node, asked in by_node.items()]
    return not any(part[1] for answer in answers for _, parts in answer.topics for part in parts)


async def _configured(wire: Wire, names: Sequence[str]) -> dict[str, dict[str, str]]:
    request = DescribeConfigsRequest([(TOPIC, name, None) for name in names])
    response = await wire.ask(await _any(wire), request)
    result = {}
    for code, message, _, name, entries in response.resources:
        if code:
            raise Unavailable(f"settings of topic {name}: {message or errors.for_code(code).__name__}")
        result[name] = {entry[0]: entry[1] for entry in entries}
    return result


async def _create(
    wire: Wire, wanted: Mapping[str, topics.Topic], partitions: int, replication: int
) -> list[str]:
    """Ask for the topics; returns those that this call made."""
    requests: list[Any] = [
        (name, partitions, replication, [], list(settings(topic, replication).items()))
        for name, topic in wanted.items()
    ]
    response = await wire.ask(await _controller(wire), CreateTopicsRequest(requests, CREATE_MS, False))
    made = []
    for name, code, message in response.topic_errors:
        error = errors.for_code(code)
        if code == 0:
            made.append(name)
        elif error is errors.TopicAlreadyExistsError:
            continue  # somebody else does the same right now
        elif error.retriable or error is errors.InvalidReplicationFactorError:
            raise Unavailable(f"topic {name}: {message or error.__name__}")  # not enough brokers yet
        else:
            raise Misconfigured(f"topic {name} cannot be made: {message or error.__name__}")
    return made


async def _any(wire: Wire) -> int:
    nodes = await wire.nodes()
    if not nodes:
        raise Unavailable("no broker is known")
    return nodes[0]


async def _controller(wire: Wire) -> int:
    client = await wire.client()
    controller = client.cluster.controller
    return int(controller.nodeId) if controller is not None else await _any(wire)
