"""The topics on a real cluster: created as libs/topics.py says, compared with it, and believed only when
equal."""

import pytest

from libs import topics
from libs.log import kafka_topics
from libs.log.contract import Claim, Misconfigured, Unavailable
from libs.log.kafka import KafkaLog
from libs.runtime.clock import SystemClock
from tests.helpers.kafka import fresh, log_on
from tests.helpers.patience import PATIENCE_S, until
from tests.log.contract import Keeper, Ledger, owning, put
from tests.log.kafka_configure import configure


async def test_apply_is_idempotent(broker: tuple[str, ...]) -> None:
    """The first apply creates every topic, the second one nothing, and nothing differs afterwards."""
    prefix = fresh()
    first = await kafka_topics.apply(broker, partitions=3, replication=1, prefix=prefix)
    assert sorted(first) == sorted(topics.TOPICS)
    assert await kafka_topics.apply(broker, partitions=3, replication=1, prefix=prefix) == []
    assert await kafka_topics.check(broker, partitions=3, replication=1, prefix=prefix) == []


async def test_check_says_each_difference(broker: tuple[str, ...]) -> None:
    """A missing topic, a number of partitions, a replication factor and a setting: a sentence each."""
    prefix = fresh()
    only = ["content", "queue", "verdicts"]
    await kafka_topics.apply(broker, partitions=2, replication=1, prefix=prefix, only=["content", "queue"])
    assert await kafka_topics.check(broker, partitions=2, replication=1, prefix=prefix, only=only) == [
        f"Topic {prefix}verdicts is missing."
    ]
    wrong = {**kafka_topics.settings(topics.CONTENT, 1), "retention.ms": "1000"}
    await configure(broker, f"{prefix}content", wrong)
    assert await kafka_topics.check(broker, partitions=3, replication=1, prefix=prefix, only=["content"]) == [
        f"Topic {prefix}content has 2 partitions, not 3.",
        f"Topic {prefix}content has retention.ms=1000, not -1.",
    ]
    found = await kafka_topics.check(broker, partitions=2, replication=3, prefix=prefix, only=["queue"])
    assert found == [
        f"Topic {prefix}queue has partitions with 1 replicas, not 3.",
        f"Topic {prefix}queue has min.insync.replicas=1, not 2.",
    ]


def test_durability_follows_the_replicas() -> None:
    """Three replicas: two must have a record. One: content and queue are on disk before they are
    acknowledged."""
    three = kafka_topics.settings(topics.QUEUE, 3)
    assert (three["min.insync.replicas"], three.get("flush.messages")) == ("2", None)
    for topic in topics.TOPICS.values():
        one = kafka_topics.settings(topic, 1)
        flushed = "1" if topic in (topics.CONTENT, topics.QUEUE) else None
        assert (one["min.insync.replicas"], one.get("flush.messages")) == ("1", flushed)


async def test_more_replicas_than_brokers_is_said(broker: tuple[str, ...]) -> None:
    """A cluster that has too few brokers for the replication is waited for, then Unavailable."""
    with pytest.raises(Unavailable):
        await kafka_topics.apply(broker, partitions=1, replication=3, prefix=fresh(), within=1)


async def test_a_topic_that_may_lose_mail_takes_none(broker: tuple[str, ...]) -> None:
    """Where the settings of content differ, new mail is Misconfigured and nothing is truncated; an owner's
    write and a tombstone are still taken, and other topics too."""
    prefix = fresh()
    await kafka_topics.apply(broker, partitions=2, replication=1, prefix=prefix)
    wrong = {**kafka_topics.settings(topics.CONTENT, 1), "retention.ms": "86400000"}
    await configure(broker, f"{prefix}content", wrong)
    log = KafkaLog(broker, partitions=2, replication=1, clock=SystemClock(), prefix=prefix)
    await log.start()
    try:
        assert list(log.differences) == ["content"]
        with pytest.raises(Misconfigured, match=r"retention\.ms=86400000, not -1"):
            await put(log, "content", 0, b"k", b"mail")
        await put(log, "content", 0, b"k", None)
        await put(log, "queue", 0, b"k", b"state")
        async with owning(log, 2) as keeper:
            claim = keeper.claims[0]
            await log.append("content", 0, b"k", b"v", within=PATIENCE_S, claim=claim)
            with pytest.raises(Misconfigured):
                await log.truncate(claim, "content", 1)
    finally:
        await log.close()


async def test_a_compacted_topic_is_not_truncated(broker: tuple[str, ...]) -> None:
    """truncate of a topic that is compacted is Misconfigured, and changes nothing."""
    async with log_on(broker) as log, owning(log, 2) as keeper:
        await put(log, "queue", 1, b"k")
        with pytest.raises(Misconfigured):
            await log.truncate(keeper.claims[1], "queue", 1)
        assert (await log.bounds("queue", 1)).begin == 0


async def test_groups_of_two_prefixes_do_not_meet(broker: tuple[str, ...]) -> None:
    """The same group under two prefixes is two groups: each owns everything."""
    ledgers = Ledger(), Ledger()
    keepers = [Keeper("a", ledgers[0]), Keeper("b", ledgers[1])]
    async with (
        log_on(broker) as one,
        log_on(broker) as two,
        one.own("same", keepers[0]),
        two.own("same", keepers[1]),
    ):
        await until(lambda: all(len(keeper.claims) == 2 for keeper in keepers))
        held: list[Claim] = [claim for keeper in keepers for claim in keeper.claims.values()]
        assert all(claim.held() for claim in held)
