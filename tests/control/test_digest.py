"""When a domain's contact is written to, and that it is asked for once, whoever asks."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from libs.mail.codec import decode_request, encode, new_entry
from libs.mail.event import Event, EventType
from libs.mail.records import Cause, Domain, Notify, Overrides, Progress, State
from services.control.digest import Told, due
from services.control.domains import Malformed
from tests.control.test_desk import Office, office
from tests.control.test_queue import MAIL, record
from tests.helpers.clock import Clock

DAY_S = 86_400.0
NOON = datetime(2027, 1, 15, 12, tzinfo=UTC).timestamp()
NAME = "office.example"
DOMAINS = {NAME: Domain(NAME, 1.0, 1.0, overrides=Overrides(contact="owner@elsewhere.example"))}


@pytest.mark.parametrize(
    ("parked", "told", "now", "day"),
    [
        (NOON - 60, None, NOON, "2027-01-15"),
        (NOON - 60, None, NOON - 7 * 3600, None),  # not in the night
        (NOON - 60, Told("2027-01-15", NOON - 90), NOON, None),  # once a day
        (NOON - 60, Told("2027-01-14", NOON - DAY_S), NOON, "2027-01-15"),
        (NOON - DAY_S - 60, Told("2027-01-14", NOON - DAY_S), NOON, "2027-01-15"),  # a clock was late
        (NOON - 2 * DAY_S, Told("2027-01-14", NOON - DAY_S), NOON, None),  # nothing new
        (NOON - 60, Told("2027-01-16", NOON - 90), NOON, None),  # a clock went back
    ],
)
def test_due(parked: float, told: Told | None, now: float, day: str | None) -> None:
    """Once a day, in the morning, and only where something was parked since."""
    found = list(due({NAME: parked}, DOMAINS, {} if told is None else {NAME: told}, now))
    assert found == ([] if day is None else [(NAME, day)])


def test_nobody_to_write_to() -> None:
    """Without a contact, and of a domain that was removed, nothing is asked for."""
    assert list(due({NAME: NOON}, {NAME: Domain(NAME, 1.0)}, {}, NOON)) == []
    assert list(due({NAME: NOON}, {}, {}, NOON)) == []


async def notices(at: Office) -> list[Notify]:
    found = [decode_request(each.value or b"") for each in await at.records("requests")]
    return [each for each in found if isinstance(each, Notify)]


async def tended(at: Office) -> None:
    """One round a minute later, with what the log's clock says."""
    assert isinstance(at.clock, Clock)
    at.clock.advance(61)
    at.desk.deps.events.emit(Event(type=EventType.TICK))
    await at.desk.deps.events.flush()
    await at.desk.digests.tend()


async def test_asked_for_once_a_day_and_not_again_after_a_restart(tmp_path: Path) -> None:
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
        assert (one.domain, one.cause, one.day) == (NAME, "parked", "2027-01-15")
    async with office(tmp_path, log_clock=clock) as at:
        await at.until(lambda: at.desk.digests._told)
        await tended(at)
        clock.advance(DAY_S)
        await tended(at)
        assert len(await notices(at)) == 1  # nothing new
        again = replace(new_entry(MAIL), progress=Progress(State.PARKED, failed=(0,), since=clock.wall()))
        await at.append("queue", MAIL.id, encode(again), NAME, headers=parked.headers)
        await at.until(
            lambda: [each for each in at.desk._queue.values.values() if each.parked == clock.wall()]
        )
        await tended(at)
        assert [each.day for each in await notices(at)] == ["2027-01-15", "2027-01-16"]


async def test_a_contact_is_outside_of_the_domain(tmp_path: Path) -> None:
    """Its own server is away when there is news; and it is an address."""
    async with office(tmp_path) as at:
        with pytest.raises(Malformed, match=r"contact must be outside of office\.example"):
            await at.desk.domain_add(NAME, contact="ann@office.example")
        await at.desk.domain_add(NAME)
        with pytest.raises(Malformed, match="contact must be the mail address of the owner"):
            await at.desk.domain_set(NAME, contact="the owner")
        shown = await at.desk.domain_set(NAME, contact="owner@elsewhere.example", language="de")
        assert (shown["settings"]["contact"], shown["settings"]["language"]) == (
            "owner@elsewhere.example",
            "de",
        )
