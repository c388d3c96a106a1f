"""Our clock jumps by 30 days, forth or back, as a bad NTP step or a restored snapshot has it. The log's does
not."""

from pathlib import Path

import pytest

from libs.mail.event import EventType
from libs.mail.records import Progress, State
from services.deliver.shard import Shard
from tests.deliver.house import ZONE, House, house
from tests.helpers.clock import Clock
from tests.helpers.patience import until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

DOMAIN, DAY_S = "office.example", 86_400.0


async def round_(home: House, shard: Shard) -> None:
    """What a shard does by itself twice a minute, with the log's clock just heard."""
    await shard.partition.append("events", b"x", b"{}")
    await shard.upkeep.sweep()


@pytest.mark.parametrize("days", [30, -30])
async def test_nothing_ends_and_everything_goes_on(tmp_path: Path, days: int) -> None:
    """Nothing expires, is told of or leaves the vault; what was deferred is tried all the same, and what
    comes in is handed over."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, clock, probe_s=15.0) as home,
    ):
        primary.say("RCPT", "450 4.2.0 later", to="bob@office.example", times=1)
        parked = await home.queue(progress=Progress(State.PARKED, failed=(0,), since=clock.wall()))
        async with home.sharing() as common, home.shard(common) as shard:
            deferred = await home.queue("bob@office.example")
            await until(lambda: home.events(EventType.TRANSIENT_FAILURE))

            async def written() -> bool:
                progress = (await home.state())[deferred]
                return progress is not None and progress.state is State.DEFERRED

            await until(written)
            clock.jump_wall(days * DAY_S)
            for _ in range(3):
                clock.advance(1500.0)  # an hour in all, and past the backoff of five minutes
                await round_(home, shard)
            await home.ended([deferred])
            await home.ended([await home.queue()])
            assert (await home.state())[parked] is not None
        assert not home.events(EventType.EXPIRATION, EventType.DELETED, EventType.DELAYED)
        assert len(primary.received) == 2


@pytest.mark.parametrize("days", [30, -30])
async def test_a_mail_that_waits_for_its_primary(tmp_path: Path, days: int) -> None:
    """Three failed probes in more than an hour are no witnesses while the clocks disagree; back in time, it
    is delivered like any other."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, clock, probe_s=15.0) as home,
    ):
        await primary.down()
        async with home.sharing() as common, home.shard(common) as shard:
            id_ = await home.queue()
            await until(lambda: home.events(EventType.PRIMARY))
            clock.jump_wall(days * DAY_S)
            hop = shard.partition.hops[DOMAIN]
            for _ in range(6):
                before = hop.destination.failed
                clock.advance(901)
                await until(lambda before=before: hop.destination.failed > before)  # type: ignore[misc]
                await round_(home, shard)
            assert not shard.partition.shared.clocks.agree
            assert not home.events(EventType.EXPIRATION, EventType.DELAYED)
            clock.jump_wall(-days * DAY_S)
            await round_(home, shard)
            assert shard.partition.shared.clocks.agree
            assert not home.events(EventType.EXPIRATION, EventType.DELAYED)
            await primary.up()
            clock.advance(901)
            await home.ended([id_])
        assert len(primary.received) == 1


async def test_a_jump_that_the_log_has_not_shown_yet(tmp_path: Path) -> None:
    """The log agreed a moment ago, then our clock jumps: a mail of two hours, whose primary failed as often
    and as long as a witness needs, is no mail of a month."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, clock, probe_s=15.0) as home,
    ):
        await primary.down()
        async with home.sharing() as common, home.shard(common) as shard:
            await home.queue()
            await until(lambda: home.events(EventType.PRIMARY))
            hop = shard.partition.hops[DOMAIN]
            for _ in range(6):
                before = hop.destination.failed
                clock.advance(901)
                await until(lambda before=before: hop.destination.failed > before)  # type: ignore[misc]
            await round_(home, shard)
            assert shard.partition.shared.clocks.agree
            clock.jump_wall(31 * DAY_S)
            await shard.upkeep.sweep()
            assert not home.events(EventType.EXPIRATION, EventType.DELAYED)
