"""Rule 6: content of a mail that is gone leaves, whatever waits beside it; what waits stays as it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from libs.log.contract import Gone, NotOwner
from libs.mail.codec import decode, encode, queue_headers
from libs.mail.records import ContentRef, Progress, QueueEntry, State
from services.deliver.shard import Shard
from tests.deliver.house import CONTENT, ZONE, House, house
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

DOMAIN = "office.example"
BOB = f"bob@{DOMAIN}"
LARGE = b"Subject: large\r\n\r\n" + b"a line of it\r\n" * 200
HOUR = 3600.0


class Office(NamedTuple):
    home: House
    primary: Primary
    clock: Clock

    @property
    def number(self) -> int:
        return self.home.partition(DOMAIN)

    async def later(self, shard: Shard, hours: float) -> None:
        """So much time goes by, and the log's clock agrees."""
        self.clock.advance(hours * HOUR)
        await shard.partition.append("events", b"x", b"{}")

    async def kept(self) -> tuple[int, int]:
        bounds = await self.home.log.bounds("content", self.number)
        return bounds.begin, bounds.end

    async def references(self, id_: str) -> list[tuple[int, ...]]:
        """Of all records of a mail, in order, each once."""
        found: dict[tuple[int, ...], None] = {}
        async for record in self.home.records("queue", DOMAIN):
            if record.key == id_.encode() and record.value is not None:
                found[decode(record.header("content") or b"", ContentRef).offsets] = None
        return list(found)


async def moved(shard: Shard) -> None:
    """A mail was written again: in the next round, where it was out with an attempt."""

    async def one() -> bool:
        return await shard.upkeep.moving.round() == 1

    await until(one)


@asynccontextmanager
async def office(folder: Path) -> AsyncIterator[Office]:
    """Bob's mail is deferred for ever, everybody else's delivered."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(folder, primary, zone.servers, clock) as home,
    ):
        primary.say("RCPT", "450 4.2.0 busy", to=BOB)
        yield Office(home, primary, clock)


async def delivered(at: Office) -> None:
    await at.home.ended([await at.home.queue()])


async def test_dead_content_leaves(tmp_path: Path) -> None:
    """A mail that waits for a day is written again behind the others, once, and arrives as it came; the
    content of the delivered ones is gone."""
    async with office(tmp_path) as at, at.home.sharing() as common, at.home.shard(common) as shard:
        waits = await at.home.queue(BOB, content=LARGE, chunk=1000)
        await delivered(at)
        await at.later(shard, 23)
        assert (await shard.upkeep.moving.round(), await shard.upkeep.truncate()) == (0, None)
        await at.later(shard, 2)
        await moved(shard)
        assert await at.references(waits) == [(0, 1, 2), (4, 5, 6)]
        assert await shard.upkeep.truncate() == 4
        assert await at.kept() == (4, 7)
        await at.later(shard, 25)
        assert await shard.upkeep.moving.round() == 0
        at.primary.say("RCPT", "", to=BOB)
        await at.home.flush("now")
        await at.home.ended([waits])
    assert at.primary.received[-1].content.endswith(LARGE)


async def test_any_state(tmp_path: Path) -> None:
    """Held and parked mail moves like any other and stays what it is."""
    async with office(tmp_path) as at, at.home.sharing() as common:
        states = (State.HELD, State.PARKED)
        ids = [
            await at.home.queue(progress=Progress(state, since=at.clock.wall(), attempts=2))
            for state in states
        ]
        async with at.home.shard(common) as shard:
            await delivered(at)
            await at.later(shard, 25)
            assert await shard.upkeep.moving.round() == 2
            assert await shard.upkeep.truncate() == 3
            known = await at.home.state()
            assert [(known[id_] or Progress()).state for id_ in ids] == list(states)
            assert [(known[id_] or Progress()).attempts for id_ in ids] == [2, 2]


async def test_what_cannot_be_decoded(tmp_path: Path) -> None:
    """Octet for octet, with all headers but the one that says where its content is."""
    async with office(tmp_path) as at, at.home.sharing() as common:
        log, key = at.home.log, b"strange"
        stored = await log.append(
            "content", at.number, key, b"content", within=PATIENCE_S, headers=(("index", b"0"),)
        )
        format_, content = queue_headers(ContentRef(at.number, (stored.offset,), 7))
        strange = (format_, content, ("tomorrow", b"1"))
        await log.append("queue", at.number, key, b"\xc1", within=PATIENCE_S, headers=strange)
        async with at.home.shard(common) as shard:
            await delivered(at)
            await at.later(shard, 25)
            assert await shard.upkeep.moving.round() == 1
            assert await shard.upkeep.truncate() == 2
            (record,) = [each async for each in at.home.records("queue", DOMAIN) if each.key == key][-1:]
            assert (record.value, record.header("format"), record.header("tomorrow")) == (
                b"\xc1",
                format_[1],
                b"1",
            )
            ref = decode(record.header("content") or b"", ContentRef)
            assert (await log.read("content", at.number, ref.offsets[0], key)).value == b"content"


@pytest.mark.parametrize("appends", [1, 2])
async def test_a_crash_in_the_middle(tmp_path: Path, appends: int) -> None:
    """An owner that ends behind the content, or behind part of it, has promised nothing: the mail is where it
    was, and the next owner begins again."""
    async with office(tmp_path) as at, at.home.sharing() as common:
        waits = await at.home.queue(BOB, content=LARGE, chunk=1500)
        async with at.home.shard(common) as shard:
            await delivered(at)
            await at.later(shard, 25)
            part, left = shard.partition, [appends]
            append = part.append

            async def ends(topic: str, *what: object) -> object:
                if topic == "content" and not left[0]:
                    raise NotOwner("killed")
                left[0] -= topic == "content"
                return await append(topic, *what)  # type: ignore[arg-type]

            async def never(*_: object, **__: object) -> object:
                raise NotOwner("killed")

            part.append, part.write = ends, never  # type: ignore[method-assign, assignment]
            with pytest.raises(NotOwner):
                await moved(shard)
        assert await at.references(waits) == [(0, 1)]
        async with at.home.shard(common) as shard:
            await at.later(shard, 0)
            await moved(shard)
            assert await shard.upkeep.truncate() == 3
            at.primary.say("RCPT", "", to=BOB)
            await at.home.flush("now")
            await at.home.ended([waits])
    assert at.primary.received[-1].content.endswith(LARGE)


async def test_a_late_state_with_the_old_place(tmp_path: Path) -> None:
    """A former owner that knows nothing of the move writes late: the next owner delivers from where the
    content is, and writes both together."""
    async with office(tmp_path) as at, at.home.sharing() as common:
        waits = await at.home.queue(BOB)
        async with at.home.shard(common) as shard:
            await delivered(at)
            await at.later(shard, 25)
            await moved(shard)
            assert await shard.upkeep.truncate() == 2
        newest = [each async for each in at.home.records("queue", DOMAIN) if each.key == waits.encode()][-1]
        entry = QueueEntry(decode(newest.value or b"", QueueEntry).mail, Progress(State.DEFERRED, 9, 1.0))
        old = (*queue_headers(ContentRef(at.number, (0,), len(CONTENT))), ("owner", b"late"))
        await at.home.log.append(
            "queue", at.number, waits.encode(), encode(entry), within=PATIENCE_S, headers=old
        )
        at.primary.say("RCPT", "", to=BOB)
        async with at.home.shard(common):
            await at.home.flush("now")
            await at.home.ended([waits])
    assert at.primary.received[-1].content.endswith(CONTENT)


async def test_content_that_is_lost(tmp_path: Path) -> None:
    """What is gone keeps nothing else from going."""
    async with office(tmp_path) as at, at.home.sharing() as common:
        held = await at.home.queue(progress=Progress(State.HELD, since=5.0))
        async with at.home.shard(common) as shard:
            await delivered(at)
            await at.later(shard, 25)
            await at.home.log.truncate(shard.partition.claim, "content", 1)
            with pytest.raises(Gone):
                await at.home.log.read("content", at.number, 0, held.encode())
            assert await shard.upkeep.moving.round() == 0
            assert await shard.upkeep.truncate() == 2
            assert (await at.home.state())[held] == Progress(State.HELD, since=5.0)


async def test_a_quiet_partition(tmp_path: Path) -> None:
    """Where nothing came for 12 h a chunk that belongs to no mail comes, once: Kafka frees no segment that is
    still written to."""
    async with office(tmp_path) as at, at.home.sharing() as common, at.home.shard(common) as shard:
        await delivered(at)
        for hours, end in ((0, 1), (11, 1), (2, 2), (1, 2), (13, 2)):
            await at.later(shard, hours)
            await shard.upkeep.moving.round()
            await shard.upkeep.truncate()
            assert (await at.kept())[1] == end
        await delivered(at)
        for hours, end in ((0, 3), (13, 4)):
            await at.later(shard, hours)
            await shard.upkeep.moving.round()
            assert (await at.kept())[1] == end
        (chunk,) = [each async for each in at.home.records("content", DOMAIN) if each.offset == 3]
        assert (chunk.header("abort"), chunk.header("by"), chunk.value) == (b"1", b"deliver", b"")
