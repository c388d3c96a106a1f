"""How a next hop is reached: patience, addresses, routes."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from libs.mail.codec import decode
from libs.mail.event import EventType
from libs.mail.knowledge import Health, PrimaryState
from libs.smtp.client import CALLOUT, Dialer
from services.deliver.partition import Dialers
from tests.deliver.house import ZONE, House, house
from tests.helpers.clock import Clock
from tests.helpers.patience import until
from tests.helpers.policy_server import PolicyServer
from tests.helpers.primary import CAPABILITIES, Primary
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


XCLIENT = "XCLIENT NAME ADDR PROTO HELO"


async def test_the_primary_is_told_whose_mail_it_gets(tmp_path: Path) -> None:
    """Each mail under its own client's address, in whatever order they come; a notice of ours under ours."""
    async with (
        Zone(ZONE) as zone,
        Primary(capabilities=(*CAPABILITIES, XCLIENT)) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        await home.domain("office.example", xclient=True)
        clients = [f"192.0.2.{number % 3 + 1}" for number in range(9)]
        async with home.delivering():
            ids = [
                await home.queue(
                    content=b"Subject: %s\r\n\r\nx\r\n" % client.encode(), client=client, helo="a.example"
                )
                for client in clients
            ]
            await home.ended(ids)
            primary.say("RCPT", "550 5.1.1 no", to="ann@office.example")
            await home.ended([await home.queue(client="192.0.2.9", helo="a.example", may_notify=True)])
            await primary.got(10)
        *mails, notice = primary.received
        told = [
            (mail.content.partition(b"Subject: ")[2].partition(b"\r")[0].decode(), mail.xclient["ADDR"])
            for mail in mails
        ]
        assert sorted(told) == sorted((client, client) for client in clients)
        assert {mail.helo for mail in mails} == {"a.example"}
        assert (notice.reverse_path, notice.xclient, notice.helo) == ("", {}, "mx1.backup.example")
        assert primary.violations == []


async def test_it_is_told_only_where_it_is_wanted(tmp_path: Path) -> None:
    async with (
        Zone(ZONE) as zone,
        Primary(capabilities=(*CAPABILITIES, XCLIENT)) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        async with home.delivering():
            await home.ended([await home.queue(client="192.0.2.9", helo="a.example")])
        assert primary.received[0].xclient == {}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("554 5.7.1 that client is blocked", "554 5.7.1 that client is blocked"),
        ("450 4.7.1 not now", "450 4.7.1 not now"),
        ("!drop", "XCLIENT: closed"),
    ],
)
async def test_the_client_is_refused(tmp_path: Path, reply: str, said: str) -> None:
    """What it says to XCLIENT is about that client's mail, which waits; others go on. So it is where it hangs
    up on him: his mail would be the first in line after each probe, and nobody's would come through."""
    async with (
        Zone(ZONE) as zone,
        Primary(capabilities=(*CAPABILITIES, XCLIENT)) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        await home.domain("office.example", xclient=True)
        async with home.delivering():
            primary.say("XCLIENT", reply, times=1)
            bad = await home.queue(client="192.0.2.9", helo="a.example")
            await until(lambda: home.events(EventType.TRANSIENT_FAILURE))
            good = await home.queue(client="192.0.2.1", helo="b.example")
            await home.ended([good])
            state = (await home.state())[bad]
            assert state is not None
            assert state.last_reply == said
            await home.flush("1")
            await home.ended([bad])
        assert not home.events(EventType.BOUNCE, EventType.PRIMARY)


async def test_mx_changes_are_noticed(tmp_path: Path) -> None:
    """A connection that never idles is left when the records that led to it have ended and say otherwise."""
    moved = ZONE.replace("mx.office.example   A  127.0.0.1", "mx.office.example   A  127.0.0.2")
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        Primary(address="127.0.0.2", port=primary.port) as second,
        house(tmp_path, primary, zone.servers) as home,
    ):
        async with home.delivering():
            await home.ended([await home.queue()])
            zone.set(moved)
            while not second.received:
                await home.ended([await home.queue()])
            assert len(primary.visits) == 1
            zone.set("office.example !servfail")
            waiting = []

            async def down() -> bool:
                waiting.append(await home.queue())
                return bool(home.events(EventType.PRIMARY))

            await until(down)  # nothing goes to an address of yesterday
            zone.set(moved)
            await home.ended(waiting)
        assert "DNS: trouble" in home.events(EventType.PRIMARY)[0].text


async def test_a_policy_that_comes_is_noticed(tmp_path: Path) -> None:
    """A connection that never idles is left, too, when the domain begins to ask for TLS (RFC 8461)."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(tmp_path / "authorities.pem")
    authority.issue_cert("mta-sts.office.example").configure_cert(context)
    policy = "version: STSv1\nmode: enforce\nmx: mx.office.example\nmax_age: 86400\n"
    records = '_mta-sts.office.example TXT "v=STSv1; id=1;"\nmta-sts.office.example A 127.0.0.1\n'
    async with Zone(ZONE) as zone, Primary() as primary, PolicyServer(context, policy) as policies:
        dial = {"policy_port": policies.port, "authorities": tmp_path / "authorities.pem"}
        async with house(tmp_path, primary, zone.servers, dial=dial) as home, home.delivering():
            await home.ended([await home.queue()])
            zone.set(ZONE + records)

            async def down() -> bool:
                await home.queue()
                return bool(home.events(EventType.PRIMARY))

            await until(down)
            assert "MTA-STS" in home.events(EventType.PRIMARY)[0].text


async def test_when_dns_named_it_last_is_told(tmp_path: Path) -> None:
    """The time of the last working MX set goes on while the domain has one, and stops with it."""
    clock = Clock()
    async with (
        Zone(ZONE) as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, clock) as home,
        home.delivering(),
    ):

        async def told(true: Callable[[PrimaryState], bool]) -> PrimaryState | None:
            records = [record async for record in home.records("primaries", "office.example")]
            state = decode(records[-1].value, PrimaryState) if records else None
            return state if state is not None and true(state) else None

        await home.ended([await home.queue()])
        begin = clock.wall()
        await until(lambda: told(lambda state: state.mx_seen == begin))
        clock.advance(2 * 3600)
        await home.ended([await home.queue()])
        await until(lambda: told(lambda state: state.mx_seen == begin + 2 * 3600))
        zone.set("office.example !servfail")
        clock.advance(31 * 86400)
        await home.queue()
        state = await until(lambda: told(lambda state: state.health is Health.DOWN))
        assert state.mx_seen == begin + 2 * 3600


async def test_where_the_owner_says_that_it_is(tmp_path: Path) -> None:
    """Host and port of his own, whatever the MX records say; back to them when he takes it back, at once."""
    own = f"{ZONE}own.office.example  A  127.0.0.2\n"
    async with (
        Zone(own) as zone,
        Primary() as primary,
        Primary(address="127.0.0.2") as elsewhere,
        house(tmp_path, primary, zone.servers) as home,
        home.delivering(),
    ):
        await home.domain("office.example", primary_host=f"own.office.example:{elsewhere.port}")
        await home.ended([await home.queue()])
        await home.domain("office.example", primary_host=f"[127.0.0.2]:{elsewhere.port}")
        await home.ended([await home.queue()])
        assert (len(elsewhere.received), len(primary.received)) == (2, 0)
        await home.domain("office.example")
        await home.ended([await home.queue()])
        assert (len(elsewhere.received), len(primary.received)) == (2, 1)


@pytest.mark.parametrize("place", ["mx1.backup.example", "[10.0.0.1]", "nowhere.office.example"])
async def test_where_it_cannot_be(tmp_path: Path, place: str) -> None:
    """One of us, an address that is never dialled, no address: the mail waits, and MX records are no way
    around what the owner said."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain("office.example", primary_host=place)
        async with home.delivering():
            await home.queue()
            await until(lambda: home.events(EventType.PRIMARY))
        assert not primary.visits
        assert "up -> down" in home.events(EventType.PRIMARY)[0].text


async def test_the_name_that_the_owner_gives_it(tmp_path: Path) -> None:
    """With a TLS name the certificate must be for it, or nothing is handed over."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mail.office.example").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "authorities.pem")
    async with (
        Zone(ZONE) as zone,
        Primary(tls=tls) as primary,
        house(tmp_path, primary, zone.servers, dial={"authorities": tmp_path / "authorities.pem"}) as home,
    ):
        await home.domain("office.example", tls_name="other.office.example")
        async with home.delivering():
            id_ = await home.queue()
            await until(lambda: home.events(EventType.PRIMARY))
            assert "tls_name: the certificate is not trusted" in home.events(EventType.PRIMARY)[0].text
            await home.domain("office.example", tls_name="mail.office.example")
            await home.ended([id_])
        assert primary.received[0].tls
