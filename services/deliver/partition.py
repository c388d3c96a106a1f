"""The mutable state of one partition under one claim, and the only writes to it.

Every write checks the claim first (rule 4). What the log does not take is tried again for as long as the
claim is held: the mail's slot stays taken meanwhile (rule 11), so that few mails are ever in doubt.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from libs.log.contract import Claim, Headers, LogError, NotOwner, Stored
from libs.log.table import Table
from libs.mail.codec import decode, encode, mail_of, queue_headers
from libs.mail.event import Event, EventType
from libs.mail.knowledge import Health, PrimaryState
from libs.mail.records import ContentRef, Domain, Kind, Mail, Progress, QueueEntry
from libs.mail.settings import DomainSettings, complete
from libs.runtime.clocks import Clocks
from libs.runtime.deps import Deps
from libs.smtp.client import Dialer
from libs.smtp.demands import Demands
from libs.smtp.route import Ours, Place, said
from services.deliver import brake as bounce_brake
from services.deliver.addresses import Addresses
from services.deliver.brake import Brake
from services.deliver.delays import AFTER_S, Delays
from services.deliver.destination import Destination, Gates, Pace, Seen, on, void
from services.deliver.hop import Hop
from services.deliver.ledger import OWNER, Ledger
from services.deliver.observations import Observations
from services.deliver.outgoing import Job
from services.deliver.schedule import lifetime_s, over
from services.deliver.waiting import Waiting

_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # between tries of a write that the log does not take
_LOOK = 5000  # mails looked at before others get their turn
MX_SEEN_S = 3600.0  # a working MX set is said to be one at least so often
WITHOUT_CLAIM_S = 30.0  # so long an acceptance is tried to be written after the claim was lost

log = structlog.get_logger()


class Dialers(NamedTuple):
    """`patient`: with the time-outs of RFC 5321; `brisk`: the same, but for the greeting; `prober`: with
    those of a probe; `lenient`: the same, but for the greeting, which may take what RFC 5321 has it."""

    patient: Dialer
    brisk: Dialer
    prober: Dialer
    lenient: Dialer


class Shared(NamedTuple):
    """What all partitions of this process have in common. `slots`: how many attempts may be in doubt;
    `demands`: what TLS must be; `settle_s`: a gained partition
    attempts nothing before."""

    deps: Deps
    domains: Table[Domain]
    dialers: Dialers
    demands: Demands
    ours: Ours
    addresses: Addresses
    slots: asyncio.Semaphore
    clocks: Clocks
    observations: Observations
    settle_s: float


class Partition:
    """`wake` is set when `stirred` next hops should be looked at, `publish` when `changed` ones should be
    published; `late`: domains whose primary rejects recipients after the final dot only, and in which era."""

    def __init__(self, claim: Claim, shared: Shared) -> None:
        self.claim, self.number, self.shared = claim, claim.partition, shared
        self.deps = shared.deps
        self.clock = shared.deps.clock
        self.ledger = Ledger(random.randbytes(9).hex().encode())
        self.index = self.ledger.index
        self.hops: dict[str, Hop] = {}
        self.recorded: dict[str, PrimaryState] = {}
        self.stirred: set[str] = set()
        self.wake = asyncio.Event()
        self.changed: set[str] = set()
        self.publish = asyncio.Event()
        self.tries: dict[str, tuple[float, ...]] = {}
        self.late: dict[str, int] = {}
        self.relays = tuple(ip_network(each) for each in self.deps.config.smtp.trusted_relays)
        self._defaults = self.deps.config.defaults.settings()
        # Of each domain, from which record: they are asked for several times a mail.
        self._completed: dict[str, tuple[Domain, DomainSettings]] = {}
        self.taken_up: dict[str, float] = {}  # mails that a person had redelivered, and when (monotonic)
        self.delays = Delays()
        self.draining = False

    # --- next hops ---

    def routed(self, hop: Hop, hosts: tuple[str, ...]) -> None:
        """DNS names these hosts for `hop`; published when they change, and from time to time."""
        wall = self.clock.wall()
        if set(hosts) != set(hop.mx) or wall - hop.mx_seen >= MX_SEEN_S:
            hop.mx, hop.mx_seen = hosts, wall
            self.changed.add(hop.name)

    def hop(self, name: str, *, primary: bool = False) -> Hop:
        """The next hop `name`, as it was recorded by its owner before, or new: up until it is seen."""
        hop = self.hops.get(name)
        if hop is None:
            hop = self.hops[name] = self._hop(name)
        if primary and not hop.primary:
            hop.primary = True
            self.changed.add(name)
        self._renew(hop)
        return hop

    def _renew(self, hop: Hop) -> None:
        """What was seen of a former owner's primary says nothing of this one's."""
        settings = self.settings(hop.name) if hop.primary else None
        if settings is not None and settings.era > hop.era:
            hop.era, hop.destination, hop.brake = settings.era, Destination(since=self.clock.mono()), Brake()
            hop.mx, hop.mx_seen, hop.waited, hop.handed = (), 0.0, 0, 0
            self.changed.add(hop.name)

    def _hop(self, name: str) -> Hop:
        now, state = self.clock.mono(), self.recorded.get(name)
        if state is None:
            return Hop(name, Destination(since=now), Brake(), primary=False)
        since = now - max(0.0, self.clock.wall() - state.since)
        up = state.health is Health.UP
        confirmed = now - max(0.0, self.clock.wall() - state.confirmed)
        ended = since if up else float("-inf")
        destination = Destination(
            since, state.health, confirmed=confirmed, outage_ended=ended, last_reply=state.last_reply
        )
        pulled = now - max(0.0, self.clock.wall() - state.braked_since) if state.braked_since else now
        brake = Brake(outage_ended=ended, pulled=pulled if state.braked else None)
        hop = Hop(name, destination, brake, primary=True)
        hop.mx, hop.mx_seen = state.mx, state.mx_seen
        hop.waited, hop.handed, hop.era = state.waited, state.handed, state.era
        return hop

    def pace(self, hop: Hop) -> Pace:
        timing = self.deps.config.timing
        return Pace(timing.probe_s, timing.probe_late_s, remote=not hop.primary)

    def settings(self, domain: str) -> DomainSettings | None:
        """The settings in force for a relay domain, None where there is none."""
        known = self.shared.domains.get(domain.encode())
        if known is None:
            return None
        kept = self._completed.get(domain)
        if kept is None or kept[0] is not known:
            kept = self._completed[domain] = known, complete(self._defaults, known)
        return kept[1]

    def is_late(self, domain: str) -> bool:
        """Does its primary reject recipients after the final dot only?"""
        settings = self.settings(domain)
        return settings is not None and self.late.get(domain) == settings.era

    def of_former_owner(self, mail: Mail) -> bool:
        """Was it taken for somebody whose domain was removed since, and added again?"""
        settings = self.settings(mail.domain) if mail.kind is Kind.RELAYED else None
        return settings is not None and mail.era is not None and mail.era < settings.era

    def place(self, hop: Hop) -> Place | None:
        """What the owner of a relay domain says of its primary."""
        settings = self.settings(hop.name) if hop.primary else None
        return said(settings.primary_host, settings.tls_name) if settings else None

    def gates(self, hop: Hop) -> Gates:
        if not hop.primary:
            return Gates()
        settings = self.settings(hop.name)
        if settings is None:
            return Gates(known=False)
        return Gates(settings.active, settings.suspended, settings.held)

    def saw(self, hop: Hop, seen: Seen) -> None:
        """Something was seen of a next hop."""
        now, before = self.clock.mono(), hop.destination
        settings = self.settings(hop.name)
        most = settings.max_connections if settings else self.deps.config.defaults.max_connections
        after = on(before, seen, now, random.uniform(-1, 1), self.pace(hop), most=most)
        hop.destination = after
        for id_ in void(before, seen):
            self.index.hurry(id_)
        if after.health is not before.health:
            if after.health is Health.UP:
                hop.brake = bounce_brake.outage_ended(hop.brake, now)
                hop.back(before, self.index.count(hop.name).mails)
            self._tell_health(hop, before)
        elif after.confirmed != before.confirmed:
            self.changed.add(hop.name)
        self.stir(hop.name)

    def _tell_health(self, hop: Hop, before: Destination) -> None:
        if not hop.primary:
            return
        after = hop.destination
        self.deps.events.emit(
            Event(
                type=EventType.PRIMARY,
                domain=hop.name,
                text=f"{before.health} -> {after.health}"
                + (f": {after.last_reply}" if after.health is not Health.UP and after.last_reply else ""),
            )
        )
        self.changed.add(hop.name)
        self.publish.set()

    def rebrake(self, hop: Hop, brake: Brake) -> None:
        """The bounce brake of a next hop changed; when it was pulled or let go, that is said."""
        was, hop.brake = hop.brake.pulled is not None, brake
        pulled = brake.pulled is not None
        if was is not pulled and hop.primary:
            text = "bounce brake pulled" if pulled else "bounce brake released"
            log.warning(text, domain=hop.name, refused=len(brake.refused))
            self.deps.events.emit(Event(type=EventType.PRIMARY, domain=hop.name, text=text))
            self.changed.add(hop.name)
            self.publish.set()

    def handed_over(self, mail: Mail) -> None:
        """The last of a mail's recipients was taken by its next hop; it may have waited for that."""
        hop = self.hops.get(mail.next_hop)
        if hop is not None and hop.handed < hop.waited:
            ended = hop.destination.outage_ended + self.clock.wall() - self.clock.mono()
            hop.handed += mail.kind is Kind.RELAYED and mail.arrived <= ended

    def stir(self, name: str) -> None:
        """Look at this next hop soon."""
        self.stirred.add(name)
        self.wake.set()

    def arrived(self, mail: Waiting) -> None:
        """A mail came into the index."""
        self._awaits(mail.domain, mail.next_hop, mail.kind)
        self._tell_later(mail.id)

    async def restored(self) -> None:
        """The index is what the log has; others have their turn meanwhile."""
        for route in self.index.routes():
            self._awaits(*route)
        for count, id_ in enumerate(self.index.ids(), 1):
            self._tell_later(id_)
            if count % _LOOK == 0:
                await asyncio.sleep(0)

    def _tell_later(self, id_: str) -> None:
        """Its sender is told after a while that it waits, where he is to be told."""
        if (arrived := self.index.untold(id_)) is not None:
            self.delays.add(id_, arrived + AFTER_S)

    def _awaits(self, domain: str, next_hop: str, kind: Kind) -> None:
        self.hop(next_hop, primary=kind is Kind.RELAYED and next_hop == domain)
        self.changed.add(next_hop)
        self.stir(next_hop)

    def over_s(self, mail: Waiting, wall: float) -> float | None:
        """For how many seconds the mail's lifetime has been over; None: it is not, or it does not expire now
        (rule 10: no settings in force, held, suspended, braked)."""
        setting: float | None = None
        if mail.kind is Kind.RELAYED:
            settings = self.settings(mail.domain)
            if settings is None or self.stopped(mail.domain):
                return None
            setting = settings.lifetime_s
        over_s = over(mail.arrived, lifetime_s(mail.kind, setting), wall)
        again = self.taken_up.get(mail.id)
        return over_s if over_s is None or again is None else min(over_s, self.clock.mono() - again)

    def stopped(self, domain: str) -> bool:
        """Does no mail of this relay domain expire now? It is suspended or held, its brake is pulled, or
        there are no settings in force."""
        settings = self.settings(domain)
        if settings is None or settings.held or settings.suspended or not settings.active:
            return True
        hop = self.hops.get(domain)
        return hop is not None and bounce_brake.braked(hop.brake, self.clock.mono())

    def until(self, domain: str, arrived: float) -> float:
        """When the lifetime of a mail of `domain` ends that arrived at `arrived` (wall seconds)."""
        settings = self.settings(domain)
        lifetime = (
            self.deps.config.defaults.settings().lifetime_s if settings is None else settings.lifetime_s
        )
        return arrived + lifetime

    def take_up(self, id_: str) -> None:
        """A person had a parked mail taken up again: what failed before is no witness any more (rule 10)."""
        self.tries.pop(id_, None)
        self.taken_up[id_] = self.clock.mono()

    async def each(self) -> AsyncIterator[Waiting]:
        """Every mail that is here now; others get their turn meanwhile, and may change them."""
        for count, id_ in enumerate(self.index.ids(), 1):
            if (mail := self.index.get(id_)) is not None:
                yield mail
            if count % _LOOK == 0:
                await asyncio.sleep(0)

    # --- records ---

    async def read(self, waiting: Waiting) -> Job:
        """The mail as its newest record has it. Raises Gone, Superseded, Unavailable, Undecodable."""
        key = waiting.id.encode()
        record = await self.deps.log.read("queue", self.number, waiting.offset, key)
        entry = decode(record.value or b"", QueueEntry)
        ref = decode(record.header("content") or b"", ContentRef)
        return Job(entry, mail_of(entry), ref)

    async def write(self, job: Job, progress: Progress, *, accepted: bool = False) -> Job:
        """The mail's state becomes `progress`. `accepted`: the primary took something, so it is written even
        after the claim was lost. Raises NotOwner."""
        entry = replace(job.entry, progress=progress)
        headers = (*queue_headers(job.ref), (OWNER, self.ledger.mark))
        key, value = job.mail.id.encode(), encode(entry)
        stored = await self._insist("queue", key, value, headers, accepted=accepted)
        known = self.index.get(job.mail.id)
        self.ledger.wrote(job.mail.id, stored.offset, progress, job.ref)
        if known is not None and not known.due and progress.next_attempt == job.entry.progress.next_attempt:
            self.index.hurry(job.mail.id)  # its backoff is void, and this was written for another reason
        return replace(job, entry=entry)

    async def end(self, id_: str, *, accepted: bool = False) -> None:
        """The mail's tombstone. Raises NotOwner."""
        await self._insist("queue", id_.encode(), None, ((OWNER, self.ledger.mark),), accepted=accepted)
        if (mail := self.index.get(id_)) is not None:
            self.delays.drop(id_, mail.arrived + AFTER_S)
        self.ledger.end(id_)
        self.tries.pop(id_, None)
        self.taken_up.pop(id_, None)

    async def bury(self, key: bytes) -> None:
        """Another tombstone for a record that came behind the first, or for a stale state."""
        await self._insist("queue", key, None, ((OWNER, self.ledger.mark),), accepted=False)

    async def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> Stored:
        """Another record of this partition, under the claim. Raises NotOwner."""
        return await self._insist(topic, key, value, headers, accepted=False)

    async def _insist(
        self, topic: str, key: bytes, value: bytes | None, headers: Headers, *, accepted: bool
    ) -> Stored:
        """Append until it is acknowledged: writing the same state twice is harmless.

        Raises NotOwner when the claim is lost; what is `accepted` is then tried without it for a while.
        """
        within = self.deps.config.timing.acknowledgement_s
        tried, started = 0, self.clock.mono()
        while True:
            claim = self.claim
            lost = not claim.held()
            if lost and not (accepted and self.clock.mono() - started < WITHOUT_CLAIM_S):
                raise NotOwner(f"{claim.group} {claim.partition}")
            try:
                stored = await self.deps.log.append(
                    topic,
                    self.number,
                    key,
                    value,
                    within=within,
                    headers=headers,
                    claim=None if lost else claim,
                )
            except NotOwner:
                await asyncio.sleep(0)
            except LogError as error:
                if tried == 0:
                    log.warning("the log does not take a record, trying on", topic=topic, error=str(error))
                await asyncio.sleep(_PAUSES_S[min(tried, len(_PAUSES_S) - 1)])
                tried += 1
            else:
                self.shared.clocks.heard(stored.time)
                return stored

    def emit(self, event: EventType, job: Job, *, recipient: str = "", **more: object) -> None:
        """An event about a mail."""
        mail = job.mail
        base = Event(
            type=event,
            id=mail.id,
            domain=mail.domain,
            sender=mail.reverse_path,
            recipient=recipient,
            size=job.ref.size,
            created_time=mail.arrived,
            num_attempts=job.entry.progress.attempts,
        )
        self.deps.events.emit(replace(base, **more))
