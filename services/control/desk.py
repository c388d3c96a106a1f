"""What control knows and does: follows the topics, changes `domains`, asks with `requests`.

The API and the command line without a running service call the same methods. Each answers with plain data
for JSON, and raises Refused with one sentence.
"""

import asyncio
import random
import secrets
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from typing import Any

import structlog

from libs.log.contract import (
    BEGIN,
    Ambiguous,
    Claim,
    Gone,
    LogError,
    NotOwner,
    Record,
    Superseded,
    Unavailable,
)
from libs.log.table import Table
from libs.mail.records import (
    Domain,
    Event,
    EventType,
    Flush,
    Installation,
    PrimaryState,
    RecipientStatus,
    Undecodable,
    decode,
    decode_event,
    decode_recipient,
    encode,
)
from libs.mail.settings import complete
from libs.runtime.deps import Deps
from libs.smtp.lookup import look_up
from libs.smtp.route import Ours
from libs.topics import (
    DOMAINS,
    EVENTS,
    INSTALLATION_KEY,
    PRIMARIES,
    QUEUE,
    RECIPIENTS,
    REQUESTS,
    partition_of,
)
from services.control import domains, queue
from services.control.domains import Book, Refused, Step, Unknown
from services.control.trace import Trail

WITHIN_S = 30.0  # what one write may take
JOIN_S = 15.0  # until a claim is gained
SEEN_S = 10.0  # until the own table shows what was written
ANSWER_S = 30.0  # until deliver has applied a request
COUNT_S = 30.0
ELSEWHERE = "another control process is in charge of that: ask there, or try again"
PAGE = 250
AT_ONCE = 20  # pending domains looked up at once


class Claims:
    """The partition numbers of group `control` that this process owns."""

    def __init__(self) -> None:
        self.held: dict[int, Claim] = {}
        self._gained = asyncio.Event()

    def gained(self, claim: Claim) -> None:
        self.held[claim.partition] = claim
        self._gained.set()

    def lost(self, claim: Claim) -> None:
        if self.held.get(claim.partition) is claim:
            del self.held[claim.partition]

    async def of(self, partition: int) -> Claim:
        """The claim; a process that has just joined may wait for it. Raises Refused after JOIN_S."""
        try:
            async with asyncio.timeout(JOIN_S):
                while partition not in self.held:
                    self._gained.clear()
                    await self._gained.wait()
        except TimeoutError as error:
            raise Refused(ELSEWHERE) from error
        return self.held[partition]


class Desk:
    """`followers()` run while the desk is used; `restored()` returns when it knows everything."""

    def __init__(self, deps: Deps) -> None:
        self.deps = deps
        self.claims = Claims()
        every = range(deps.partitions)
        names: dict[str, str] = {}  # one object for each domain, however many mails it has

        def table(topic: str, decoded: Any) -> Any:
            return Table(deps.log, topic, every, decoded, deps.clock, quarantined=self._quarantined)

        self._domains: Table[Domain | Installation] = table(DOMAINS.name, _domain)
        self._primaries: Table[PrimaryState] = table(PRIMARIES.name, _primary)
        self._queue: Table[queue.Place] = table(
            QUEUE.name, lambda record: queue.place(record, lambda name: names.setdefault(name, name))
        )
        self._trail = Trail(deps)
        self._changing = asyncio.Lock()
        self._checked: dict[str, float] = {}  # pending domain -> monotonic time of the last look at its DNS
        host = deps.config.host
        self._ours = Ours(deps.config.installation.hosts, (*host.ipv4, *host.ipv6))

    def followers(self) -> list[Coroutine[Any, Any, None]]:
        return [self._domains.run(), self._primaries.run(), self._queue.run(), self._trail.run()]

    async def restored(self) -> None:
        for each in (self._domains, self._primaries, self._queue):
            await each.caught_up()

    def fresh(self) -> bool:
        """Have all tables been read to their ends lately?"""
        tables: tuple[Table[Any], ...] = (self._domains, self._primaries, self._queue)
        return all(each.fresh(number) for each in tables for number in range(self.deps.partitions))

    def book(self) -> Book:
        installation = self.deps.config.installation
        operators = installation.operators.rpartition("@")[2]
        values = self._domains.values
        record = values.get(INSTALLATION_KEY)
        return Book(
            id=installation.id,
            closed=(*installation.hosts, operators),
            installation=record if isinstance(record, Installation) else None,
            domains={each.domain: each for each in values.values() if isinstance(each, Domain)},
        )

    # --- domains ---

    async def domain_add(self, text: str) -> dict[str, Any]:
        """Raises Refused, LogError."""
        name = domains.named(text)
        async with self._changing:
            domains.add(self.book(), name, 0.0, active=False)  # what will be refused needs no DNS
            trusted = self.deps.config.installation.activation == "trusted"
            active = trusted or await self._named_by_dns(name)
            await self._write(domains.add(self.book(), name, self.deps.clock.wall(), active=active))
            self._checked[name] = self.deps.clock.mono()
        self._tell(name, "added" if active else "added, pending")
        return self.domain_row(name)

    async def domain_remove(self, text: str) -> dict[str, Any]:
        """Raises Refused, LogError."""
        name = domains.named(text)
        async with self._changing:
            waiting = sum(place.domain == name for place in self._queue.values.values())
            steps = domains.remove(self.book(), name, waiting)
            await self._write(steps)
        self._tell(name, "removed")
        return {"domain": name, "removed": True}

    def domain_list(self) -> list[dict[str, Any]]:
        counts = queue.summary(self._queue.values.values())
        return [self.domain_row(name, counts.get(name, 0)) for name in sorted(self.book().domains)]

    def domain_row(self, name: str, waiting: int | None = None) -> dict[str, Any]:
        """Raises Unknown."""
        domain = domains.known(self.book(), name)
        primary = self._primaries.get(name.encode())
        if waiting is None:
            waiting = sum(place.domain == name for place in self._queue.values.values())
        if not domain.active_since:
            state = "pending"
        else:
            state = "suspended" if domain.suspended else "held" if domain.held else "active"
        return {
            "domain": name,
            "state": state,
            "added": domain.added,
            "active_since": domain.active_since,
            "primary": "unknown" if primary is None else primary.health.value,
            "primary_since": 0.0 if primary is None else primary.since,
            "waiting": waiting,
        }

    async def domain_show(self, text: str) -> dict[str, Any]:
        """Raises Refused, LogError."""
        name = domains.named(text)
        row = self.domain_row(name)
        domain = domains.known(self.book(), name)
        settings = complete(self.deps.config.defaults.settings(), domain)
        primary = self._primaries.get(name.encode())
        return row | {
            "hosts": list(self.deps.config.installation.hosts),
            "settings": {
                "lifetime_s": settings.lifetime_s,
                "unverified": settings.unverified.value,
                "contact": settings.contact,
                "max_size": settings.max_size,
                "max_connections": settings.max_connections,
            },
            "mx": [] if primary is None else list(primary.mx),
            "braked": primary is not None and primary.braked,
            "waiting_bytes": 0 if primary is None else primary.bytes,
            "oldest": 0.0 if primary is None else primary.oldest,
            "last_reply": "" if primary is None else primary.last_reply,
            "recipients": await self._recipients(name),
        }

    # --- queue ---

    async def queue_page(self, domain: str | None, after: queue.Cursor | None, limit: int) -> dict[str, Any]:
        """One page of rows, oldest mail first; `total` mails; `after` for the next page, None at the end.

        Raises Refused, LogError."""
        name = None if domain is None else domains.named(domain)
        limit = max(1, min(limit, PAGE))
        places = queue.page(self._queue.values.items(), name, after, limit)
        rows = [row for key, _ in places if (row := await self._row(key)) is not None]
        total = sum(name in (None, place.domain) for place in self._queue.values.values())
        last = places[-1] if len(places) == limit else None
        return {
            "rows": rows,
            "total": total,
            "after": None if last is None else [last[1].arrived, last[0].decode()],
        }

    async def queue_show(self, mail_id: str) -> dict[str, Any]:
        """Raises Refused, LogError."""
        row = await self._row(mail_id.encode("ascii", "replace"))
        if row is None:
            raise Unknown(f"there is no mail {mail_id} in the queue")
        return row

    async def queue_flush(self, text: str, by: str) -> dict[str, Any]:
        """Ask for an attempt now, and wait until deliver has applied that. Raises Refused, LogError."""
        name = domains.named(text)
        domains.known(self.book(), name)
        partition = partition_of(name, self.deps.partitions)
        end = (await self.deps.log.bounds(EVENTS.name, partition)).end
        request = Flush(request_id=secrets.token_hex(8), domain=name, by=by)
        await self.deps.log.append(REQUESTS.name, partition, name.encode(), encode(request), within=WITHIN_S)
        try:
            event = await asyncio.wait_for(self._answer(partition, end, request.request_id), ANSWER_S)
        except TimeoutError as error:
            raise Refused(
                f"request {request.request_id} is written, but deliver did not answer within {ANSWER_S:.0f} s"
            ) from error
        return {"domain": name, "request_id": request.request_id, "text": event.text}

    async def trace(self, mail_id: str) -> list[dict[str, Any]]:
        """What happened to a mail, oldest first. Raises Refused, LogError."""
        return await self._trail.of(mail_id)

    # --- what goes on by itself ---

    async def tend(self) -> None:
        """One round: heal the count, look at the DNS of pending domains that are due."""
        book = self.book()
        try:
            if 0 in self.claims.held and not self._changing.locked() and (record := domains.healed(book)):
                await self._write([record])
            await asyncio.gather(*(self._check(domain) for domain in self._due(book)))
        except LogError as error:
            structlog.get_logger().warning("the log refused what control wrote", error=str(error))

    def _due(self, book: Book) -> list[Domain]:
        """Some of the pending domains whose DNS is to be looked at now."""
        now, wall = self.deps.clock.mono(), self.deps.clock.wall()
        every_s = self.deps.config.timing.pending_check_s
        due = []
        for domain in book.domains.values():
            checked = self._checked.get(domain.domain)
            since = None if checked is None else now - checked
            owned = partition_of(domain.domain, self.deps.partitions) in self.claims.held
            if owned and domains.check_due(domain, since, wall, every_s):
                due.append(domain)
        return due[:AT_ONCE]

    async def _check(self, domain: Domain) -> None:
        self._checked[domain.domain] = self.deps.clock.mono()
        if not await self._named_by_dns(domain.domain):
            return
        async with self._changing:
            current = self.book().domains.get(domain.domain)
            if current is not None and not current.active_since:
                await self._write([domains.activated(current, self.deps.clock.wall())])
                self._tell(domain.domain, "active")

    # --- within ---

    async def _named_by_dns(self, name: str) -> bool:
        return (await look_up(self.deps.dns, name, self._ours, random.shuffle)).names_us

    async def _write(self, steps: Sequence[Step]) -> None:
        """Write each step as the owner of its partition, and see it in the own table. Raises Refused."""
        for step in steps:
            key, value = _record(step)
            partition = 0 if key == INSTALLATION_KEY else partition_of(key.decode(), self.deps.partitions)
            claim = await self.claims.of(partition)
            seen = self._domains.watch(key)
            try:
                await self.deps.log.append(DOMAINS.name, partition, key, value, within=WITHIN_S, claim=claim)
                await asyncio.wait_for(seen, SEEN_S)
            except NotOwner as error:
                raise Refused(ELSEWHERE) from error
            except (Ambiguous, TimeoutError) as error:
                raise Refused(
                    "the log did not confirm the change: look with `domain list`, then repeat it"
                ) from error
            finally:
                seen.cancel()

    async def _row(self, key: bytes) -> queue.Row | None:
        """The newest row of a mail; None once it is done."""
        for _ in range(10):  # it may be rewritten while it is read
            place = self._queue.get(key)
            if place is None:
                return None
            try:
                record = await self.deps.log.read(QUEUE.name, place.partition, place.offset, key)
            except (Superseded, Gone):
                await self._moved(key, place)
                continue
            try:
                return queue.row(record, self._primaries.get(place.domain.encode()))
            except Undecodable:
                self._quarantined(record)
                return None
        raise Unavailable(f"mail {key.decode()} is rewritten all the time")

    async def _moved(self, key: bytes, old: queue.Place) -> None:
        """Wait a moment for the table to see the newer record."""
        changed = self._queue.watch(key)
        try:
            if self._queue.get(key) == old:
                await asyncio.wait({changed}, timeout=1.0)
        finally:
            changed.cancel()

    async def _answer(self, partition: int, start: int, request_id: str) -> Event:
        """The event that says the request was applied."""
        async with aclosing(self.deps.log.follow(EVENTS.name, {partition: start})) as batches:
            async for batch in batches:
                for record in batch.records:
                    event = decode_event(record.value or b"")
                    if event.type is EventType.REQUEST and event.request_id == request_id:
                        return event
        raise Unavailable("the log was closed")

    async def _recipients(self, name: str) -> int:
        """How many recipients of a domain are known: read when asked, so that nobody keeps a copy."""
        partition, suffix, known = partition_of(name, self.deps.partitions), f"@{name}".encode(), set()
        try:
            async with asyncio.timeout(COUNT_S):
                async with aclosing(self.deps.log.follow(RECIPIENTS.name, {partition: BEGIN})) as batches:
                    async for batch in batches:
                        for record in batch.records:
                            if record.key.endswith(suffix) and _is_status(record):
                                known.add(record.key)
                            else:
                                known.discard(record.key)
                        if batch.position >= batch.end:
                            break
        except TimeoutError as error:
            raise Unavailable("the recipients could not be counted in time") from error
        return len(known)

    def _quarantined(self, record: Record) -> None:
        self.deps.metrics.quarantined.labels(record.topic).inc()
        structlog.get_logger().error(
            "a record cannot be decoded and is stepped over",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )

    def _tell(self, domain: str, text: str) -> None:
        self.deps.events.emit(
            Event(type=EventType.DOMAIN, event_time=0.0, service="", host="", domain=domain, text=text)
        )


def _record(step: Step) -> tuple[bytes, bytes | None]:
    """Key and value of a step."""
    match step:
        case Installation():
            return INSTALLATION_KEY, encode(step)
        case Domain(domain=name):
            return name.encode(), encode(step)
        case str():
            return step.encode(), None


def _domain(record: Record) -> Domain | Installation:
    value = record.value or b""
    return decode(value, Installation) if record.key == INSTALLATION_KEY else decode(value, Domain)


def _primary(record: Record) -> PrimaryState:
    return decode(record.value or b"", PrimaryState)


def _is_status(record: Record) -> bool:
    try:
        return record.value is not None and isinstance(decode_recipient(record.value), RecipientStatus)
    except Undecodable:
        return False
