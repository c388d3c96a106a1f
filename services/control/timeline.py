"""The outages of a domain's primary, out of the events of its mail: when, for how long, and what waited."""

import re
from collections.abc import Iterable
from math import inf

from msgspec import Struct

from libs.mail.event import Event, EventType
from libs.mail.knowledge import Health

_CHANGE = re.compile(r"([a-z]+) -> ([a-z]+)(?:: (.*))?", re.DOTALL)
# After these a mail waits no more.
_ENDS = frozenset(
    {EventType.DELIVERY, EventType.BOUNCE, EventType.EXPIRATION, EventType.DELETED, EventType.PARKED}
)


class Outage(Struct):
    """`since`, `until`: wall seconds; 0 for an end that the events do not have: it began before the oldest of
    them, or goes on. `states`: what the primary was meanwhile, in order; `reply`: its last. `waited`: mails
    that waited in it; `handed_over`: those of them that it has had since, the last of them at `last`."""

    since: float
    until: float = 0.0
    states: list[str] = []
    reply: str = ""
    waited: int = 0
    handed_over: int = 0
    last: float = 0.0


def outages(events: Iterable[Event]) -> list[Outage]:
    """Of one domain, oldest first. `events`: of that domain, in any order."""
    found: list[Outage] = []
    taken: dict[str, float] = {}
    ended: dict[str, Event] = {}
    for event in sorted(events, key=lambda each: each.event_time):
        if event.type is EventType.PRIMARY:
            if (change := _CHANGE.fullmatch(event.text)) is not None:
                _changed(found, event.event_time, *change.groups(""))
        elif event.type is EventType.RECEPTION:
            taken[event.id] = event.event_time
        elif event.type in _ENDS:
            ended.setdefault(event.id, event)
    for outage in found:
        for id_, at in taken.items():
            _count(outage, at, ended.get(id_))
    return found


def _changed(found: list[Outage], at: float, before: str, after: str, reply: str) -> None:
    away = bool(found) and not found[-1].until
    if not away and before != Health.UP:
        found.append(Outage(0.0, states=[before]))  # it began before the oldest event
        away = True
    if after == Health.UP:
        if away:
            found[-1].until = at
        return
    if not away:
        found.append(Outage(at))
    outage = found[-1]
    outage.states = [*outage.states, after]
    outage.reply = reply or outage.reply


def _count(outage: Outage, taken: float, end: Event | None) -> None:
    """The mail whose attempt showed that the primary is away was taken before that was seen."""
    ended = inf if end is None else end.event_time
    if taken >= (outage.until or inf) or ended <= outage.since:
        return
    outage.waited += 1
    if end is not None and end.type is EventType.DELIVERY:
        outage.handed_over += 1
        outage.last = max(outage.last, ended)
