"""One real broker of a test's own that is killed, restarted or frozen: the whole log is away, and comes
back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from deploy.kafka.cluster import Cluster
from libs.log.contract import BEGIN, Ambiguous, NotStored, Record, Stored, Unavailable
from libs.log.kafka import KafkaLog
from libs.runtime.clock import SystemClock
from tests.helpers.kafka import log_on
from tests.helpers.patience import until
from tests.log.contract import Keeper, Ledger, fresh_key, put, read_to_end


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A broker of this test's own."""
    async with Cluster(1, tmp_path, quick=True) as cluster:
        yield cluster
        cluster.kill(0)


async def test_an_outage_is_told_truly_and_ends(alone: Cluster) -> None:
    """While the only broker is dead appends are NotStored or Ambiguous and reads Unavailable, a follower is
    silent and every claim ends; when it is back all of it goes on by itself, and what was acknowledged is
    there."""
    ledger = Ledger()
    keeper = Keeper("a", ledger)
    async with log_on(alone.bootstrap, partitions=2) as log, log.own(ledger.group, keeper):
        await until(lambda: ledger.covered(2))
        keys = [fresh_key() for _ in range(20)]
        stored = [await put(log, "queue", 0, key) for key in keys]
        got: list[Record] = []
        heard = [time.monotonic()]

        async def follow() -> None:
            async with aclosing(log.follow("queue", {0: BEGIN})) as following:
                async for batch in following:
                    got.extend(batch.records)
                    heard.append(time.monotonic())

        following = asyncio.create_task(follow())
        await until(lambda: len(got) == 20)
        claims = dict(keeper.claims)
        alone.kill(0)
        silent = len(heard)
        said = await asyncio.gather(
            *(log.append("queue", 0, fresh_key(), b"v", within=1.0) for _ in range(5)), return_exceptions=True
        )
        assert all(isinstance(each, Ambiguous | NotStored) for each in said)
        with pytest.raises(Unavailable):
            await log.read("queue", 0, stored[0].offset, keys[0])
        with pytest.raises(Unavailable):
            await log.bounds("queue", 0)
        await until(lambda: not keeper.claims)
        assert not any(claim.held() for claim in claims.values())
        assert len(heard) <= silent + 1  # an answer that was already there
        alone.restart(0)
        await alone.ready()
        again = fresh_key()
        acknowledged = await put(log, "queue", 0, again)
        await until(lambda: bool(got) and got[-1].key == again)
        await until(lambda: ledger.covered(2))
        assert [each.key for each in got[:20]] == keys
        assert [each.offset for each in got] == sorted({each.offset for each in got})
        assert (await log.read("queue", 0, acknowledged.offset, again)).key == again
        following.cancel()
        await asyncio.wait({following})


async def test_what_a_frozen_broker_still_held_may_appear_later(alone: Cluster) -> None:
    """An append to a frozen broker is Ambiguous within its time, not later; after the broker woke a tombstone
    can be written, and the record is there at most once."""
    async with log_on(alone.bootstrap, partitions=1) as log:
        await put(log, "queue", 0, b"before")
        key = fresh_key()
        alone.freeze(0)
        began = time.monotonic()
        with pytest.raises(Ambiguous):
            await log.append("queue", 0, key, b"mail", within=1.0)
        assert time.monotonic() - began < 10
        with pytest.raises(NotStored):
            await log.append("queue", 0, fresh_key(), b"mail", within=1.0)
        alone.thaw(0)
        tombstone = await put(log, "queue", 0, key, None)
        found = [each for each in await read_to_end(log, "queue", 0) if each.key == key]
        assert found[-1].offset >= tombstone.offset
        assert [each.value for each in found].count(b"mail") <= 1


async def test_closing_does_not_wait_for_a_dead_broker(alone: Cluster) -> None:
    """A log whose broker is gone closes within 30 s and leaves no task behind; what was under way is
    Ambiguous."""
    before = asyncio.all_tasks()
    async with log_on(alone.bootstrap, partitions=1) as log:
        await put(log, "queue", 0, b"before")
        alone.freeze(0)
        append = asyncio.create_task(log.append("queue", 0, b"k", b"v", within=60))
        await asyncio.sleep(0.2)
        began = time.monotonic()
    assert time.monotonic() - began < 100
    with pytest.raises(Ambiguous):
        await append
    assert asyncio.all_tasks() == before


async def test_a_log_starts_when_the_broker_does(alone: Cluster) -> None:
    """start() outlasts a broker that is not up yet, and is Unavailable in its time when none comes; it may be
    tried again."""
    async with log_on(alone.bootstrap, prefix="", partitions=1):
        alone.kill(0)
    log = KafkaLog(alone.bootstrap, partitions=1, replication=1, clock=SystemClock())
    with pytest.raises(Unavailable):
        await log.start(within=0.5)
    starting = asyncio.create_task(log.start())
    alone.restart(0)
    await starting
    try:
        assert isinstance(await put(log, "queue", 0, b"k"), Stored)
    finally:
        await log.close()
