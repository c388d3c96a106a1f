"""How a next hop is reached: patience, addresses, routes."""

from pathlib import Path

from libs.mail.event import EventType
from libs.mail.knowledge import Health
from libs.smtp.client import CALLOUT, Dialer
from services.deliver.partition import Dialers
from tests.deliver.house import ZONE, House, house
from tests.helpers.patience import until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

GREETING_S = 0.3


def hurried(home: House, dialers: Dialers) -> Dialers:
    """With probes that wait no longer than carriers do."""
    config = home.deps.config
    probing = CALLOUT._replace(banner_s=GREETING_S)
    return dialers._replace(prober=Dialer(config.dial, config.host, home.clock, probing))


async def test_a_slow_greeting_is_found_by_a_patient_probe(tmp_path: Path) -> None:
    """RFC 5321 section 4.5.3.2.1: it greets later than carriers and probes wait; its mail gets there, and the
    next one without another outage."""
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, dial={"greeting_s": GREETING_S}, probe_s=0.01) as home,
    ):
        primary.slow(2 * GREETING_S, "BANNER")
        async with home.sharing() as common:
            common = common._replace(dialers=hurried(home, common.dialers))
            async with home.shard(common) as shard:
                first = await home.queue()
                await until(lambda: "office.example" in shard.partition.hops)
                hop = shard.partition.hops["office.example"]
                await until(lambda: hop.destination.health is Health.DOWN)
                assert not hop.slow
                await home.ended([first])
                assert hop.slow
                outages = len(home.events(EventType.PRIMARY))
                await primary.until(lambda: not primary.open_visits)  # the kept connection is gone
                await home.ended([await home.queue()])
                assert len(home.events(EventType.PRIMARY)) == outages
                primary.slow(0.0, "BANNER")
                await primary.until(lambda: not primary.open_visits)
                await home.ended([await home.queue()])
                assert not hop.slow
        assert len(primary.received) == 3


async def test_a_silent_address_holds_nobody(tmp_path: Path) -> None:
    """The best MX takes connections and says nothing: after its time the next one gets the mail."""
    zone_text = ZONE.replace("MX 20 mx1", "MX 15 second.office.example\n                    MX 20 mx1")
    async with (
        Zone(f"{zone_text}second.office.example A 127.0.0.2\n") as zone,
        Primary() as primary,
        Primary(address="127.0.0.2", port=primary.port) as second,
        house(tmp_path, primary, zone.servers, dial={"greeting_s": GREETING_S}) as home,
    ):
        primary.say("BANNER", "!silent")
        async with home.delivering():
            await home.ended([await home.queue()])
        assert len(second.received) == 1
        assert not home.events(EventType.PRIMARY)
