"""What a person asks for, applied by the owner of the partition: once, to mail that was there before."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from libs.log.contract import Batch
from libs.mail.codec import FORMAT
from libs.mail.event import Event, EventType
from libs.mail.records import (
    Bounce,
    Delete,
    Hold,
    Kind,
    MailRequest,
    Progress,
    Redeliver,
    Release,
    Retry,
    State,
    Unbrake,
    Which,
)
from services.deliver import shard
from tests.deliver.house import ZONE, House, house
from tests.helpers.patience import until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

DOMAIN = "office.example"
HELD = Progress(State.HELD, since=5.0)


async def said(home: House, request_id: str, *kinds: EventType) -> Event:
    """The event that answers a request, or the first of these kinds that it caused."""

    def answers() -> list[Event]:
        wanted = kinds or (EventType.REQUEST,)
        return [event for event in home.events(*wanted) if event.request_id == request_id]

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
            event = await said(home, "one", EventType.RELEASED)
            assert (event.id, event.text) == (id_, "released by a test")
            event = await said(home, "one")
            assert event.counts == {"changed": 1, "already": 0, "unchanged": 0, "busy": 0}
            await home.ask(Release("again", DOMAIN, id_, "a test"))
            event = await said(home, "again")
            assert event.counts == {"changed": 0, "already": 0, "unchanged": 1, "busy": 0}
            assert event.text == f"mail {id_} is not held: it is queued"
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
            event = await said(home, "one", EventType.DELETED)
            assert (event.id, event.text) == (id_, "deleted by a test")
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
            await said(home, "one", EventType.RELEASED)
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
                assert event.counts["changed"] == 1
            else:
                assert event.text == f"mail {id_} is not known yet: the queue is still being read"
            gate.set()


# Due in an hour.
DEFERRED = Progress(State.DEFERRED, 3, time.time() + 3600, last_reply="450 4.2.0 later", since=5.0)


async def test_retry_attempts_what_was_deferred(tmp_path: Path) -> None:
    """A deferred mail goes now, without a restart of the backoff of others; its count of attempts stays."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        id_, other = await home.queue(progress=DEFERRED), await home.queue(progress=DEFERRED)
        async with home.delivering():
            await home.ask(Retry("one", DOMAIN, id_, "a test"))
            await home.ended([id_])
            assert (await said(home, "one")).counts["changed"] == 1
            assert (await home.state())[other] == DEFERRED
            await home.ask(Retry("all", DOMAIN, "", "a test"))
            await home.ended([other])
        assert {event.num_attempts for event in home.events(EventType.DELIVERY)} == {4}


async def test_a_selection_by_sender_recipient_and_age(tmp_path: Path) -> None:
    """All that is given must hold; a request that comes twice changes nothing more; what arrived after it is
    not touched."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await primary.down()
        eves = [await home.queue(), await home.queue("ann@office.example", "Bob@Office.example")]
        null = await home.queue(reverse_path="")
        joes = await home.queue(reverse_path="Joe@Other.example")
        holds: list[tuple[Which, list[str]]] = [
            (Which(sender="@other.example"), [joes]),
            (Which(sender="joe@other.example", recipient="bob@office.example"), []),
            (Which(sender="<>"), [null]),
            (Which(recipient="bob@office.example"), [eves[1]]),
            (Which(older_s=3600.0), []),
            (Which(), [eves[0]]),
        ]
        async with home.delivering():
            for number, (which, _) in enumerate(holds):
                await home.ask(Hold(f"r{number}", DOMAIN, "", "a test", which))
            for number, (which, ids) in enumerate(holds):
                event = await said(home, f"r{number}")
                assert event.counts == {"changed": len(ids), "already": 0, "unchanged": 0, "busy": 0}, which
            held = {event.id: event.request_id for event in home.events(EventType.HELD)}
            assert held == {id_: f"r{number}" for number, (_, ids) in enumerate(holds) for id_ in ids}
            late = await home.queue()
            await home.ask(Hold("again", DOMAIN, "", "a test", Which(sender="<>")))
            assert (await said(home, "again")).counts["changed"] == 0
            await primary.up()
            await home.ended([late])
        assert len(primary.received) == 1
        state = await home.state()
        assert [state[id_].state for id_ in (*eves, null, joes)] == [State.HELD] * 4  # type: ignore[union-attr]


async def test_a_selection_leaves_our_own_mail(tmp_path: Path) -> None:
    """A domain's mail is what its senders wrote: a DSN about it is meant by its id only."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await primary.down()
        mail = await home.queue()
        dsn = await home.queue("eve@sender.example", kind=Kind.DSN, reverse_path="")
        async with home.delivering():
            await home.ask(Hold("all", DOMAIN, "", "a test", Which()))
            assert (await said(home, "all")).counts["changed"] == 1
            await home.ask(Hold("one", DOMAIN, dsn, "a test"))
            assert (await said(home, "one")).counts["changed"] == 1
        held = [(event.id, event.request_id) for event in home.events(EventType.HELD)]
        assert held == [(mail, "all"), (dsn, "one")]


async def test_held_through_a_change_of_owner(tmp_path: Path) -> None:
    """Rule 3: the state keeps the offset of the request. The next owner, who reads both requests again
    because nobody stored how far they were applied, undoes nothing."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await primary.down()
        id_ = await home.queue()
        async with home.sharing() as common:
            async with home.shard(common) as shard:
                shard._store = lambda position: asyncio.sleep(0)  # type: ignore[method-assign]
                await home.ask(Hold("hold", DOMAIN, id_, "a test"))
                await home.ask(Release("release", DOMAIN, id_, "a test"))
                await home.ask(Hold("again", DOMAIN, id_, "a test"))
                await said(home, "again")
            before = (await home.state())[id_]
            assert before is not None
            assert (before.state, before.request) == (State.HELD, 2)
            async with home.shard(common):
                await until(
                    lambda: [event.request_id for event in home.events(EventType.REQUEST)].count("again") == 2
                )
            assert (await home.state())[id_] == before
        again = [event.counts["changed"] for event in home.events(EventType.REQUEST)]
        assert again == [1, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("may_notify", [True, False])
@pytest.mark.parametrize("progress", [None, HELD, DEFERRED])
async def test_a_mail_is_bounced(tmp_path: Path, may_notify: bool, progress: Progress | None) -> None:
    """Its sender is told once, that it was a person; one who may not be told finds nothing: it is parked."""
    async with (
        Zone(ZONE.replace("mx.office.example   A  127.0.0.1", "")) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        id_ = await home.queue(progress=progress, may_notify=may_notify)
        async with home.delivering():
            await until(lambda: home.events(EventType.PRIMARY) or progress)
            await home.ask(Bounce("one", DOMAIN, id_, "a test"))
            event = await said(home, "one", EventType.BOUNCE)
            assert (event.recipient, event.text) == ("ann@office.example", "given up by a test")
            assert (await said(home, "one")).counts["changed"] == 1
            if may_notify:
                await home.ended([id_])
                await until(lambda: primary.received)
                (notice,) = primary.received
                assert notice.recipients[0][0] == "eve@sender.example"
                assert b"Status: 5.3.0" in notice.content
                assert b"The operator of this system" in notice.content
            else:
                parked = (await home.state())[id_]
                assert parked is not None
                assert parked.state is State.PARKED
                assert not primary.received


async def test_a_parked_mail_is_redelivered(tmp_path: Path) -> None:
    """It is taken up as if nobody had failed; what failed before is no witness against it (rule 10)."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        parked = Progress(State.PARKED, attempts=3, failed=(0,), since=home.clock.wall())
        id_, held = await home.queue(progress=parked), await home.queue(progress=HELD)
        async with home.delivering():
            await home.ask(Redeliver("no", DOMAIN, held, "a test"))
            assert (await said(home, "no")).text == f"mail {held} is not parked: it is held"
            await home.ask(Redeliver("one", DOMAIN, id_, "a test"))
            await home.ended([id_])
            assert (await said(home, "one", EventType.REDELIVERED)).id == id_
        assert len(primary.received) == 1


async def test_a_mail_that_is_being_attempted(tmp_path: Path) -> None:
    """A request waits a little for the attempt to end; what it cannot have it names, and nothing is cut."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        primary.slow(0.4, "DOT")
        primary.say("DOT", "450 4.2.0 later", times=1)
        async with home.delivering():
            id_ = await home.queue()
            await until(lambda: primary.visits and "DATA" in primary.visits[0].commands)
            await home.ask(Hold("one", DOMAIN, id_, "a test"))
            assert (await said(home, "one")).counts["changed"] == 1
            primary.slow(30.0, "DOT")
            await home.ask(Release("two", DOMAIN, id_, "a test"))
            await until(
                lambda: [word for each in primary.visits for word in each.commands].count("DATA") == 2
            )
            await home.ask(Hold("three", DOMAIN, id_, "a test"))
            event = await said(home, "three")
            assert (event.counts["busy"], event.text) == (1, f"mail {id_} is being attempted just now")
            primary.slow(0.0, "DOT")
            await primary.down()


async def test_what_nobody_can_read_is_deleted_by_its_key(tmp_path: Path) -> None:
    """Rule 8: it is kept until a person deletes it; then it pins no content any more."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        number = home.partition(DOMAIN)
        await home.log.append(
            "queue", number, b"odd", b"\xc1", within=5, headers=(("format", FORMAT), ("content", b"\xc1"))
        )
        async with home.sharing() as common, home.shard(common) as shard:
            assert shard.partition.ledger.unreadable(b"odd")
            request: MailRequest = Release("no", DOMAIN, "odd", "a test")
            await home.ask(request)
            assert (await said(home, "no")).text == "there is no mail odd in the queue"
            await home.ask(Delete("one", DOMAIN, "odd", "a test"))
            assert (await said(home, "one")).counts["changed"] == 1
            await until(lambda: not shard.partition.ledger.unreadable(b"odd"))
            assert (await said(home, "one", EventType.DELETED)).text == "deleted unread by a test"
        assert (await home.state())["odd"] is None


async def test_a_person_ends_the_bounce_brake(tmp_path: Path) -> None:
    """Rule 9: refused recipients wait while it is pulled; released, the primary's word is final at once, for
    more than two of them."""
    names = [f"{name}@office.example" for name in ("ann", "bob", "eva")]
    async with (
        Zone(ZONE) as zone,
        Primary(known={"eve@sender.example"}) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        await primary.down()
        async with home.sharing() as common, home.shard(common) as shard:
            ids = [await home.queue(name) for name in names]
            await until(lambda: home.events(EventType.PRIMARY))
            await primary.up()
            hop = shard.partition.hops[DOMAIN]
            await until(lambda: len(home.events(EventType.TRANSIENT_FAILURE)) == 3)
            assert hop.brake.pulled is not None
            await home.ask(Unbrake("one", DOMAIN, "a test"))
            await home.ended(ids)
            assert hop.brake.pulled is None
        assert len(home.events(EventType.BOUNCE)) == 3
        texts = [event.text for event in home.events(EventType.PRIMARY) if "brake" in event.text]
        assert texts == ["bounce brake pulled", "bounce brake released"]
