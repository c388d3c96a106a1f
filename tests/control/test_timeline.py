"""Outages out of events: told as they were, whatever is missing at the ends."""

from libs.mail.event import Event, EventType
from services.control.timeline import Outage, outages


def primary(at: float, text: str) -> Event:
    return Event(EventType.PRIMARY, event_time=at, domain="office.example", text=text)


def taken(at: float) -> Event:
    return Event(EventType.RECEPTION, event_time=at, domain="office.example", id=f"m{at:g}", created_time=at)


def ended(at: float, created: float, type_: EventType = EventType.DELIVERY) -> Event:
    return Event(type_, event_time=at, domain="office.example", id=f"m{created:g}", created_time=created)


def test_an_outage_from_the_mail_that_showed_it_to_the_last_one() -> None:
    """What came and went before and after is none of it; a mail of two recipients is one; events come in any
    order."""
    events = [
        taken(5), ended(6, 5), taken(9), primary(10, "up -> down: connection refused"), taken(11), taken(12),
        primary(20, "down -> up"), ended(21, 11), ended(23, 12), ended(22, 12), ended(22, 9),
        taken(30), ended(31, 30),
    ]  # fmt: skip
    wanted = [Outage(10, 20, ["down"], "connection refused", waited=3, handed_over=3, last=22)]
    assert outages(events) == outages(reversed(events)) == wanted


def test_states_within_an_outage() -> None:
    """Down, then refusing: one outage, with the last that was said."""
    events = [
        primary(1, "up -> down: timeout"),
        primary(2, "down -> refusing: 554 go away"),
        primary(3, "refusing -> up"),
    ]
    assert outages(events) == [Outage(1, 3, ["down", "refusing"], "554 go away")]


def test_ends_that_events_do_not_have() -> None:
    """One that began before the oldest event, and one that goes on."""
    assert outages([primary(9, "down -> up")]) == [Outage(0, 9, ["down"])]
    assert outages([primary(9, "up -> deferring"), taken(10)]) == [Outage(9, 0, ["deferring"], waited=1)]
    assert outages([primary(9, "bounce brake pulled"), taken(3)]) == []


def test_what_expired_was_not_handed_over() -> None:
    """It waited in one outage and in no later one."""
    events = [
        primary(1, "up -> down"), taken(2), ended(3, 2, EventType.EXPIRATION), primary(4, "down -> up"),
        primary(5, "up -> down"), taken(6), primary(9, "down -> up"), ended(10, 6),
    ]  # fmt: skip
    assert [(each.waited, each.handed_over, each.last) for each in outages(events)] == [(1, 0, 0), (1, 1, 10)]
