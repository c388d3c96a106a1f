"""That contacts are told once, whoever decides it: over a real log, by real controls."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from libs.log.contract import NotOwner
from libs.mail.codec import decode_request, encode, new_entry
from libs.mail.event import Event, EventType
from libs.mail.knowledge import Callouts, Health, PrimaryFacts, PrimaryState
from libs.mail.records import Cause, Notify, Progress, State
from services.control.announcing import announced
from services.control.domains import Malformed, Refused
from services.control.notices import Notices
from tests.control.test_desk import Office, office
from tests.control.test_queue import MAIL, record
from tests.helpers.clock import Clock

DAY_S = 86_400.0
NOON = datetime(2027, 1, 15, 12, tzinfo=UTC).timestamp()
NAME, OWNER = "office.example", "owner@elsewhere.example"
HOSTS = ("mx1.backup.example", "mx2.backup.example")


async def notices(at: Office) -> list[Notify]:
    found = [decode_request(each.value or b"") for each in await at.records("requests")]
    return [each for each in found if isinstance(each, Notify)]


async def tended(at: Office, seconds: float = 61) -> None:
    """One round so much later, with what the log's clock says."""
    assert isinstance(at.clock, Clock)
    at.clock.advance(seconds)
    at.desk.deps.events.emit(Event(type=EventType.TICK))
    await at.desk.deps.events.flush()
    await at.until(lambda: at.desk.notices.memory.whole and at.desk.notices.facts.whole)
    await at.desk.notices.tend()


async def primary(at: Office, health: Health, name: str = NAME, **more: Any) -> PrimaryState:
    """deliver says how a primary is since now."""
    state = PrimaryState(name, health, at.clock.wall(), **more)
    await at.append("primaries", name, encode(state), name)
    await at.until(lambda: at.desk._primaries.get(name.encode()) == state)
    return state


async def test_what_is_parked_is_told_once_a_day_and_not_again_after_a_restart(tmp_path: Path) -> None:
    """The topic is the memory: another control on the same log knows what was asked for."""
    clock = Clock(NOON)
    async with office(tmp_path, log_clock=clock) as at:
        await at.desk.domain_add(NAME, contact="Owner@elsewhere.example")
        parked = record(progress=Progress(State.PARKED, failed=(0,), since=clock.wall(), cause=Cause.EXPIRED))
        await at.append("queue", MAIL.id, parked.value, NAME, headers=parked.headers)
        await at.until(lambda: at.desk._queue.values)
        claim = at.desk.register.claims.held[0]
        at.desk.register.claims.lost(claim)
        await tended(at)
        assert await notices(at) == []  # another control leads
        at.desk.register.claims.gained(claim)
        for _ in range(3):
            await tended(at)
        (one,) = await notices(at)
        assert (one.domain, one.cause, one.day, one.text) == (NAME, "parked", "2027-01-15", "")
    async with office(tmp_path, log_clock=clock) as at:
        await at.until(lambda: at.desk.notices.memory.told)
        await tended(at)
        await tended(at, DAY_S)
        assert len(await notices(at)) == 1  # nothing new
        again = replace(new_entry(MAIL), progress=Progress(State.PARKED, failed=(0,), since=clock.wall()))
        await at.append("queue", MAIL.id, encode(again), NAME, headers=parked.headers)
        await at.until(
            lambda: [each for each in at.desk._queue.values.values() if each.parked == clock.wall()]
        )
        await tended(at)
        assert [each.day for each in await notices(at)] == ["2027-01-15", "2027-01-16"]


async def test_down_and_back(tmp_path: Path) -> None:
    """In the owner's language; another control that begins in the middle tells nothing twice."""
    clock = Clock(NOON)
    async with office(tmp_path, log_clock=clock) as at:
        await at.desk.domain_add(NAME, contact=OWNER, language="de")
        down = await primary(at, Health.DOWN, last_reply="CONNECT: timeout", waiting=3)
        await tended(at, 1700)
        assert await notices(at) == []
        await tended(at, 200)
        (one,) = await notices(at)
        assert (one.to, one.cause, one.key, one.since) == (OWNER, "down", f"{down.since:.0f}", down.since)
        assert one.subject == "office.example: Ihr Mailserver ist seit 2027-01-15 12:00 UTC nicht erreichbar"
        assert (one.details["waiting"], one.details["reply"]) == (3, "CONNECT: timeout")
    async with office(tmp_path, log_clock=clock) as at:
        await at.until(lambda: at.desk._primaries.values)
        await tended(at)
        assert len(await notices(at)) == 1
        await primary(at, Health.UP, waited=3, handed=3)
        await tended(at, 500)
        assert len(await notices(at)) == 1
        await tended(at, 200)
        _, back = await notices(at)
        assert (back.cause, back.key, back.details["waited"]) == ("back", one.key, 3)
        await tended(at, DAY_S)
        assert len(await notices(at)) == 2


async def test_a_start_waits(tmp_path: Path) -> None:
    """What is known at a start was known when we ended: deliver gets a minute to see how it is today."""
    clock = Clock(NOON)
    async with office(tmp_path, log_clock=clock) as at:
        await at.desk.domain_add(NAME, contact=OWNER)
        await primary(at, Health.DOWN)
    clock.advance(2 * DAY_S)
    async with office(tmp_path, log_clock=clock) as at:
        await at.until(lambda: at.desk._primaries.values)
        await tended(at, 50)
        assert await notices(at) == []
        await primary(at, Health.UP)
        await tended(at, 3600)
        assert await notices(at) == []


async def test_blocked_callouts(tmp_path: Path) -> None:
    """What verify learnt of the primary, in the era of the domain; a restart reads it again."""
    clock = Clock(NOON)
    facts = PrimaryFacts(NAME, Callouts.BLOCKED, NOON, reply="554 5.7.1 no", server="postfix")
    async with office(tmp_path, log_clock=clock) as at:
        await at.desk.domain_add(NAME, contact=OWNER)
        await at.append("recipients", f"@{NAME}", encode(replace(facts, era=7)), NAME)
        await at.until(lambda: at.desk.notices.facts.get(f"@{NAME}".encode()))
        await tended(at, 1900)
        assert await notices(at) == []
        await at.append("recipients", f"@{NAME}", encode(facts), NAME)
        await at.until(lambda: at.desk.notices.facts.get(f"@{NAME}".encode()) == facts)
        await tended(at)
        (one,) = await notices(at)
        assert one.cause == "blocking"
        assert "192.0.2.1 OK" in one.text


async def test_without_a_contact(tmp_path: Path) -> None:
    """The operators hear of some, the events of all; the domain's postmaster when it is over."""
    clock, names = Clock(NOON), [f"d{number}.example" for number in range(22)]
    async with office(tmp_path, log_clock=clock) as at:
        for name in names:
            await at.desk.domain_add(name)
            await primary(at, Health.DOWN, name)
        await tended(at, 1900)
        assert await notices(at) == []  # of 22 servers none is there: it is rather us
        for number in range(22):
            await primary(at, Health.UP, f"up{number}.example")
        await tended(at)
        told = await notices(at)
        assert [each.to for each in told].count("postmaster@isp.example") == 20
        assert [each.to for each in told].count("") == 2
        await at.desk.deps.events.flush()
        assert at.events.getvalue().count('"type":"Notice"') == 2
        assert (
            at.desk.deps.metrics.registry.get_sample_value(
                "backupmx_notices_total", {"cause": "down", "to": "nobody"}
            )
            == 2
        )
        await primary(at, Health.UP, names[0])
        await tended(at, 700)
        assert [(each.to, each.cause) for each in await notices(at)][-1] == ("postmaster@d0.example", "back")


async def test_a_control_that_leads_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for nothing when the log says so, and again when it leads."""
    clock = Clock(NOON)
    async with office(tmp_path, log_clock=clock) as at:
        await at.desk.domain_add(NAME, contact=OWNER)
        await primary(at, Health.DOWN)
        append = at.log.append

        async def refused(*_: Any, **__: Any) -> None:
            raise NotOwner("control 0")

        monkeypatch.setattr(at.log, "append", refused)
        clock.advance(1900)
        await at.desk.notices.tend()
        monkeypatch.setattr(at.log, "append", append)
        assert await notices(at) == []
        await tended(at)
        assert len(await notices(at)) == 1


async def test_told_by_another_control(tmp_path: Path) -> None:
    """What another control wrote a moment ago, and this one has not read, is not told again."""
    clock = Clock(NOON)
    async with office(tmp_path, log_clock=clock) as at:
        await at.desk.domain_add(NAME, contact=OWNER)
        state, desk = await primary(at, Health.DOWN), at.desk
        slow = Notices(desk.deps, desk.register, desk._places, desk._primaries)
        slow.facts = desk.notices.facts
        reading = asyncio.create_task(slow.memory.run())
        await at.until(lambda: slow.memory.whole)
        reading.cancel()
        await asyncio.wait({reading})
        key = f"{state.since:.0f}"
        other = Notify("other", NAME, "control", "down", "2027-01-15", key, OWNER, "Down", "Down")
        await at.append("requests", NAME, encode(other), NAME)
        desk.notices = slow
        await tended(at, 1900)
        assert [each.request_id for each in await notices(at)] == ["other"]


# --- announced ---


async def test_announced_once(tmp_path: Path) -> None:
    """Each owner hears once, of all his domains; who has no contact through his postmaster; said again it
    reaches only those who came since."""
    async with office(tmp_path, log_clock=Clock(NOON)) as at:
        await at.desk.domain_add("b.example", contact=OWNER, language="de")
        await at.desk.domain_add("a.example", contact=OWNER, language="de")
        await at.desk.domain_add("c.example")
        said = await at.desk.notices.announce("MX2.backup.example", "2001:db8:0::20", None, "a test")
        assert said == {
            "host": "mx2.backup.example",
            "address": "2001:db8::20",
            "from": "2027-02-14",
            "told": 2,
            "already": 0,
        }
        to = {each.to: each for each in await notices(at)}
        assert sorted(to) == [OWNER, "postmaster@c.example"]
        assert "Ihre Domains: a.example, b.example." in to[OWNER].text
        assert "2001:db8::20" in to["postmaster@c.example"].subject
        await at.desk.domain_add("d.example", contact="somebody@elsewhere.example")
        said = await at.desk.notices.announce("mx2.backup.example", "2001:db8::20", "2027-02-14", "a test")
        assert (said["told"], said["already"]) == (1, 2)


@pytest.mark.parametrize(
    ("host", "address", "day", "wrong"),
    [
        ("mx9.backup.example", "192.0.2.20", None, "none of our hosts"),
        ("mx1.backup.example", "192.0.2.256", None, "no IP address"),
        ("mx1.backup.example", "127.0.0.1", None, "no address that others could see"),
        ("mx1.backup.example", "192.0.2.20", "tomorrow", "no date such as 2027-02-14"),
        ("mx1.backup.example", "192.0.2.20", "2027-01-15", "is not ahead"),
    ],
)
def test_not_announced(host: str, address: str, day: str | None, wrong: str) -> None:
    with pytest.raises(Malformed, match=wrong):
        announced(host, address, day, NOON, HOSTS)


# --- contacts ---


async def test_a_contact_is_outside_of_the_domain(tmp_path: Path) -> None:
    """Its own server is away when there is news; and it is an address, or a URL that may be posted to."""
    async with office(tmp_path) as at:
        with pytest.raises(Malformed, match=r"contact must be outside of office\.example"):
            await at.desk.domain_add(NAME, contact="ann@office.example")
        await at.desk.domain_add(NAME)
        for wrong in (
            "the owner", "http://hook.example/", "https://127.0.0.1/", "https://[::1]/", "https://localhost/",
            "https://u:p@hook.example/", "https://hook.example/#x", "https://hook.example:0/", "https://hook.example/ä",
            "https://hook.example/" + "x" * 500,
        ):  # fmt: skip
            with pytest.raises(Malformed, match="contact must be the mail address of the owner"):
                await at.desk.domain_set(NAME, contact=wrong)
        shown = await at.desk.domain_set(NAME, contact=OWNER, language="de")
        assert (shown["settings"]["contact"], shown["settings"]["language"]) == (OWNER, "de")
        assert shown["settings"]["contact_secret"] == ""


async def test_a_url_has_a_secret(tmp_path: Path) -> None:
    """It is made where none is given, kept when the URL changes, and told in no event."""
    async with office(tmp_path) as at:
        await at.desk.domain_add(NAME, contact="https://hook.example/a?b=c")
        made = (await at.desk.domain_show(NAME))["settings"]["contact_secret"]
        assert made.startswith("whsec_")
        shown = await at.desk.domain_set(NAME, contact="https://hook.example:8443/x")
        assert shown["settings"]["contact_secret"] == made
        for wrong in ("secret", "whsec_", "whsec_c2hvcnQ=", "whsec_*"):
            with pytest.raises(Malformed, match="contact_secret must be whsec_"):
                await at.desk.domain_set(NAME, contact_secret=wrong)
        given = "whsec_" + "c2VjcmV0" * 4
        shown = await at.desk.domain_set(NAME, contact_secret=given)
        assert shown["settings"]["contact_secret"] == given
        with pytest.raises(Refused, match="needs contact_secret"):
            await at.desk.domain_set(NAME, contact_secret="default")
        await at.desk.deps.events.flush()
        assert given not in at.events.getvalue()
        assert "contact_secret=..." in at.events.getvalue()
