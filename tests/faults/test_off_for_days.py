"""Everything was off for six days, longer than a mail lives: what waits is tried first, and nothing ends
untried."""

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
DEFERRED = Progress(State.DEFERRED, 2, 1_800_000_300.0, last_reply="450 4.2.0 later", since=1_800_000_000.0)


async def round_(home: House, shard: Shard) -> None:
    """What a shard does by itself twice a minute, with the log's clock just heard."""
    await shard.partition.append("events", b"x", b"{}")
    await shard.upkeep.sweep()


@pytest.mark.parametrize("back", [True, False])
async def test_off_for_six_days(tmp_path: Path, back: bool) -> None:
    """The primary is back, too: all of it is handed over, in one go. It is not: for a day nothing ends, and
    then only with three failures of this process over an hour."""
    clock = Clock()
    async with Zone(ZONE) as zone, Primary() as primary:
        await primary.down()
        async with house(tmp_path, primary, zone.servers, clock) as home:
            await home.domain(DOMAIN, lifetime_s=5 * DAY_S)
            ids = [await home.queue(), await home.queue(progress=DEFERRED), await home.queue()]
            parked = await home.queue(progress=Progress(State.PARKED, failed=(0,), since=clock.wall()))
        clock.advance(6 * DAY_S)
        if back:
            await primary.up()
        async with (
            house(tmp_path, primary, zone.servers, clock, probe_s=15.0) as home,
            home.sharing() as common,
            home.shard(common) as shard,
        ):
            await home.domain(DOMAIN, lifetime_s=5 * DAY_S)
            if back:
                await round_(home, shard)
                await home.ended(ids)
                assert len(primary.received) == 3
                assert not home.events(EventType.EXPIRATION, EventType.DELETED)
                return
            hop = shard.partition.hop(DOMAIN)
            await until(lambda: home.events(EventType.PRIMARY))
            for hours in range(23):
                before = hop.destination.failed
                clock.advance(3600)
                await until(lambda before=before: hop.destination.failed > before)  # type: ignore[misc]
                await round_(home, shard)
                assert not home.events(EventType.EXPIRATION, EventType.DELAYED, EventType.DELETED), hours
            clock.advance(2 * 3600)  # the log trusts its clock again
            await round_(home, shard)
            assert len(home.events(EventType.EXPIRATION)) == 3
            assert (await home.state())[parked] is None  # its seven days were over as well
