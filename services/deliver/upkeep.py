"""What goes on beside the attempts: expiry, the end of parked mail, truncation, and what is published."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from libs.log.contract import LogError, Misconfigured, NotOwner
from libs.mail.codec import encode
from libs.mail.event import EventType
from libs.mail.knowledge import Health, PrimaryState
from libs.mail.records import Kind, State
from libs.mail.settings import DAY_S
from services.deliver import brake as bounce_brake
from services.deliver.carrier import Carriers
from services.deliver.hop import Hop
from services.deliver.late import Late
from services.deliver.moving import Moving
from services.deliver.outgoing import Job
from services.deliver.partition import Partition
from services.deliver.retention import GRACE_S, Seen, ended, truncate_before, younger_than
from services.deliver.schedule import OWN_LIFETIME_S, witnessed
from services.deliver.settlement import Settlement
from services.deliver.waiting import Waiting

PUBLISH_S = 1.0  # what waits is published at most so often; a change of health at once
ROUND_S = 30.0
TRUNCATE_S = 300.0
_FOLD_WITHIN_S = 10.0

log = structlog.get_logger()


class Upkeep:
    """Of one partition. `sweep` and `truncate` are one round each; `run` does them in turn."""

    def __init__(self, partition: Partition, settlement: Settlement, carriers: Carriers) -> None:
        self._partition, self._settlement, self._carriers = partition, settlement, carriers
        self.moving = Moving(partition, settlement, carriers)
        self._late = Late(partition, settlement, carriers)
        self._published: dict[str, PrimaryState] = {}
        self._measured: set[str] = set()
        self._overdue: dict[str, int] = {}  # by relay domain, as it was named last
        self._still: set[tuple[str, str]] = set()  # (relay domain, state) that are counted
        self._parked_until: dict[str, float] = {}  # wall seconds; what is not here ends no earlier by arrival

    async def run(self) -> None:
        """For ever. Raises NotOwner when the claim is lost."""
        clock = self._partition.clock
        swept = truncated = clock.mono()
        while True:
            await asyncio.sleep(PUBLISH_S)
            now = clock.mono()
            self._measure()
            if self._partition.ledger.caught_up and now - swept >= ROUND_S:
                swept = now
                await self.sweep()
            if self._partition.ledger.caught_up and now - truncated >= TRUNCATE_S:
                truncated = now
                await self.moving.round()
                await self.truncate()

    # --- expiry and parked mail ---

    async def sweep(self) -> None:
        """Take up what was left unfinished, expire what has witnesses, end what was parked long enough, tell
        of what has been here for a day."""
        part = self._partition
        part.ledger.forget(part.clock.mono())
        for id_ in {*part.ledger.unfinished, *part.ledger.foreign}:
            if (waiting := part.index.get(id_)) is not None:
                await self._on(waiting, self._settlement.resume)
        if not part.shared.clocks.agree:
            return
        for mail in [mail for name in part.index.hops() for mail in self._expired(name)]:
            await self._on(mail, self._settlement.expire)
        kept_s = part.deps.config.defaults.settings().parked_s
        parked = [mail for mail in part.index.still() if mail.state is State.PARKED]
        until = {mail.id: self._parked_until.get(mail.id, mail.arrived + kept_s) for mail in parked}
        self._parked_until = {id_: at for id_, at in self._parked_until.items() if id_ in until}
        for mail in parked:
            if part.clock.wall() >= until[mail.id]:
                await self._on(mail, self._end_parked)
        self._name_overdue()
        self._count_still()
        await self._late.round()

    def _name_overdue(self) -> None:
        """What is past its lifetime and does not expire, because a person or the brake stopped it (rule
        10)."""
        part, wall = self._partition, self._partition.clock.wall()
        counts = dict.fromkeys(self._overdue, 0)
        stopped = [name for name in part.index.hops() if part.stopped(name)]
        waiting = [
            each for name in stopped for each in part.index.arrived_before(name, wall - part.until(name, 0.0))
        ]
        held = [each for each in part.index.still() if each.state is State.HELD]
        for mail in (*waiting, *held):
            if mail.kind is Kind.RELAYED and mail.arrived < wall - part.until(mail.domain, 0.0):
                counts[mail.domain] = counts.get(mail.domain, 0) + 1
        for domain, count in counts.items():
            if count and not self._overdue.get(domain):
                log.warning("mail is past its lifetime and does not expire", domain=domain, mails=count)
            part.deps.metrics.queue_overdue.labels(domain).set(count)
        for domain in [domain for domain in counts if not counts[domain] and not self._overdue.get(domain)]:
            part.deps.metrics.queue_overdue.remove(domain)  # it was said a round ago that there is none
            del counts[domain]
        self._overdue = counts

    def _count_still(self) -> None:
        """What nothing is attempted for: a person looks at it."""
        part, gauge = self._partition, self._partition.deps.metrics.still
        counts = Counter((mail.domain, mail.state.value) for mail in part.index.still())
        for domain, state in self._still - counts.keys():
            gauge.remove(domain, state)
        for (domain, state), count in counts.items():
            gauge.labels(domain, state).set(count)
        self._still = set(counts)

    def _expired(self, name: str) -> list[Waiting]:
        """Mail for a next hop whose lifetime is over, with witnesses (rule 10)."""
        part = self._partition
        hop, wall, mono = part.hop(name), part.clock.wall(), part.clock.mono()
        settings = part.settings(name)
        shortest = min(OWN_LIFETIME_S, settings.lifetime_s if settings else OWN_LIFETIME_S)
        found = []
        for mail in part.index.arrived_before(name, wall - shortest):
            over_s = part.over_s(mail, wall)
            if over_s is None:
                continue
            own = part.tries.get(mail.id, ())
            if witnessed(own, over_s, mono) or witnessed(hop.destination.failures, over_s, mono):
                found.append(mail)
        return found

    async def _end_parked(self, job: Job) -> None:
        part = self._partition
        progress, kept_s = job.entry.progress, part.deps.config.defaults.settings().parked_s
        self._parked_until[job.mail.id] = progress.since + kept_s
        agree = part.shared.clocks.agree
        if ended(progress.state, progress.since, part.clock.wall(), kept_s, clocks_agree=agree):
            part.emit(EventType.DELETED, job, text=f"parked for {kept_s / DAY_S:g} days")
            await part.end(job.mail.id)
            del self._parked_until[job.mail.id]

    async def _on(self, mail: Waiting, work: Callable[[Job], Awaitable[None]]) -> None:
        """Do `work` with a mail that is not out; what became of it since it was looked at is for the next
        round."""

        async def unchanged(now: Waiting, job: Job) -> None:
            if now.offset == mail.offset:
                await work(job)

        await self._carriers.hold(mail.id, unchanged)

    # --- truncation ---

    async def truncate(self) -> int | None:
        """Rule 5, in its order: Y, E, fold to E, L, the claim. Returns the new begin of `content`, None where
        nothing was deleted. Raises NotOwner."""
        part = self._partition
        wall, clocks = part.clock.wall(), part.shared.clocks
        try:
            young = younger_than(wall - clocks.difference_s, wall, GRACE_S)
            content = await part.deps.log.bounds("content", part.number, young)
            end = (await part.deps.log.bounds("queue", part.number)).end
            await self._folded_to(end)
            ledger = part.ledger
            lowest = ledger.lowest_content(content.begin)
            seen = Seen(content.since, end, ledger.position, lowest, bool(ledger.blind))
            before = truncate_before(seen, content.begin, clocks_agree=clocks.agree)
            if before is None:
                return None
            await part.deps.log.truncate(part.claim, "content", before)  # NotOwner unless the claim is held
        except Misconfigured as error:
            log.error("nothing is truncated: topics have other settings", error=str(error))  # noqa: TRY400
            return None
        except NotOwner:
            raise
        except LogError as error:
            log.warning("nothing is truncated now", error=str(error))
            return None
        return before

    async def _folded_to(self, end: int) -> None:
        """Wait shortly for the fold; truncate_before looks whether it came so far."""
        part = self._partition
        limit = part.clock.mono() + _FOLD_WITHIN_S
        while part.ledger.position < end and part.clock.mono() < limit:  # noqa: ASYNC110 the fold has no bell
            await asyncio.sleep(0.05)

    # --- published ---

    async def publish(self) -> None:
        """For ever: the state of each primary, at once when its health changes, else once a second."""
        part = self._partition
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(PUBLISH_S):
                    await part.publish.wait()
            part.publish.clear()
            changed, part.changed = part.changed, set()
            states = [self.state(hop) for name in changed if (hop := part.hops.get(name)) and hop.primary]
            await asyncio.gather(*(self._say(state) for state in states))

    async def _say(self, state: PrimaryState) -> None:
        if self._published.get(state.domain) != state:
            await self._partition.append("primaries", state.domain.encode(), encode(state))
            self._published[state.domain] = state

    def state(self, hop: Hop) -> PrimaryState:
        """A next hop as others see it, in wall time."""
        part = self._partition
        destination, shift = hop.destination, part.clock.wall() - part.clock.mono()
        count = part.index.count(hop.name)
        known = self._known(hop)
        confirmed = destination.confirmed + shift if destination.confirmed > float("-inf") else 0.0
        braked = bounce_brake.braked(hop.brake, part.clock.mono())
        pulled = hop.brake.pulled + shift if braked and hop.brake.pulled is not None else 0.0
        if known and abs(known.braked_since - pulled) < 1.0:
            pulled = known.braked_since
        return PrimaryState(
            domain=hop.name,
            health=destination.health,
            since=self._since(hop, shift),
            confirmed=max(0.0, confirmed),
            braked=braked,
            mx=hop.mx,
            mx_seen=hop.mx_seen,
            waiting=count.mails,
            bytes=count.octets,
            oldest=count.oldest,
            last_reply=destination.last_reply,
            braked_since=pulled,
            waited=hop.waited,
            handed=hop.handed,
            era=hop.era,
        )

    def _known(self, hop: Hop) -> PrimaryState | None:
        """As it was said last, by us or by the owner before."""
        return self._published.get(hop.name) or self._partition.recorded.get(hop.name)

    def _since(self, hop: Hop, shift: float) -> float:
        """When its health began, in wall seconds. Both clocks drift by fractions: what did not change is said
        as it was said before."""
        since, known = hop.destination.since + shift, self._known(hop)
        same = known and known.health is hop.destination.health and abs(known.since - since) < 1.0
        return known.since if known and same else since

    def _measure(self) -> None:
        """The gauges of this partition's domains."""
        part, metrics = self._partition, self._partition.deps.metrics
        shift = part.clock.wall() - part.clock.mono()
        for hop in part.hops.values():
            if not hop.primary:
                continue
            count = part.index.count(hop.name)
            age = part.clock.wall() - count.oldest if count.oldest else 0.0
            metrics.queue_messages.labels(hop.name).set(count.mails)
            metrics.queue_bytes.labels(hop.name).set(count.octets)
            metrics.queue_oldest_seconds.labels(hop.name).set(max(0.0, age))
            if (settings := part.settings(hop.name)) is not None:
                metrics.lifetime_seconds.labels(hop.name).set(settings.lifetime_s)
            metrics.primary_up.labels(hop.name).set(hop.destination.health is Health.UP)
            metrics.primary_changed.labels(hop.name).set(self._since(hop, shift))
            metrics.primary_refusing.labels(hop.name).set(hop.destination.health is Health.REFUSING)
            metrics.braked.labels(hop.name).set(bounce_brake.braked(hop.brake, part.clock.mono()))
            metrics.delivered.begin(hop.name)
            self._measured.add(hop.name)

    def close(self) -> None:
        """The gauges of this partition are somebody else's from now on."""
        metrics = self._partition.deps.metrics
        gauges = (
            metrics.queue_messages,
            metrics.queue_bytes,
            metrics.queue_oldest_seconds,
            metrics.primary_up,
            metrics.primary_changed,
            metrics.primary_refusing,
            metrics.braked,
        )
        for name in self._measured:
            for gauge in gauges:
                gauge.remove(name)
            with suppress(KeyError):  # the domain was removed before it was measured
                metrics.lifetime_seconds.remove(name)
            metrics.delivered.forget(name)
        for name in self._overdue:
            metrics.queue_overdue.remove(name)
        for domain, state in self._still:
            metrics.still.remove(domain, state)
        self._measured.clear()
        self._still.clear()
        self._overdue.clear()
