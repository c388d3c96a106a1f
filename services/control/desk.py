"""What control knows and does: follows the topics, changes `domains`, asks with `requests`.

The API and the command line without a running service call the same methods. Each answers with plain data
for JSON, and raises Refused with one sentence.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from libs.log.contract import (
    Gone,
    Record,
    Superseded,
    Unavailable,
)
from libs.log.table import Table
from libs.mail.address import BadAddress, mailbox
from libs.mail.codec import Undecodable, decode, encode
from libs.mail.event import Event, EventType, decode_events
from libs.mail.hints import for_owner
from libs.mail.knowledge import PrimaryState
from libs.mail.records import Access, Flush, RequestRecord, Unbrake
from libs.mail.settings import complete
from libs.runtime.deps import Deps
from libs.topics import (
    EVENTS,
    PRIMARIES,
    QUEUE,
    REQUESTS,
    partition_of,
)
from services.control import access, asking, domains, queue, webhook
from services.control.checkup import counts
from services.control.checkups import Checkups
from services.control.consulting import Consulting
from services.control.declaring import Declaring
from services.control.domains import Malformed, Refused, Unknown
from services.control.door import ANSWER_S, PAGE, WITHIN_S
from services.control.notices import Notices
from services.control.places import Places
from services.control.register import Register
from services.control.removing import Removing
from services.control.roll import Rolls
from services.control.timeline import Outage, outages
from services.control.trace import Trail


class Desk:
    """`followers()` run while the desk is used; `restored()` returns when it knows everything."""

    def __init__(self, deps: Deps) -> None:
        self.deps = deps
        self.register = Register(deps)
        self._primaries: Table[PrimaryState] = deps.table(PRIMARIES.name, _primary)
        self._places = Places()
        self._queue: Table[queue.Place] = deps.table(QUEUE.name, self._place, values=self._places)
        self.rolls = Rolls(deps, self.register, self._primaries)
        self._trail = Trail(deps)
        self.notices = Notices(deps, self.register, self._places, self._primaries)
        self.declaring = Declaring(self.register, self._places.summary)
        self.removing = Removing(deps, self.register, self._places, self.rolls, self.queue_do, self.fresh)
        self.checkups = Checkups(deps, self.register)
        self.consulting = Consulting(deps, self.register, self.rolls, self._primaries, self.checkups)

    def followers(self) -> list[Coroutine[Any, Any, None]]:
        tables = (self.register.table, self._primaries, self._queue)
        return [*(each.run() for each in tables), self._trail.run(), self.notices.memory.run()]

    async def restored(self) -> None:
        for each in (self.register.table, self._primaries, self._queue):
            await each.caught_up()

    def fresh(self) -> bool:
        """Have all tables been read to their ends lately?"""
        tables: tuple[Table[Any], ...] = (self.register.table, self._primaries, self._queue)
        return all(each.fresh(number) for each in tables for number in range(self.deps.partitions))

    # --- domains ---

    async def domain_add(self, text: str, /, **given: str) -> dict[str, Any]:
        """`given`: settings of its own, see domains.SETTINGS. Raises Refused, LogError."""
        name = domains.named(text)
        if domains.needs_secret(given):
            given["contact_secret"] = webhook.secret(secrets.token_bytes(32))
        await self.register.add(name, given)
        return self.domain_row(name)

    async def domain_set(self, text: str, /, **given: str) -> dict[str, Any]:
        """Raises Refused, LogError."""
        name = domains.named(text)
        before = self.register.book().domains.get(name)
        if before is not None and domains.needs_secret(given, before.overrides):
            given["contact_secret"] = webhook.secret(secrets.token_bytes(32))
        await self.register.change(name, given)
        return self.domain_row(name) | {"settings": self._settings(name)}

    async def domain_stop(self, text: str, how: str, by: str) -> dict[str, Any]:
        """`how`: suspended (no mail is taken), held (taken, and none handed over) or active again. Raises
        Refused, LogError."""
        name = domains.named(text)
        await self.register.stop(name, how, by)
        return self.domain_row(name)

    async def domain_remove(self, text: str, how: str, by: str) -> dict[str, Any]:
        """`how`: see domains.How. Raises Refused, LogError."""
        return await self.removing.remove(domains.named(text), domains.how(how), by)

    def domain_list(self) -> list[dict[str, Any]]:
        counts = self._places.summary()
        return [self.domain_row(name, counts.get(name, 0)) for name in sorted(self.register.book().domains)]

    def top(self) -> list[dict[str, Any]]:
        """The same, with what is happening: oldest waiting mail, rates of the last minute."""
        now, rows = self.deps.clock.mono(), self.domain_list()
        for row in rows:
            primary = self._primaries.get(row["domain"].encode())
            row["oldest"] = 0.0 if primary is None else primary.oldest
            row["taken"], row["handed_over"] = self._trail.rates.of(row["domain"], now)
        return rows

    def domain_row(self, name: str, waiting: int | None = None) -> dict[str, Any]:
        """Raises Unknown."""
        domain = domains.known(self.register.book(), name)
        primary = self._primaries.get(name.encode())
        if waiting is None:
            waiting = self._places.waiting(name)
        if not domain.active_since:
            state = "pending"
        else:
            state = "suspended" if domain.suspended else "held" if domain.held else "active"
        if domain.leaving:
            state = "leaving"
        return {
            "domain": name,
            "state": state,
            "added": domain.added,
            "active_since": domain.active_since,
            "primary": "unknown" if primary is None else primary.health.value,
            "primary_since": 0.0 if primary is None else primary.since,
            "waiting": waiting,
            **counts(self.checkups.last(name)),
        }

    async def domain_show(self, text: str) -> dict[str, Any]:
        """Raises Refused, LogError."""
        name = domains.named(text)
        row = self.domain_row(name)
        domain = domains.known(self.register.book(), name)
        primary = self._primaries.get(name.encode())
        recipients, facts = await self.rolls.learnt(name)
        return row | {
            "hosts": list(self.deps.config.installation.hosts),
            "settings": self._settings(name),
            "own_settings": domains.own(domain),
            "mx": [] if primary is None else list(primary.mx),
            "braked": primary is not None and primary.braked,
            "waiting_bytes": 0 if primary is None else primary.bytes,
            "oldest": 0.0 if primary is None else primary.oldest,
            "last_reply": "" if primary is None else primary.last_reply,
            "callouts": "unknown" if facts is None else facts.callouts.value,
            "callouts_since": 0.0 if facts is None else facts.since,
            "callouts_reply": "" if facts is None else facts.reply,
            "callout_brake": facts is not None and facts.braked,
            "hint": for_owner(facts, primary, self.deps.config.us, self.deps.clock.wall()),
            "recipients": recipients,
        }

    def _settings(self, name: str) -> dict[str, Any]:
        """Those in force."""
        domain = domains.known(self.register.book(), name)
        return domains.shown(complete(self.deps.config.defaults.settings(), domain))

    # --- access ---

    def access_list(self) -> list[dict[str, Any]]:
        """By subject; a rule that is over is none."""
        now = self.deps.events.log_time() or 0.0
        listed = [each for each in self.register.listed() if each.ends > now]
        return [access.row(each) for each in sorted(listed, key=lambda each: each.access.subject)]

    async def access_add(self, rule: str, text: str, lasts: str | None, by: str) -> dict[str, Any]:
        """Block or allow, for ever without `lasts`; what was said of the subject before is over. Raises
        Refused, LogError."""
        subject, permission = access.subject(text), access.permission(rule)
        lasts_s = 0.0 if lasts is None else access.duration_s(lasts)
        await self.register.permit(Access(subject, permission, lasts_s, by))
        return access.row(access.known(self.register.listed(), subject))

    async def access_remove(self, text: str, by: str) -> dict[str, Any]:
        """Raises Refused, LogError."""
        subject = access.subject(text)
        await self.register.forget(subject, by)
        return {"subject": subject, "removed": True}

    # --- queue ---

    async def queue_page(self, domain: str | None, after: queue.Cursor | None, limit: int) -> dict[str, Any]:
        """One page of rows, oldest mail first; `total` mails; `after` for the next page, None at the end.

        Raises Refused, LogError."""
        return await self._page(domain, after, limit, self._row, vault=False)

    async def vault_page(self, domain: str | None, after: queue.Cursor | None, limit: int) -> dict[str, Any]:
        """The same of what is parked, what lost its content and what cannot be read. Raises Refused,
        LogError."""
        return await self._page(domain, after, limit, self._vault_row, vault=True)

    async def vault_show(self, mail_id: str) -> dict[str, Any]:
        """Raises Refused, LogError."""
        key = mail_id.encode("utf-8", "replace")
        place = self._queue.get(key)
        row = None if place is None or not place.in_vault else await self._vault_row(key)
        if row is None:
            raise Unknown(f"there is no mail {mail_id} in the vault")
        return row

    async def vault_delete(self, mail_id: str, by: str) -> dict[str, Any]:
        """Delete one that is in the vault; others are for queue_do. Raises Refused, LogError."""
        await self.vault_show(mail_id)
        return await self.queue_do("delete", {"id": mail_id}, by)

    async def _page(
        self,
        domain: str | None,
        after: queue.Cursor | None,
        limit: int,
        read: Callable[[bytes], Awaitable[queue.Row | None]],
        *,
        vault: bool,
    ) -> dict[str, Any]:
        limit = max(1, min(limit, PAGE))
        name = None if domain is None else domains.named(domain)
        places = self._places.page(name, after, limit, vault=vault)
        rows = [row for key, _ in places if (row := await read(key)) is not None]
        last = places[-1] if len(places) == limit else None
        return {
            "rows": rows,
            "total": self._places.total(name, vault=vault),
            "after": None if last is None else [last[1].arrived, last[0].decode("utf-8", "replace")],
        }

    async def queue_show(self, mail_id: str) -> dict[str, Any]:
        """Raises Refused, LogError."""
        row = await self._row(mail_id.encode("ascii", "replace"))
        if row is None:
            raise Unknown(f"there is no mail {mail_id} in the queue")
        return row

    async def queue_flush(self, text: str, by: str) -> dict[str, Any]:
        """Ask for an attempt now, and wait until deliver has applied that. Raises Refused, LogError."""
        return await self._done_to_domain(Flush, text, by)

    async def domain_release(self, text: str, by: str) -> dict[str, Any]:
        """End the callout brake of a domain, and wait until verify has. Raises Refused, LogError."""
        return await self._done_to_domain(Unbrake, text, by, "verify")

    async def _done_to_domain(
        self, verb: type[Flush | Unbrake], text: str, by: str, service: str = "deliver"
    ) -> dict[str, Any]:
        name = domains.named(text)
        domains.known(self.register.book(), name)
        request = verb(secrets.token_hex(8), name, by)
        event = await self._asked(partition_of(name, self.deps.partitions), request, service)
        return {"domain": name, "request_id": request.request_id, "text": event.text}

    async def queue_do(self, verb: str, words: Mapping[str, str], by: str) -> dict[str, Any]:
        """Do something to mails (see asking.py), and wait until deliver has written down what that changed.
        Raises Refused, LogError."""
        wanted = asking.asked(verb, words)
        partitions, domain = self._concerned(wanted)
        base = secrets.token_hex(8)
        ids = {number: base if len(partitions) == 1 else f"{base}.{number}" for number in partitions}
        events = await asyncio.gather(
            *(self._asked(number, wanted.request(ids[number], domain, by)) for number in partitions)
        )
        counts = {name: sum(event.counts.get(name, 0) for event in events) for name in asking.COUNTS}
        text = events[0].text if len(events) == 1 else ""
        return {"queue_id": wanted.id, "domain": domain, "request_id": base, **counts, "text": text}

    def _concerned(self, wanted: asking.Asked) -> tuple[Sequence[int], str]:
        """The partitions that a request goes to, and the domain whose events answer it. Raises Unknown."""
        if wanted.id:
            place = self._queue.get(wanted.id.encode())
            if place is None:
                raise Unknown(f"there is no mail {wanted.id} in the queue")
            return [place.partition], place.domain
        if not wanted.domain:
            return range(self.deps.partitions), ""
        if not self._places.waiting(wanted.domain):
            domains.known(self.register.book(), wanted.domain)
        return [partition_of(wanted.domain, self.deps.partitions)], wanted.domain

    async def _asked(self, partition: int, request: RequestRecord, service: str = "deliver") -> Event:
        """Write a request; the event by which `service` says what came of it. Raises Refused, LogError."""
        answers = partition_of(request.domain, self.deps.partitions)
        end = (await self.deps.log.bounds(EVENTS.name, answers)).end
        key, value = request.domain.encode(), encode(request)
        await self.deps.log.append(REQUESTS.name, partition, key, value, within=WITHIN_S)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._answer(answers, end, request.request_id)
        except TimeoutError as error:
            raise Refused(
                f"request {request.request_id} is written, but {service} did not answer "
                f"within {ANSWER_S:.0f} s"
            ) from error

    async def domain_timeline(self, text: str) -> list[Outage]:
        """The outages of its primary that events tell of, oldest first. Raises Refused, LogError."""
        name = domains.named(text)
        domains.known(self.register.book(), name)
        return outages(await self._trail.of_domain(name))

    async def trace(self, mail_id: str) -> list[dict[str, Any]]:
        """What happened to a mail, oldest first. Raises Refused, LogError."""
        return await self._trail.of(mail_id)

    async def trace_of(self, text: str) -> list[dict[str, Any]]:
        """What happened to the mail of an address, as its sender or recipient, oldest first. Raises Refused,
        LogError."""
        try:
            address = mailbox(text).key
        except BadAddress as error:
            raise Malformed(f"{text!r} is no mail address") from error
        return await self._trail.about(address)

    # --- within ---

    def _place(self, record: Record) -> queue.Place | None:
        """What cannot be read is known all the same: it is in the vault (rule 8)."""
        try:
            return queue.place(record)
        except Undecodable:
            self.deps.quarantined(record)
            return queue.unreadable(record)

    async def _row(self, key: bytes) -> queue.Row | None:
        """The newest row of a mail; None once it is done."""

        def row(record: Record, place: queue.Place) -> queue.Row | None:
            try:
                return queue.row(record, self._primaries.get(place.domain.encode()))
            except Undecodable:
                return None  # it was said when its place was noted

        return await self._read(key, row)

    async def _vault_row(self, key: bytes) -> queue.Row | None:
        """None once it left the vault."""
        kept_s = self.deps.config.defaults.settings().parked_s

        def row(record: Record, place: queue.Place) -> queue.Row | None:
            return queue.vault_row(record, place, kept_s) if place.in_vault else None

        return await self._read(key, row)

    async def _read(
        self, key: bytes, row: Callable[[Record, queue.Place], queue.Row | None]
    ) -> queue.Row | None:
        for _ in range(10):  # it may be rewritten while it is read
            place = self._queue.get(key)
            if place is None:
                return None
            try:
                return row(await self.deps.log.read(QUEUE.name, place.partition, place.offset, key), place)
            except (Superseded, Gone):
                await self._moved(key, place)
        raise Unavailable(f"mail {key.decode('utf-8', 'replace')} is rewritten all the time")

    async def _moved(self, key: bytes, old: queue.Place) -> None:
        """Wait a moment for the table to see the newer record."""
        changed = self._queue.watch(key)
        try:
            if self._queue.get(key) == old:
                await asyncio.wait({changed}, timeout=1.0)
        finally:
            changed.cancel()

    async def _answer(self, partition: int, start: int, request_id: str) -> Event:
        """The event that says what came of a request."""
        async with aclosing(self.deps.log.follow(EVENTS.name, {partition: start})) as batches:
            async for batch in batches:
                for record in batch.records:
                    for event in decode_events(record.value or b""):
                        if event.request_id == request_id and event.type is EventType.REQUEST:
                            return event
        raise Unavailable("the log was closed")


def _primary(record: Record) -> PrimaryState:
    return decode(record.value or b"", PrimaryState)
