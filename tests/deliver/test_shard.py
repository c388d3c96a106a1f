"""One partition under one claim: what happens when claims, records or contents are not as they should be."""

import asyncio
import email
from pathlib import Path

import pytest
from msgspec.structs import replace

from libs.log.contract import Gone, Headers, Stored
from libs.mail.codec import decode, encode, queue_headers
from libs.mail.event import EventType
from libs.mail.knowledge import Health, RecipientStatus, Status
from libs.mail.records import ContentRef, Kind, Progress, QueueEntry, Retry, State
from libs.mail.settings import DAY_S
from services.deliver import notices
from services.deliver.outgoing import Job
from services.deliver.waiting import Place, Waiting
from tests.deliver.house import ZONE, House, TestClaim, house
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

DOMAIN = "office.example"


async def test_lost_before_the_dot(tmp_path: Path) -> None:
    """Rule 4: with the claim gone before the final dot the attempt is cut; the next owner delivers once."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        primary.slow(0.3, "DATA")
        id_ = await home.queue()
        async with home.sharing() as common:
            async with home.shard(common):
                await until(lambda: primary.visits and "DATA" in primary.visits[0].commands)
            assert not primary.received
            async with home.shard(common):
                await home.ended([id_])
        assert len(primary.received) == 1


async def test_claim_that_ends_unsaid(tmp_path: Path) -> None:
    """Rule 4: the claim is asked right before the final dot, even when nobody said yet that it is lost."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        primary.slow(0.3, "DATA")
        await home.queue()
        async with home.sharing() as common, home.shard(common) as shard:
            await until(lambda: primary.visits and "DATA" in primary.visits[0].commands)
            claim = shard.partition.claim
            assert isinstance(claim, TestClaim)
            claim.end()
            await until(lambda: not primary.visits[0].open)
        assert not primary.received
        assert None not in (await home.state()).values()


async def test_lost_after_the_dot(tmp_path: Path) -> None:
    """Rule 4: after the final dot the attempt runs on, and the acceptance is written without the claim."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        primary.slow(0.5, "DOT")
        id_ = await home.queue()
        async with home.sharing() as common:
            async with home.shard(common) as shard:
                await until(lambda: shard.carriers.finishing)
                assert not primary.received
            assert (await home.state())[id_] is None
            async with home.shard(common) as shard:
                assert len(shard.partition.index) == 0
        assert len(primary.received) == 1


async def test_killed_before_the_tombstone(tmp_path: Path) -> None:
    """A crash between the primary's 250 and the tombstone costs one duplicate and nothing else."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        ids = [await home.queue() for _ in range(5)]
        async with home.sharing() as common:
            async with home.shard(common) as shard:
                never = asyncio.get_running_loop().create_future()
                shard.partition.end = lambda *_, **__: never  # type: ignore[method-assign]
                await until(lambda: len(primary.received) == 5)
                never.cancel()
            assert None not in (await home.state()).values()
            async with home.shard(common):
                await home.ended(ids)
        assert len(primary.received) == 10


async def write(home: House, id_: str, progress: Progress, owner: bytes) -> None:
    """A state of a mail as another owner would write it."""
    newest = None
    async for record in home.records("queue", DOMAIN):
        if record.key == id_.encode() and record.value is not None:
            newest = record
    assert newest is not None
    entry = QueueEntry(decode(newest.value or b"", QueueEntry).mail, progress)
    ref = decode(newest.header("content") or b"", ContentRef)
    headers = (*queue_headers(ref), ("owner", owner))
    await home.log.append(
        "queue", home.partition(DOMAIN), id_.encode(), encode(entry), within=5, headers=headers
    )


async def test_foreign_state_is_merged(tmp_path: Path) -> None:
    """Rule 3: what a former owner wrote late is merged, recipient by recipient, and written again."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        primary.say("RCPT", "450 4.2.0 busy", to="bob@office.example")
        async with home.sharing() as common, home.shard(common):
            both = await home.queue("ann@office.example", "bob@office.example")
            await until(lambda: home.events(EventType.TRANSIENT_FAILURE))

            async def deferred() -> bool:
                progress = (await home.state())[both]
                return progress is not None and progress.done == (0,)

            await until(deferred)
            await write(home, both, Progress(State.DEFERRED, 3, 9e9, done=(1,)), b"another")
            await home.ended([both])


async def test_news_is_not_dropped_by_who_looks_first(tmp_path: Path) -> None:
    """Rule 3: whoever takes a mail of which another owner's news is pending merges and writes it first, also
    where what he wants to do then comes to nothing (nobody to tell of a delay)."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await primary.down()
        async with home.sharing() as common, home.shard(common) as shard:
            both = await home.queue("ann@office.example", "bob@office.example", may_notify=False)
            await until(
                lambda: (
                    shard.partition.index.place(both) is Place.READY
                    and not shard.partition.hops[DOMAIN].carriers
                )
            )
            shard.partition.ledger.foreign[both] = Progress(State.DEFERRED, 3, 9e9, done=(1,))
            assert not await shard.carriers.hold(both, lambda _, job: shard.settlement.delay(job))
            progress = (await home.state())[both]
            assert progress is not None
            assert progress.done == (1,)
            assert await shard.carriers.hold(both, lambda _, job: shard.settlement.delay(job))


async def test_a_bug_about_one_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 8: an error of ours about one mail, in whatever is done beside the attempts, ends nothing else:
    the mail stays as it is, its neighbours go on."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, clock) as home,
    ):
        id_ = await home.queue(progress=Progress(State.PARKED, since=clock.wall(), failed=(0,)))
        async with home.sharing() as common, home.shard(common) as shard:
            broken = Broken()
            monkeypatch.setattr(shard.upkeep, "_end_parked", broken)
            monkeypatch.setattr(shard.requests, "_do", broken)
            clock.advance(8 * DAY_S)
            await shard.partition.append("events", b"x", b"{}")
            await shard.upkeep.sweep()
            assert broken.called
            await home.ask(Retry("r1", DOMAIN, id_, "a test"))
            swept = broken.called
            await until(lambda: broken.called > swept)
            await home.ended([await home.queue()])
            assert shard.partition.index.place(id_) is Place.STILL
            monkeypatch.undo()
            await until(lambda: home.events(EventType.REQUEST))


class Broken:
    """A step with a bug; `called`: how often it was taken."""

    called = 0

    async def __call__(self, *_: object) -> None:
        self.called += 1
        raise ZeroDivisionError


async def test_a_void_backoff_stays_void(tmp_path: Path) -> None:
    """A deferred mail that was made due (a flush, the primary's first 250) stays so when its record is
    written again for another reason: its content moved, its sender was told."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain(DOMAIN, held=True)
        later = Progress(State.DEFERRED, 1, home.clock.wall() + 3600.0)
        async with home.sharing() as common:
            id_ = await home.queue(progress=later)
            async with home.shard(common) as shard:
                index = shard.partition.index

                async def told(_: Waiting, job: Job) -> None:
                    await shard.partition.write(job, replace(job.entry.progress, delay_told=True))

                index.hurry(id_)
                assert await shard.carriers.hold(id_, told)
                assert (mail := index.get(id_)) is not None
                assert (mail.delay_told, mail.due, index.place(id_)) == (True, 0.0, Place.READY)

                async def deferred(_: Waiting, job: Job) -> None:
                    await shard.partition.write(job, replace(later, next_attempt=later.next_attempt + 60))

                assert await shard.carriers.hold(id_, deferred)
                assert index.place(id_) is Place.SLOW


async def test_a_record_that_changed_since_it_was_looked_at(tmp_path: Path) -> None:
    """A sweep acts on no older record than the newest: what it saw may have been taken up again since."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain(DOMAIN, held=True)
        async with home.sharing() as common, home.shard(common) as shard:
            id_ = await home.queue()
            seen = await until(lambda: shard.partition.index.get(id_))
            job = await shard.partition.read(seen)
            await shard.partition.write(job, Progress(State.DEFERRED, 1, home.clock.wall() + 60.0))
            broken = Broken()
            await shard.upkeep._on(seen, broken)
            assert not broken.called
            await shard.upkeep._on(await until(lambda: shard.partition.index.get(id_)), broken)
            assert broken.called == 1


async def test_held_stays_held(tmp_path: Path) -> None:
    """Rule 3: a held state of another owner stands against our own state of the same request."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await primary.down()
        async with home.sharing() as common, home.shard(common) as shard:
            id_ = await home.queue()
            await until(lambda: shard.partition.hops and home.events(EventType.PRIMARY))
            await write(home, id_, Progress(State.HELD, since=5.0), b"another")
            await until(lambda: (mail := shard.partition.index.get(id_)) and mail.state is State.HELD)
            await primary.up()
            await home.ended([await home.queue()])
        assert len(primary.received) == 1


async def test_a_loop_that_ingest_holds(tmp_path: Path) -> None:
    """A mail that ingest held is never attempted, whether its record was there before or comes while others
    are delivered; it is not buried either."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        held = [await home.queue(progress=Progress(State.HELD, since=5.0))]
        async with home.sharing() as common, home.shard(common) as shard:
            await home.ended([await home.queue()])
            held.append(await home.queue(progress=Progress(State.HELD, since=5.0)))
            await home.ended([await home.queue()])
            assert [shard.partition.index.place(id_) for id_ in held] == [Place.STILL, Place.STILL]
        assert len(primary.received) == 2
        assert {id_ for id_, progress in (await home.state()).items() if progress} == set(held)


async def test_tombstones_are_final(tmp_path: Path) -> None:
    """Rule 3: a record behind its key's tombstone is not applied and gets another tombstone; so does a
    state that comes out of nowhere."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        number = home.partition(DOMAIN)
        withdrawn = await home.queue()
        await home.log.append("queue", number, withdrawn.encode(), None, within=PATIENCE_S)
        await write(home, withdrawn, Progress(), b"")
        async with home.sharing() as common, home.shard(common):
            await home.ended([withdrawn])
            stale = await home.queue(progress=Progress(State.DEFERRED, 1, 1.0))
            await home.ended([stale])
        assert not primary.received


async def test_unreadable(tmp_path: Path) -> None:
    """Rule 8: a record that cannot be decoded is kept and said; its neighbours go on; its content stays."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, clock) as home,
    ):
        number = home.partition(DOMAIN)
        gone = await home.queue()
        stored = await home.log.append("content", number, b"strange", b"x", within=PATIENCE_S)
        headers = queue_headers(ContentRef(number, (stored.offset,), 1))
        await home.log.append("queue", number, b"strange", b"\xc1", within=PATIENCE_S, headers=headers)
        late = await home.queue()
        async with home.sharing() as common, home.shard(common) as shard:
            await home.ended([gone, late])
            clock.advance(3 * 3600)
            await shard.partition.append("events", b"x", b"{}")
            assert await shard.upkeep.truncate() == stored.offset
            await home.log.append("queue", number, b"blind", b"\xc1", within=PATIENCE_S)
            await until(lambda: len(home.events(EventType.QUARANTINED)) == 2)
            await home.ended([await home.queue()])
            clock.advance(3 * 3600)
            await shard.partition.append("events", b"x", b"{}")
            assert await shard.upkeep.truncate() is None
        assert (await home.log.read("content", number, stored.offset, b"strange")).value == b"x"


async def test_truncation(tmp_path: Path) -> None:
    """Rule 5: delivered content goes, the content of waiting mail and young content stay."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, clock) as home,
    ):
        primary.say("RCPT", "450 4.2.0 busy", to="bob@office.example")
        number = home.partition(DOMAIN)
        async with home.sharing() as common, home.shard(common) as shard:
            first = await home.queue("ann@office.example")
            await home.ended([first])
            assert await shard.upkeep.truncate() is None  # all of it is young
            waiting = await home.queue("bob@office.example")
            await home.ended([await home.queue("ann@office.example")])
            clock.advance(3 * 3600)
            assert await shard.upkeep.truncate() is None  # no acknowledgement of late: clocks unknown
            await shard.partition.append("events", b"x", b"{}")
            mail = shard.partition.index.get(waiting)
            assert mail is not None
            assert await shard.upkeep.truncate() == mail.content == 1
            clock.jump_wall(3600)
            await shard.partition.append("events", b"x", b"{}")
            primary.say("RCPT", "", to="bob@office.example")
            await home.flush("request")
            await home.ended([waiting])
            assert await shard.upkeep.truncate() is None  # the clocks do not agree
        bounds = await home.log.bounds("content", number)
        assert (bounds.begin, bounds.end) == (1, 3)


async def test_content_lost(tmp_path: Path) -> None:
    """A missing content is never bounced: the mail stays, in a state of its own, and somebody is told."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        id_ = await home.queue()
        short = await home.queue(content=b"Subject: x\r\n\r\n", ref_size=99)
        number = home.partition(DOMAIN)
        await home.log.truncate(TestClaim(number), "content", 1)
        try:
            await home.log.read("content", number, 0, id_.encode())
        except Gone:
            async with home.sharing() as common, home.shard(common):
                await home.ended([await home.queue()])
                await until(lambda: len(home.events(EventType.CONTENT_LOST)) == 2)
        state = await home.state()
        assert [progress and progress.state for progress in (state[id_], state[short])] == [
            State.CONTENT_LOST,
            State.CONTENT_LOST,
        ]
        assert len(primary.received) == 1
        assert not home.events(EventType.BOUNCE)


async def test_expiry_needs_witnesses(tmp_path: Path) -> None:
    """Rule 10: a mail expires after three failed probes over an hour past its lifetime, and not before; then
    its sender is told."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, clock, probe_s=15.0) as home,
    ):
        await home.domain(DOMAIN, lifetime_s=3600.0)
        await primary.down()
        async with home.sharing() as common, home.shard(common) as shard:
            id_ = await home.queue()
            await until(lambda: home.events(EventType.PRIMARY))
            clock.advance(30 * 86400.0)  # a process that stood still for a month
            hop = shard.partition.hops[DOMAIN]
            for _ in range(5):
                await shard.partition.append("events", b"x", b"{}")
                await shard.upkeep.sweep()
                assert not home.events(EventType.EXPIRATION)
                before = hop.destination.failed
                clock.advance(901)
                await until(lambda before=before: hop.destination.failed > before)  # type: ignore[misc]
            await shard.partition.append("events", b"x", b"{}")
            await shard.upkeep.sweep()
            assert [event.recipient for event in home.events(EventType.EXPIRATION)] == ["ann@office.example"]
            assert (await home.state())[id_] is None
            assert hop.destination.health is Health.DOWN
            await primary.up()
            clock.advance(70)  # the notice's own backoff
            await until(lambda: primary.received)
        assert primary.received[0].recipients[0][0] == "eve@sender.example"
        assert b"Status: 4.4.7" in primary.received[0].content


@pytest.mark.parametrize("stop", ["held", "suspended", "braked", "mail held"])
async def test_what_is_stopped_does_not_expire(tmp_path: Path, stop: str) -> None:
    """Rule 10: with all witnesses there are, mail stays that a person or the brake stopped, and is named;
    when that ends, it expires as any other."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, clock, probe_s=15.0) as home,
    ):
        await home.domain(DOMAIN, lifetime_s=3600.0)
        await primary.down()
        async with home.sharing() as common, home.shard(common) as shard:
            held = stop == "mail held"
            await home.queue(progress=Progress(State.HELD, since=clock.wall()) if held else None)
            await until(lambda: len(shard.partition.index))
            part, hop = shard.partition, shard.partition.hop(DOMAIN)
            clock.advance(7200.0)
            hop.destination = replace(
                hop.destination, failures=tuple(clock.mono() + n for n in (0, 900, 4000))
            )
            if stop in ("held", "suspended"):
                await home.domain(DOMAIN, lifetime_s=3600.0, **{stop: True})
                await until(lambda: getattr(part.settings(DOMAIN), stop))
            elif stop == "braked":
                hop.brake = replace(hop.brake, pulled=clock.mono())
            clock.advance(4100.0)

            async def swept() -> float:
                await part.append("events", b"x", b"{}")
                await shard.upkeep.sweep()
                return home.metrics.queue_overdue.labels(DOMAIN)._value.get()

            assert await swept() == 1
            assert not home.events(EventType.EXPIRATION)
            if held:
                return
            await home.domain(DOMAIN, lifetime_s=3600.0)
            await until(lambda: not (now := part.settings(DOMAIN)) or not (now.held or now.suspended))
            hop.brake = replace(hop.brake, pulled=None)
            assert await swept() == 0
            assert home.events(EventType.EXPIRATION)


async def test_content_that_waited_too_long_for_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 5: content that nothing refers to goes after two hours. A notice whose record the log does not
    take for half of that is written again from its content on."""
    monkeypatch.setattr(notices, "COMMIT_S", 0.2)
    async with (
        Zone(ZONE) as zone,
        Primary(known=set()) as primary,
        house(tmp_path, primary, zone.servers) as home,
        home.sharing() as common,
        home.shard(common) as shard,
    ):
        append, tried = shard.partition.append, list[str]()

        async def stuck(topic: str, key: bytes, value: bytes, headers: Headers = ()) -> Stored:
            if topic in ("content", "queue"):
                tried.append(topic)
            if tried == ["content", "queue"]:
                await asyncio.get_running_loop().create_future()
            return await append(topic, key, value, headers)

        monkeypatch.setattr(shard.partition, "append", stuck)
        await home.queue("bob@office.example")
        await until(lambda: tried == ["content", "queue"] * 2)
        await until(lambda: any(mail.kind is Kind.DSN for mail in shard.partition.index))
        first, second = [each async for each in home.records("content", DOMAIN) if each.header("by")]
        assert first.key == second.key
        states = [each async for each in home.records("queue", DOMAIN) if each.key == second.key]
        assert decode(states[0].header("content") or b"", ContentRef).offsets == (second.offset,)


async def test_interrupted_notice(tmp_path: Path) -> None:
    """A crash while a DSN is written: the next owner writes the same DSN again, and it is sent once."""
    async with (
        Zone(ZONE) as zone,
        Primary(known={"eve@sender.example"}) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        id_ = await home.queue("bob@office.example")
        async with home.sharing() as common:
            async with home.shard(common) as shard:
                never = asyncio.get_running_loop().create_future()
                shard.partition.end = lambda *_, **__: never  # type: ignore[method-assign]
                await until(lambda: primary.received)
                never.cancel()
            progress = (await home.state())[id_]
            assert progress is not None
            assert (progress.dsn_id != "", progress.failed) == (True, (0,))
            async with home.shard(common):
                await home.ended([id_, progress.dsn_id])
        assert len(primary.received) == 2  # the crash came before the DSN's own tombstone too
        assert len({email.message_from_bytes(mail.content)["Message-ID"] for mail in primary.received}) == 1
        assert len({mail.id for mail in await home.mails()}) == 2


async def test_callout_opens(tmp_path: Path) -> None:
    """A callout that the primary answered opens the gate before the next probe is due."""
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, probe_s=3600.0) as home,
    ):
        await primary.down()
        async with home.sharing() as common, home.shard(common):
            id_ = await home.queue()
            await until(lambda: home.events(EventType.PRIMARY))
            await primary.up()
            status = RecipientStatus(
                "bob@office.example", Status.UNDELIVERABLE, home.clock.wall(), home.clock.wall()
            )
            key = b"bob@office.example"
            await home.log.append(
                "recipients", home.partition(DOMAIN), key, encode(status), within=PATIENCE_S
            )
            await home.ended([id_])


async def test_notice_without_a_way(tmp_path: Path) -> None:
    """A DSN whose domain does not exist is dropped with an event; a relay domain's mail waits."""
    async with (
        Zone(ZONE) as zone,
        Primary(known=set()) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        id_ = await home.queue("bob@office.example", reverse_path="eve@nowhere.example")
        async with home.sharing() as common, home.shard(common) as shard:
            await home.ended([id_])
            await until(lambda: home.events(EventType.DROPPED))
            zone.set("")
            await primary.down()
            waiting = await home.queue("bob@office.example")
            await until(lambda: "nxdomain" in shard.partition.hops[DOMAIN].destination.last_reply)
            assert (await home.state())[waiting] is not None


async def test_parked_ends(tmp_path: Path) -> None:
    """Parked mail is deleted after 7 days, and not before."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary(known=set()) as primary,
        house(tmp_path, primary, zone.servers, clock) as home,
    ):
        async with home.sharing() as common, home.shard(common) as shard:
            id_ = await home.queue("bob@office.example", may_notify=False)
            await until(lambda: home.events(EventType.PARKED))
            await until(lambda: (mail := shard.partition.index.get(id_)) and mail.state is State.PARKED)
            for advance, deleted in ((6.9 * 86400, 0), (0.2 * 86400, 1)):
                clock.advance(advance)
                await shard.partition.append("events", b"x", b"{}")
                await shard.upkeep.sweep()
                assert len(home.events(EventType.DELETED)) == deleted
        assert (await home.state())[id_] is None
