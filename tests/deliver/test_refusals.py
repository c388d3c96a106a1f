"""What the primary cannot or will not take, over real sockets: who else of the mail gets it, and when."""

from pathlib import Path

import pytest

from libs.mail.codec import encode
from libs.mail.event import EventType
from libs.mail.knowledge import Callouts, PrimaryFacts
from tests.deliver.house import ZONE, House, house
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.primary import CAPABILITIES, Primary
from tests.helpers.zone import Zone

ANN, BOB, EVE = "ann@office.example", "bob@office.example", "eve@sender.example"
NO = "550 5.1.1 no such user"


def told(home: House) -> tuple[list[str], list[str]]:
    """The recipients of deliveries to the primary, and those that failed."""
    there = [event.recipient for event in home.events(EventType.DELIVERY) if event.recipient != EVE]
    return sorted(there), sorted(event.recipient for event in home.events(EventType.BOUNCE))


async def test_a_refusal_after_the_dot_is_of_one_recipient(tmp_path: Path) -> None:
    """A late rejecter says it for all of them at once: each is tried alone, who exists has the mail once, and
    who does not is the only one that fails."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        async with home.delivering():
            await home.ended([await home.queue(ANN)])  # an accepted mail: refusals are believed
            primary.say("DOT", NO, to=BOB)
            await home.ended([await home.queue(ANN, BOB)])
            await primary.got(3)
        assert told(home) == ([ANN, ANN], [BOB])
        assert [[name for name, _ in mail.recipients] for mail in primary.received] == [[ANN], [ANN], [EVE]]
        assert primary.violations == []


async def test_a_known_late_rejecter_gets_one_recipient_a_transaction(tmp_path: Path) -> None:
    """As callouts found out (PrimaryFacts): nobody is refused for another in the first place."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        async with home.sharing() as common, home.shard(common) as shard:
            facts = PrimaryFacts("office.example", Callouts.LATE_REJECT, 1.0)
            number = home.partition("office.example")
            await home.log.append("recipients", number, b"@office.example", encode(facts), within=PATIENCE_S)
            await until(lambda: shard.partition.late)
            await home.ended([await home.queue(ANN, BOB)])
            open_again = PrimaryFacts("office.example", Callouts.OPEN, 1.0)
            await home.log.append(
                "recipients", number, b"@office.example", encode(open_again), within=PATIENCE_S
            )
            await until(lambda: not shard.partition.late)
            await home.ended([await home.queue(ANN, BOB)])
        names = [[name for name, _ in mail.recipients] for mail in primary.received]
        assert names == [[ANN], [BOB], [ANN, BOB]]


async def test_cut_off_between_two_of_them(tmp_path: Path) -> None:
    """The connection ends after the first: who had the mail does not get it again, the other one later."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        async with home.delivering():
            await home.ended([await home.queue(ANN)])
            primary.say("DOT", "421 4.3.2 going down", to=BOB, times=1)
            primary.say("DOT", NO, times=1)
            id_ = await home.queue(ANN, BOB)
            await until(lambda: home.events(EventType.TRANSIENT_FAILURE))
            await home.flush("1")
            await home.ended([id_])
        names = [[name for name, _ in mail.recipients] for mail in primary.received]
        assert names == [[ANN], [ANN], [BOB]]
        assert told(home) == ([ANN, ANN, BOB], [])


async def test_a_refused_content_is_refused_once(tmp_path: Path) -> None:
    """What speaks of the content is about all of them: it is not sent once more for each."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        async with home.delivering():
            await home.ended([await home.queue(ANN)])
            primary.say("DOT", "554 5.6.0 malformed content")
            id_ = await home.queue(ANN, BOB, may_notify=False)
            await until(lambda: len(home.events(EventType.PARKED)) == 2)
            assert (await home.state())[id_] is not None
        assert sum(command == "DATA" for visit in primary.visits for command in visit.commands) == 2


WITHOUT_UTF8 = tuple(line for line in CAPABILITIES if line != "SMTPUTF8")
UMLAUT = "j\u00f6rg@office.example"


async def test_no_smtputf8_for_a_moment(tmp_path: Path) -> None:
    """RFC 6531: it is offered on one connection and not on the next. Nobody fails for that."""
    async with (
        Zone(ZONE) as zone,
        Primary(capabilities=WITHOUT_UTF8) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        async with home.delivering():
            id_ = await home.queue(UMLAUT, smtputf8=True)
            await until(lambda: home.events(EventType.TRANSIENT_FAILURE))
            primary.capabilities = CAPABILITIES
            await primary.until(lambda: not primary.open_visits)
            await home.flush("1")
            await home.ended([id_])
        assert told(home) == ([UMLAUT], [])
        assert "SMTPUTF8" in primary.received[0].params
        assert not home.events(EventType.PRIMARY)


@pytest.mark.parametrize("capabilities", [WITHOUT_UTF8, ()])
async def test_declared_utf8_and_ascii_all_through(tmp_path: Path, capabilities: tuple[str, ...]) -> None:
    """RFC 6531 section 3.4: there are senders that declare every mail so. It needs nothing of the primary."""
    async with (
        Zone(ZONE) as zone,
        Primary(capabilities=capabilities) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        async with home.delivering():
            await home.ended([await home.queue(ANN, smtputf8=True, envid="1", ret="HDRS")])
        assert told(home) == ([ANN], [])
        assert primary.violations == []


async def test_larger_than_it_takes(tmp_path: Path) -> None:
    """RFC 1870: it hears the size and says no; that is about this mail, and the next one is handed over."""
    async with (
        Zone(ZONE) as zone,
        Primary(capabilities=("PIPELINING", "SIZE 1000")) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        primary.say("MAIL", "552 no", times=1)
        async with home.delivering():
            large = await home.queue(content=b"Subject: x\r\n\r\n" + b"x" * 2000 + b"\r\n", may_notify=False)
            await until(lambda: home.events(EventType.PARKED))
            await home.ended([await home.queue(ANN)])
            assert (await home.state())[large] is not None
        assert told(home) == ([ANN], [ANN])
        assert not home.events(EventType.PRIMARY)
