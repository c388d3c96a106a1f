"""Has the contacts of domains told: looks at each domain now and then, asks for what is due; announces."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog

from libs.log.contract import LogError, Record
from libs.log.table import Table
from libs.mail.codec import decode_recipient
from libs.mail.event import Event, EventType
from libs.mail.knowledge import PrimaryFacts, PrimaryState
from libs.mail.notice import is_url, notice_id
from libs.mail.records import Domain, Notify
from libs.mail.settings import DAY_S, DomainSettings, complete
from libs.runtime.deps import Deps
from libs.topics import RECIPIENTS, partition_of
from services.control import announcing, news
from services.control.domains import Refused
from services.control.letters import Letter, address_letter, letter
from services.control.news import Known, Limits, News, Telling
from services.control.places import Places
from services.control.register import Register
from services.control.told import Memory

EVERY_S = 60.0
BY = "control"
TURN = 500  # domains looked at before others get their turn
MOST = 500  # domains told of in a round
AT_ONCE = 100  # notices written at once
READ_S = 30.0  # an announcement waits so long until what was told is known

log = structlog.get_logger()


class _Due(NamedTuple):
    """A domain of which there is something to tell."""

    settings: DomainSettings
    known: Known


class Notices:
    """`facts.run` and `memory.run` go on for ever; `tend` comes now and then."""

    def __init__(
        self, deps: Deps, register: Register, places: Places, primaries: Table[PrimaryState]
    ) -> None:
        self.memory = Memory(deps, register)
        self.facts: Table[PrimaryFacts] = deps.table(RECIPIENTS.name, _facts)
        self._deps, self._register, self._places, self._primaries = deps, register, places, primaries
        part = deps.config.notices
        self._limits = Limits(
            part.down_after_s, part.back_after_s, part.expiring_days * DAY_S, part.most_a_day
        )
        self._looked = deps.clock.mono()  # deliver may begin with us: it has a round's time to look first

    async def tend(self) -> None:
        """One round: ask for what is due, as the control that leads. A log that is away is asked later."""
        clock, now = self._deps.clock, self._deps.events.log_time()
        if clock.mono() - self._looked < EVERY_S or now is None or not self._register.claims.leads:
            return
        if not self.memory.whole or not self.facts.whole:
            return
        self._looked = clock.mono()
        if news.rather_us(self._primaries.values.values(), now):
            log.error("most primaries are away, so it is rather we who are: no owner is told of anything now")
            return
        due = [each async for each in self._due(now)]
        try:
            behind = {
                number
                for number in {self._partition(each.settings.domain) for each in due}
                if not await self.memory.up_to_date(number)
            }
            for each in due[:MOST]:
                if self._partition(each.settings.domain) not in behind:
                    await self._tell_all(each, now)
        except (LogError, Refused) as error:
            log.warning("notices are not asked for now", error=str(error))

    async def _due(self, now: float) -> AsyncIterator[_Due]:
        """Domains of which there is something to tell, by what is known of them."""
        parked = self._places.parked()
        for count, domain in enumerate(list(self._register.book().domains.values()), 1):
            if count % TURN == 0:
                await asyncio.sleep(0)
            settings = complete(self._deps.config.defaults.settings(), domain)
            known = self._known(domain, settings, parked.get(domain.domain, 0.0))
            if news.due(known, self.memory.of(domain.domain), now, self._limits):
                yield _Due(settings, known)

    def _partition(self, domain: str) -> int:
        return partition_of(domain, self._deps.partitions)

    async def _tell_all(self, due: _Due, now: float) -> None:
        """Raises LogError, Refused."""
        name, contact = due.settings.domain, due.settings.contact
        for each in news.due(due.known, self.memory.of(name), now, self._limits):
            to = news.addressee(each.news, name, contact, self._operators(now))
            await self._tell(each, due.known, due.settings, to, now)

    def _known(self, domain: Domain, settings: DomainSettings, parked: float) -> Known:
        key = domain.domain.encode()
        facts = self.facts.get(b"@" + key)
        return Known(
            added=domain.added,
            stopped=not settings.active or settings.suspended or settings.held,
            lifetime_s=settings.lifetime_s,
            primary=self._primaries.get(key),
            facts=facts if facts is not None and facts.era == domain.era else None,
            parked=parked if settings.contact else 0.0,  # it is for its owner's eyes
        )

    def _operators(self, now: float) -> str:
        """ "" where they heard enough for today."""
        config = self._deps.config
        operators = config.installation.operators
        heard = self.memory.lately(operators, now)
        return operators if heard < config.notices.most_to_operators else ""

    async def _tell(self, each: Telling, known: Known, settings: DomainSettings, to: str, now: float) -> None:
        """Raises LogError, Refused."""
        name, written = settings.domain, None
        if each.news != News.PARKED or is_url(to):  # else deliver lists these mails
            parked = self._places.parked_of(name) if each.news == News.PARKED else 0
            written = letter(name, each, known, self._deps.config.us, settings.language, now, parked)
        await self.memory.write(_request(name, each, to, now, written))
        if written is not None and not to:
            self._say_to_nobody(name, each, written)

    def _say_to_nobody(self, domain: str, each: Telling, written: Letter) -> None:
        self._deps.metrics.notices.labels(each.news, "nobody").inc()
        self._deps.events.emit(
            Event(
                type=EventType.NOTICE,
                id=notice_id(domain, each.news, each.key),
                domain=domain,
                text=f"{each.news} {each.key}: {written.subject}",
            )
        )

    # --- announced ---

    async def announce(self, host: str, address: str, day: str | None, by: str) -> dict[str, Any]:
        """Tell every contact, once, that `host` gets `address` on `day` (2027-01-31; in 30 d without).
        Raises Refused, LogError."""
        now = self._deps.events.log_time() or self._deps.clock.wall()
        wanted = announcing.announced(host, address, day, now, self._deps.config.installation.hosts)
        try:
            async with asyncio.timeout(READ_S):
                while not self.memory.whole:  # noqa: ASYNC110 it has no bell
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise Refused("what was told before is still being read: try again") from error
        book = self._register.book()
        groups = announcing.by_contact(book.domains.values())
        fresh = {
            to: names
            for to, names in groups.items()
            if not any(self.memory.of(name).has(News.ADDRESS, wanted.key) for name in names)
        }
        requests = [
            self._announcement(wanted, to, names, book.domains, by, now) for to, names in fresh.items()
        ]
        for at in range(0, len(requests), AT_ONCE):
            await asyncio.gather(*(self.memory.write(each) for each in requests[at : at + AT_ONCE]))
        return {
            "host": wanted.host,
            "address": wanted.address,
            "from": wanted.day,
            "told": len(fresh),
            "already": len(groups) - len(fresh),
        }

    def _announcement(
        self,
        wanted: announcing.Announced,
        to: str,
        names: Sequence[str],
        domains: Mapping[str, Domain],
        by: str,
        now: float,
    ) -> Notify:
        first, *others = names
        settings = complete(self._deps.config.defaults.settings(), domains[first])
        written = address_letter(
            first, others, wanted.host, wanted.address, wanted.day, self._deps.config.us, settings.language
        )
        return _request(first, Telling(News.ADDRESS, wanted.key, now), to, now, written, by)


def _request(domain: str, each: Telling, to: str, now: float, written: Letter | None, by: str = BY) -> Notify:
    """Without a letter: deliver writes it."""
    day = datetime.fromtimestamp(now, UTC).date().isoformat()
    id_ = secrets.token_hex(8)
    if written is None:
        return Notify(id_, domain, by, each.news, day, since=each.since)
    text, details = written.text, dict(written.details)
    return Notify(id_, domain, by, each.news, day, each.key, to, written.subject, text, each.since, details)


def _facts(record: Record) -> PrimaryFacts | None:
    """Of all that is known of recipients only what is known of their primary. Raises Undecodable."""
    if not record.key.startswith(b"@"):
        return None
    found = decode_recipient(record.value or b"")
    return found if isinstance(found, PrimaryFacts) else None
