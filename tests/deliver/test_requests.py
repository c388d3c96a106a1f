"""What a person asks for a mail: release and delete, applied by the owner of the partition."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from libs.log.contract import Batch
from libs.mail.event import Event, EventType
from libs.mail.records import Delete, Progress, Release, State
from services.deliver import shard
from tests.deliver.house import ZONE, House, house
from tests.helpers.patience import until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

DOMAIN = "office.example"
HELD = Progress(State.HELD, since=5.0)


async def said(home: House, request_id: str) -> Event:
    """The event that answers a request."""
    kinds = (EventType.REQUEST, EventType.RELEASED, EventType.DELETED)

    def answers() -> list[Event]:
        return [event for event in home.events(*kinds) if event.request_id == request_id]

    await until(answers)
    return answers()[0]


async def test_a_held_mail_is_released(tmp_path: Path) -> None:
    """It is delivered, and who asked stands in its history. An owner who reads all of it anew does not take
    what ingest wrote first for the last word."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await primary.down()
        id_, other = await home.queue(progress=HELD), await home.queue(progress=HELD)
        async with home.delivering():
            await home.ask(Release("one", DOMAIN, id_, "a test"))
            event = await said(home, "one")
            assert (event.type, event.id, event.text) == (EventType.RELEASED, id_, "released by a test")
            await home.ask(Release("again", DOMAIN, id_, "a test"))
            event = await said(home, "again")
            assert event.type is EventType.REQUEST
        await primary.up()
        async with home.delivering():
            await home.ended([id_])
        assert len(primary.received) == 1
        progress = (await home.state())[other]
        assert progress == HELD


@pytest.mark.parametrize("state", [State.HELD, State.PARKED, State.QUEUED])
async def test_a_mail_is_deleted(tmp_path: Path, state: State) -> None:
    """Whatever its state: it ends, and nobody is told but its history."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await primary.down()
        await home.queue()
        id_ = await home.queue(progress=Progress(state, since=home.clock.wall()))
        async with home.delivering():
            await until(lambda: home.events(EventType.PRIMARY))
            await home.ask(Delete("one", DOMAIN, id_, "a test"))
            event = await said(home, "one")
            assert (event.type, event.id, event.text) == (EventType.DELETED, id_, "deleted by a test")
            await home.ended([id_])
            await home.ask(Delete("again", DOMAIN, id_, "a test"))
            event = await said(home, "again")
            assert event.text == f"there is no mail {id_} in the queue"
        assert primary.received == []


async def test_held_mail_does_not_wait(tmp_path: Path) -> None:
    """What is published as waiting for a primary is what will be sent to it."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await primary.down()
        async with home.sharing() as common, home.shard(common) as shard:
            id_ = await home.queue(progress=HELD)
            await until(lambda: shard.partition.index.get(id_))
            assert shard.partition.index.count(DOMAIN).mails == 0
            await home.ask(Release("one", DOMAIN, id_, "a test"))
            await said(home, "one")
            assert shard.partition.index.count(DOMAIN).mails == 1


@pytest.mark.parametrize("opens", [True, False])
async def test_a_mail_that_is_not_read_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: bool
) -> None:
    """A request that overtakes its mail waits for it; where that takes too long the answer says so."""
    monkeypatch.setattr(shard, "_BEHIND_S", 3.0 if opens else 0.2)
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await primary.down()
        follow, gate, read = home.log.follow, asyncio.Event(), asyncio.Event()

        async def behind(topic: str, starts: Mapping[int, int]) -> AsyncGenerator[Batch, None]:
            async with aclosing(follow(topic, starts)) as batches:
                async for batch in batches:
                    if topic == "queue" and batch.records:
                        await gate.wait()
                    if topic == "requests" and batch.records:
                        read.set()
                    yield batch

        monkeypatch.setattr(home.log, "follow", behind)
        async with home.delivering():
            id_ = await home.queue(progress=HELD)
            await home.ask(Delete("one", DOMAIN, id_, "a test"))
            await read.wait()
            if opens:
                gate.set()
            event = await said(home, "one")
            if opens:
                assert (event.type, event.text) == (EventType.DELETED, "deleted by a test")
            else:
                assert event.text == f"mail {id_} is not known yet: the queue is still being read"
            gate.set()
