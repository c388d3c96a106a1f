"""Of what a domain's contact is told, and when: from what is known of the domain, and what was told of it.

Each thing that happens is told once at most, by its key; few things in a day, whatever happens; and an outage
with pauses is one outage. What there is no room for is told later, if it is still so.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from libs.mail.knowledge import Callouts, Health, PrimaryFacts, PrimaryState
from libs.mail.records import Notify
from libs.mail.settings import DAY_S

HOUR = 6  # UTC: from then on a day's list of parked mail is written; it has what came until then
CLOCKS_S = 120.0  # the clocks of deliver, which parks, and of the log differ by so much at most (rule 10)
SETTLED_S = 6 * 3600.0  # the end of a second outage within a day is believed after this
WEEK_S = 7 * DAY_S
MANY = 20  # servers, from which on one can tell that it is not they
FORGOTTEN_S = 30 * DAY_S  # what was told may be forgotten after this: the retention of `requests`
OLD_S = 25 * DAY_S  # so what lasts for so long is no news


class News(StrEnum):
    """A cause of a notice. DOWN: the primary is away; REFUSING: it refuses all mail from us; BACK: the end of
    either; BRAKE: the bounce brake was pulled; BLOCKING: it blocks callouts; EXPIRING: the oldest mail is
    about to expire; PARKED: mail was parked; ADDRESS: we get a new one."""

    DOWN = "down"
    REFUSING = "refusing"
    BACK = "back"
    BRAKE = "brake"
    BLOCKING = "blocking"
    EXPIRING = "expiring"
    PARKED = "parked"
    ADDRESS = "address"


class Limits(NamedTuple):
    """`after_s`: an outage or a block is told after so long; `back_s`: its end likewise; `expiring_s`: before
    the oldest mail expires; `most`: notices for a domain within 24 h."""

    after_s: float = 1800.0
    back_s: float = 600.0
    expiring_s: float = 3 * DAY_S
    most: int = 6


class Known(NamedTuple):
    """What is known of a domain. `added`: when it was; `stopped`: nothing is handed over because it is
    pending, suspended or held; `parked`: when the newest mail was parked that its contact may hear of, 0 for
    none. Wall seconds."""

    added: float
    stopped: bool
    lifetime_s: float
    primary: PrimaryState | None = None
    facts: PrimaryFacts | None = None
    parked: float = 0.0


class Telling(NamedTuple):
    """`key` tells one such thing from the next; `since`: when it began; `at`: when it was told, by the log's
    clock; `to`: see records.Notify."""

    news: str
    key: str
    since: float
    at: float = 0.0
    to: str = ""


class Told:
    """What was told of one domain, in the order of the log."""

    def __init__(self, tellings: Iterable[Telling] = ()) -> None:
        self._last: dict[str, Telling] = {}
        self._keys: set[tuple[str, str]] = set()
        self._lately: tuple[float, ...] = ()
        for each in tellings:
            self.add(each)

    def add(self, telling: Telling) -> None:
        """The same once more is nothing new."""
        if self.has(telling.news, telling.key):
            return
        self._keys.add((telling.news, telling.key))
        self._last[telling.news] = telling
        self._lately = (*(at for at in self._lately if at > telling.at - DAY_S), telling.at)

    def has(self, news: str, key: str) -> bool:
        return (news, key) in self._keys

    def last(self, news: str, after: float) -> Telling | None:
        """The newest of a sort, of those told after that moment."""
        found = self._last.get(news)
        return found if found is not None and found.at >= after else None

    def within_a_day(self, now: float) -> int:
        """How many were told in the 24 h before."""
        return sum(at > now - DAY_S for at in self._lately)


def telling(request: Notify, at: float) -> Telling:
    """What a request of that time says was told."""
    return Telling(request.cause, request.key or request.day, request.since, at, request.to)


def due(known: Known, told: Told, now: float, limits: Limits) -> list[Telling]:
    """What is to be told now (by the log's clock); what matters most first."""
    found = [
        _outage(known, told, now, limits),
        _brake(known, told, now),
        _expiring(known, told, now, limits),
        _blocking(known, told, now, limits),
        _parked(known, told, now),
    ]
    fresh = [each for each in found if each is not None and not told.has(each.news, each.key)]
    return fresh[: max(0, limits.most - told.within_a_day(now))]


def rather_us(primaries: Iterable[PrimaryState], now: float) -> bool:
    """Did so many servers go away within a day that it is rather our own connection that is broken? Domains
    with the same MX hosts have one server."""
    away: dict[tuple[str, ...], bool] = {}
    for each in primaries:
        down = each.health is Health.DOWN
        if not down or each.since > now - DAY_S:
            server = each.mx or (each.domain,)
            away[server] = away.get(server, True) and down
    return len(away) >= MANY and 2 * sum(away.values()) > len(away)


def open_outage(known: Known, told: Told) -> Telling | None:
    """The outage that was told, whose end was not."""
    begun = [told.last(each, known.added) for each in (News.DOWN, News.REFUSING)]
    last = max((each for each in begun if each), key=lambda each: each.at, default=None)
    return None if last is None or told.has(News.BACK, last.key) else last


def _outage(known: Known, told: Told, now: float, limits: Limits) -> Telling | None:
    """Where nothing is dialled nobody knows."""
    primary, begun = known.primary, open_outage(known, told)
    if primary is None or known.stopped:
        return None
    for_s = now - primary.since
    if primary.health is not Health.UP:
        if begun is not None or not limits.after_s <= for_s < OLD_S:
            return None
        news = News.REFUSING if primary.health is Health.REFUSING else News.DOWN
        return Telling(news, _key(primary.since), primary.since)
    another = told.last(News.BACK, now - DAY_S)
    settled_s = limits.back_s if another is None else max(limits.back_s, SETTLED_S)
    if begun is None or for_s < settled_s:
        return None
    return Telling(News.BACK, begun.key, begun.since)


def _brake(known: Known, told: Told, now: float) -> Telling | None:
    primary = known.primary
    if primary is None or not primary.braked or not primary.braked_since:
        return None
    if told.last(News.BRAKE, now - DAY_S):
        return None
    return Telling(News.BRAKE, _key(primary.braked_since), primary.braked_since)


def _expiring(known: Known, told: Told, now: float, limits: Limits) -> Telling | None:
    """Once in an outage, and once in a week. Stopped and braked mail does not expire (rule 10)."""
    primary = known.primary
    if primary is None or not primary.oldest or primary.braked or known.stopped:
        return None
    expires = primary.oldest + known.lifetime_s
    if not expires - min(limits.expiring_s, known.lifetime_s / 3) <= now < expires + DAY_S:
        return None
    if told.last(News.EXPIRING, now - WEEK_S):
        return None
    older = now - primary.since >= OLD_S + FORGOTTEN_S
    if primary.health is not Health.UP and (older or told.last(News.EXPIRING, primary.since)):
        return None
    return Telling(News.EXPIRING, _key(primary.oldest), primary.oldest)


def _blocking(known: Known, told: Told, now: float, limits: Limits) -> Telling | None:
    """Not beside an outage: who cannot be reached is told of that."""
    facts, primary = known.facts, known.primary
    if facts is None or facts.callouts is not Callouts.BLOCKED:
        return None
    if not limits.after_s <= now - facts.since < OLD_S:
        return None
    away = primary is not None and primary.health is not Health.UP
    lately = max(now - WEEK_S, known.added)
    if known.stopped or away or any(told.last(each, lately) for each in (News.BLOCKING, News.REFUSING)):
        return None
    return Telling(News.BLOCKING, _key(facts.since), facts.since)


def _parked(known: Known, told: Told, now: float) -> Telling | None:
    """Once a day, in the morning, and only with news."""
    moment = datetime.fromtimestamp(now, UTC)
    day, last = moment.date().isoformat(), told.last(News.PARKED, known.added)
    if not known.parked or moment.hour < HOUR:
        return None
    if last is not None and (last.key >= day or known.parked <= _heard_of(last)):
        return None
    return Telling(News.PARKED, day, known.parked)


def _heard_of(last: Telling) -> float:
    """Of mail that was parked until when. Requests of an older control did not say."""
    return last.since or last.at - CLOCKS_S


def addressee(news: str, domain: str, contact: str, operators: str) -> str:
    """Who is told. Without a contact: at the end of an outage the domain's postmaster, else the operators (""
    where they heard enough)."""
    return contact or (f"postmaster@{domain}" if news == News.BACK else operators)


def _key(since: float) -> str:
    return f"{since:.0f}"
