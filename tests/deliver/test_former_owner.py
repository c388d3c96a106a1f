"""A domain that was removed and added again may be another owner's: nothing of the former one reaches him."""

from pathlib import Path

from libs.mail.codec import encode
from libs.mail.event import EventType
from libs.mail.knowledge import Callouts, Health, PrimaryFacts, PrimaryState
from libs.mail.records import State
from services.deliver.brake import braked
from tests.deliver.house import ZONE, House, house
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

DOMAIN = "office.example"


async def seen(home: House, topic: str, key: str, value: bytes) -> None:
    number = home.partition(DOMAIN)
    await home.log.append(topic, number, key.encode(), value, within=PATIENCE_S)


async def test_mail_of_a_former_owner_is_held(tmp_path: Path) -> None:
    """It is not handed over to the primary of the new one; what was taken for him is, and what an older
    version took, which noted no era."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain(DOMAIN, era=1)
        former = await home.queue(era=0)
        mine = [await home.queue(era=1), await home.queue()]
        async with home.sharing() as common, home.shard(common) as shard:
            await home.ended(mine)
            await until(lambda: (mail := shard.partition.index.get(former)) and mail.state is State.HELD)
            await until(lambda: home.events(EventType.HELD))
        assert len(primary.received) == 2
        (event,) = home.events(EventType.HELD)
        assert (event.id, event.text) == (former, "the domain has another owner now")


async def test_what_was_seen_of_a_former_owners_primary_is_over(tmp_path: Path) -> None:
    """Its brake, its outage and its habits say nothing of the new one's."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        state = PrimaryState(DOMAIN, Health.REFUSING, home.clock.wall() - 60, braked=True, waited=7, era=0)
        await seen(home, "primaries", DOMAIN, encode(state))
        facts = PrimaryFacts(DOMAIN, Callouts.LATE_REJECT, 1.0)
        async with home.sharing() as common, home.shard(common) as shard:
            part = shard.partition
            hop = part.hop(DOMAIN, primary=True)
            assert braked(hop.brake, home.clock.mono())
            await seen(home, "recipients", f"@{DOMAIN}", encode(facts))
            await until(lambda: part.is_late(DOMAIN))
            await home.domain(DOMAIN, era=1)
            await until(lambda: (found := part.settings(DOMAIN)) is not None and found.era == 1)
            hop = part.hop(DOMAIN, primary=True)
            assert (hop.destination.health, hop.waited, hop.era) == (Health.UP, 0, 1)
            assert not braked(hop.brake, home.clock.mono())
            assert not part.is_late(DOMAIN)
            assert shard.upkeep.state(hop).era == 1
