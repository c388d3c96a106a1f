"""The register: control's table of `domains`, relay domains and whom the operator blocked or allowed, and the
only writer of that topic."""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from libs.log.contract import Ambiguous, Claim, LogError, NotOwner, Record
from libs.log.table import Table
from libs.mail.codec import decode, encode
from libs.mail.event import Event, EventType
from libs.mail.records import Access, Domain, Installation
from libs.runtime.deps import Deps
from libs.smtp.lookup import look_up
from libs.smtp.route import Ours
from libs.topics import ACCESS_KEY, DOMAINS, INSTALLATION_KEY, is_relay_domain, partition_of
from services.control import access, declared, domains
from services.control.access import Listed
from services.control.domains import Book, Refused, Step
from services.control.door import WITHIN_S

JOIN_S = 15.0  # until a claim is gained
SEEN_S = 10.0  # until the own table shows what was written
AT_ONCE = 20  # pending domains looked up at once
LOOK_UPS, WRITES = 100, 500  # at once where many domains are applied
ELSEWHERE = "the control of another host is in charge of domains: run the command there"


class Claims:
    """The partition numbers of group `control` that this process owns.

    Who owns number 0, where the installation record is, leads: it alone changes domains, of every partition.
    So no change is done by halves.
    """

    def __init__(self) -> None:
        self.held: dict[int, Claim] = {}
        self._gained = asyncio.Event()

    def gained(self, claim: Claim) -> None:
        self.held[claim.partition] = claim
        self._gained.set()

    def lost(self, claim: Claim) -> None:
        if self.held.get(claim.partition) is claim:
            del self.held[claim.partition]

    @property
    def leads(self) -> bool:
        return 0 in self.held

    async def lead(self) -> Claim:
        """The claim to number 0; who has just joined waits for what the group gives. Raises Refused."""
        try:
            async with asyncio.timeout(JOIN_S):
                while not self.held:
                    self._gained.clear()
                    await self._gained.wait()
        except TimeoutError as error:
            raise Refused("the log has not let this control take part yet: try again") from error
        if not self.leads:
            raise Refused(ELSEWHERE)
        return self.held[0]


class Register:
    """`table` is followed by the desk; what is added and removed is written by the leading control."""

    def __init__(self, deps: Deps) -> None:
        self.claims = Claims()
        self.table: Table[Domain | Installation | Listed] = deps.table(DOMAINS.name, _domain, self._changed)
        self._book: Book | None = None  # as the table has it; it is asked for far oftener than it changes
        self._deps = deps
        self._changing = asyncio.Lock()
        self._checked: dict[str, float] = {}  # pending domain -> monotonic time of the last look at its DNS
        host = deps.config.host
        self._ours = Ours(deps.config.installation.hosts, (*host.ipv4, *host.ipv6))

    def _changed(self, _: Record) -> None:
        self._book = None

    def book(self) -> Book:
        """What the table holds now; not to be changed."""
        if self._book is None:
            self._book = self._written()
        return self._book

    def _written(self) -> Book:
        installation = self._deps.config.installation
        operators = installation.operators.rpartition("@")[2]
        values = self.table.values
        record = values.get(INSTALLATION_KEY)
        return Book(
            id=installation.id,
            closed=(*installation.hosts, operators),
            installation=record if isinstance(record, Installation) else None,
            domains={each.domain: each for each in values.values() if isinstance(each, Domain)},
        )

    async def add(self, name: str, given: Mapping[str, str]) -> None:
        """`given`: settings of its own, see domains.SETTINGS. Raises Refused, LogError."""
        overrides = domains.settings(given)
        async with self._changing:
            await self.claims.lead()
            domains.add(self.book(), name, 0.0, active=False)  # what will be refused needs no DNS
            trusted = self._deps.config.installation.activation == "trusted"
            active = trusted or await self._named_by_dns(name)
            now = self._deps.clock.wall()
            await self._write(domains.add(self.book(), name, now, active=active, overrides=overrides))
            self._checked[name] = self._deps.clock.mono()
        self._tell(name, "added" if active else "added, pending")

    async def change(self, name: str, given: Mapping[str, str]) -> None:
        """Raises Refused, LogError."""
        async with self._changing:
            await self._write(domains.changed(self.book(), name, given))
        self._tell(name, f"set {domains.said(given)}")

    async def stop(self, name: str, how: str, by: str) -> None:
        """Suspended, held or active. Raises Refused, LogError."""
        async with self._changing:
            await self._write(domains.stopped(self.book(), name, how))
        self._tell(name, f"{how} by {by}")

    async def leave(self, name: str, by: str) -> None:
        """Take no more mail for a domain that is to be removed. Raises Refused, LogError."""
        async with self._changing:
            steps = domains.left(self.book(), name, self._deps.clock.wall())
            await self._write(steps)
        if steps:
            self._tell(name, f"leaving, said {by}")

    async def remove(self, name: str, waiting: Callable[[], int]) -> None:
        """`waiting`: how many mails the domain has in the queue. Raises Refused, LogError."""
        async with self._changing:
            await self._write(domains.remove(self.book(), name, waiting()))
        self._tell(name, "removed")

    async def apply(
        self, wanted: Mapping[str, declared.Settings], waiting: Mapping[str, int], *, prune: bool
    ) -> declared.Planned:
        """Make the register as it is wanted: see declared.plan. What was written before something failed
        stays, and is nothing to be done when it is applied again. Raises Refused, LogError."""
        async with self._changing:
            await self.claims.lead()
            planned = declared.plan(self.book(), wanted, waiting, prune=prune)
            trusted = self._deps.config.installation.activation == "trusted"
            named = [trusted or each for each in await self._named(planned.add)]
            now = self._deps.clock.wall()
            added = [
                domains.new(self.book(), name, now, active=active, overrides=domains.settings(given))
                for (name, given), active in zip(planned.add.items(), named, strict=True)
            ]
            changed = [
                step
                for each in planned.change
                for step in domains.replaced(self.book(), each.domain, wanted[each.domain])
            ]
            await self._write_all([*added, *changed])
            await self._write(domains.counted(self.book()))
            steps = domains.removed(self.book(), planned.remove)
            await self._write(steps[:1])  # the count, before any of them is gone
            await self._write_all(steps[1:])
        for name, active in zip(planned.add, named, strict=True):
            self._checked[name] = self._deps.clock.mono()
            self._tell(name, "added" if active else "added, pending")
        for each in planned.change:
            self._tell(each.domain, f"set {domains.said(each.after)}")
        for name in planned.remove:
            self._tell(name, "removed")
        return planned

    async def _named(self, names: Iterable[str]) -> list[bool]:
        """Which of these name us in DNS, many at once."""
        slots = asyncio.Semaphore(LOOK_UPS)

        async def named(name: str) -> bool:
            async with slots:
                return await self._named_by_dns(name)

        return await asyncio.gather(*map(named, names))

    async def _write_all(self, steps: Sequence[Step]) -> None:
        """Steps of different domains, many at once. Raises Refused, LogError."""
        for at in range(0, len(steps), WRITES):
            await asyncio.gather(*(self._write([step]) for step in steps[at : at + WRITES]))

    def listed(self) -> list[Listed]:
        """Whom the operator blocked or allowed."""
        return [each for each in self.table.values.values() if isinstance(each, Listed)]

    async def permit(self, wanted: Access) -> None:
        """Block or allow. Raises Refused, LogError."""
        async with self._changing:
            await self.claims.lead()
            domains.ours(self.book())
            await self._write([access.added(self.listed(), wanted)])
        self._say(EventType.ACCESS, f"{wanted.permission} {wanted.subject} by {wanted.by}")

    async def forget(self, subject: str, by: str) -> None:
        """Neither block nor allow any more. Raises Refused, LogError."""
        async with self._changing:
            await self.claims.lead()
            domains.ours(self.book())
            access.known(self.listed(), subject)
            await self._write([_access_key(subject).decode()])
        self._say(EventType.ACCESS, f"remove {subject} by {by}")

    async def tend(self) -> None:
        """One round of what goes on by itself: heal the count, look at the DNS of pending domains, take back
        rules that are over."""
        book = self.book()
        try:
            if self.claims.leads and not self._changing.locked() and (record := domains.healed(book)):
                async with self._changing:
                    await self._write([record])
            await asyncio.gather(*(self._check(domain) for domain in self._due(book)))
            now = self._deps.events.log_time()
            over = access.ended(self.listed(), now) if now is not None and self.claims.leads else ()
            if over and not self._changing.locked():
                async with self._changing:
                    await self._write([_access_key(subject).decode() for subject in over])
        except (LogError, Refused) as error:
            structlog.get_logger().warning("a change of domains was not written", error=str(error))

    def _due(self, book: Book) -> list[Domain]:
        """Some of the pending domains whose DNS is to be looked at now."""
        now, wall = self._deps.clock.mono(), self._deps.clock.wall()
        every_s = self._deps.config.timing.pending_check_s
        due = []
        for domain in book.domains.values() if self.claims.leads else ():
            checked = self._checked.get(domain.domain)
            since = None if checked is None else now - checked
            if domains.check_due(domain, since, wall, every_s):
                due.append(domain)
        return due[:AT_ONCE]

    async def _check(self, domain: Domain) -> None:
        self._checked[domain.domain] = self._deps.clock.mono()
        if not await self._named_by_dns(domain.domain):
            return
        async with self._changing:
            current = self.book().domains.get(domain.domain)
            if current is None or current.active_since:
                return
            await self._write([domains.activated(current, self._deps.clock.wall())])
        self._tell(domain.domain, "active")

    async def _named_by_dns(self, name: str) -> bool:
        return (await look_up(self._deps.dns, name, self._ours, random.shuffle)).names_us

    async def _write(self, steps: Sequence[Step | Access]) -> None:
        """Write each step as the leader, and see it in the own table. Raises Refused, LogError."""
        claim = await self.claims.lead()
        for step in steps:
            key, value = _record(step)
            partition = partition_of(key.decode(), self._deps.partitions) if is_relay_domain(key) else 0
            seen = self.table.watch(key)
            try:
                await self._deps.log.append(DOMAINS.name, partition, key, value, within=WITHIN_S, claim=claim)
                async with asyncio.timeout(SEEN_S):
                    await seen
            except NotOwner as error:
                raise Refused(ELSEWHERE) from error
            except (Ambiguous, TimeoutError) as error:
                raise Refused(
                    "the log did not confirm the change: look with the list command, then repeat it"
                ) from error
            finally:
                seen.cancel()

    def _tell(self, domain: str, text: str) -> None:
        self._say(EventType.DOMAIN, text, domain)

    def _say(self, type_: EventType, text: str, domain: str = "") -> None:
        self._deps.events.emit(Event(type=type_, domain=domain, text=text))


def _access_key(subject: str) -> bytes:
    return ACCESS_KEY + subject.encode()


def _record(step: Step | Access) -> tuple[bytes, bytes | None]:
    """Key and value of a step."""
    match step:
        case Installation():
            return INSTALLATION_KEY, encode(step)
        case Access(subject=subject):
            return _access_key(subject), encode(step)
        case Domain(domain=name):
            return name.encode(), encode(step)
        case str():
            return step.encode(), None


def _domain(record: Record) -> Domain | Installation | Listed | None:
    value = record.value or b""
    if record.key == INSTALLATION_KEY:
        return decode(value, Installation)
    if record.key.startswith(ACCESS_KEY):
        return Listed(decode(value, Access), record.time)
    return decode(value, Domain) if is_relay_domain(record.key) else None
