"""Questions and observations on `callouts` become knowledge on `recipients`: the cache is the reply.

One callout in flight a recipient. Every question is answered by a record of its recipient (what is known, or
when it was last tried and why nothing is known), so that whoever waits for it wakes up.
"""

import asyncio
import heapq
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import NamedTuple

import structlog

from libs import topics
from libs.log.contract import BEGIN, Batch, Claim, NotOwner, Record, Unavailable
from libs.mail.address import BadAddress, mailbox
from libs.mail.records import (
    Callout,
    Health,
    Observed,
    PrimaryFacts,
    RecipientStatus,
    Sight,
    Status,
    Undecodable,
    decode_callout,
)
from libs.mail.reply import parse_line
from libs.mail.speaks import Stage
from libs.runtime.deps import Deps
from libs.smtp.client import CALLOUT, Dialer, Timeouts
from services.verify import asking, learning
from services.verify.asking import Asked, Heard, Offered
from services.verify.calls import Calls, Question
from services.verify.finding import Deliverable, Finding, Undeliverable, Unverifiable, believable, classify
from services.verify.known import Known
from services.verify.learning import LIFETIMES, Circumstances, Learnt, Lifetimes
from services.verify.storing import Storing

_NOBODYS = -1  # the offset of a question that nobody asked on the topic
COMMIT_S = 2.0
DRAIN_S = 3.0  # for the answers that are under way
LOST_S = 60.0  # no callout takes so long: its answer was lost to a bug of ours
STALLED_S = 5.0  # a partition unheard of for so long is behind: what comes next may be old

log = structlog.get_logger()


class _Reading:
    """Where a claimed partition of `callouts` is: `position` comes next, `open` are questions not answered
    yet."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.position: int | None = None
        self.committed: int | None = None
        self.open: set[int] = set()
        self.heard_at: float | None = None  # monotonic: the last batch that reached the end

    def live(self, batch: Batch, now: float) -> bool:
        """Were these records written just now? Then nobody's clock has to be asked how old they are."""
        kept_up = self.heard_at is not None and now - self.heard_at < STALLED_S
        self.heard_at = now if batch.position >= batch.end else None
        return kept_up

    @property
    def done(self) -> int | None:
        return min(self.open, default=self.position)


class _Flight(NamedTuple):
    """A question under way; `offset` in the partition, `began` monotonic."""

    reading: _Reading
    offset: int
    began: float


class Callouts:
    """An Owner of the group `verify`. run() until drain(); `known` must run and be caught up."""

    def __init__(
        self,
        deps: Deps,
        known: Known,
        *,
        timeouts: Timeouts = CALLOUT,
        lifetimes: Lifetimes = LIFETIMES,
        tick_s: float = 1.0,
    ) -> None:
        self._deps, self._known, self._lifetimes, self._tick_s = deps, known, lifetimes, tick_s
        dialer = Dialer(deps.config.dial, deps.config.host, deps.clock, timeouts)
        self._calls = Calls(deps, dialer, self)
        self._readings: dict[int, _Reading] = {}
        self._changed, self._stop = asyncio.Event(), asyncio.Event()
        self._asked: dict[str, Asked] = {}
        self._offered: dict[str, Offered] = {}
        self._storing = Storing(deps, known)
        self._flushed: dict[str, float] = {}
        self._flying: dict[bytes, _Flight] = {}
        # A heap of what is asked again though nobody waits: due (monotonic), key, mailbox, attempts.
        self._again: list[tuple[float, bytes, str, int]] = []

    # --- claims ---

    def gained(self, claim: Claim) -> None:
        self._readings[claim.partition] = _Reading(claim)
        self._changed.set()

    def lost(self, claim: Claim) -> None:
        reading = self._readings.get(claim.partition)
        if reading is not None and reading.claim is claim:
            del self._readings[claim.partition]
            self._changed.set()

    async def run(self, progress: Callable[[], None] = lambda: None) -> None:
        """Until drain(). Raises what cannot be gone on after."""
        ticking = asyncio.create_task(self._ticks(progress))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            while not self._stop.is_set():
                self._changed.clear()
                reading = asyncio.create_task(self._read(progress))
                change = asyncio.create_task(self._changed.wait())
                tasks = {reading, change, ticking, stopping}
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:  # also when cancelled: no task is left behind
                    for task in (reading, change):
                        task.cancel()
                    await asyncio.wait({reading, change})
                for task in (reading, ticking):
                    if task.done() and not task.cancelled():
                        task.result()
        finally:
            for task in (ticking, stopping):
                task.cancel()
            await asyncio.wait({ticking, stopping})

    async def drain(self) -> None:
        """No more questions; what was heard is stored, the positions are committed."""
        self._stop.set()
        await self._calls.close(DRAIN_S)
        await self._storing.finish()
        await self._commit()

    # --- reading `callouts` ---

    async def _read(self, progress: Callable[[], None]) -> None:
        """Follow every claimed partition; restarted when a claim comes or goes."""
        starts = await self._starts()
        if not starts:
            await self._changed.wait()
            return
        async with aclosing(self._deps.log.follow("callouts", starts)) as batches:
            async for batch in batches:
                progress()
                reading = self._readings.get(batch.partition)
                if reading is None or not reading.claim.held():
                    continue
                live = reading.live(batch, self._deps.clock.mono())
                for record in batch.records:
                    try:
                        self._take(reading, record, live=live)
                    except Exception:  # our bug: said, and the partition goes on
                        log.exception("a question failed", partition=record.partition, offset=record.offset)
                reading.position = batch.position

    async def _starts(self) -> Mapping[int, int]:
        """Where to go on: after what was read, else after what the group has done."""
        starts: dict[int, int] = {}
        for reading in tuple(self._readings.values()):
            while reading.position is None:
                try:
                    committed = await self._deps.log.commit(reading.claim, "callouts")
                    reading.position = BEGIN if committed is None else committed
                except NotOwner:
                    break
                except Unavailable:
                    await asyncio.sleep(self._tick_s)
            if reading.position is not None:
                starts[reading.claim.partition] = reading.position
        return starts

    def _take(self, reading: _Reading, record: Record, *, live: bool) -> None:
        if record.value is None:
            return
        try:
            callout = decode_callout(record.value)
            if isinstance(callout, Sight):
                return  # what ingest tells its like
            domain = mailbox(callout.mailbox).domain
        except (Undecodable, BadAddress):
            self._deps.quarantined(record)
            return
        match callout:
            case Observed():
                self._observed(reading, record.key, domain, callout)
            case Callout():
                age_s = self._deps.clock.wall() - record.time
                if live or age_s <= self._deps.config.timing.rcpt_deadline_s:
                    self._question(reading, record, domain, callout)
                else:
                    self._deps.metrics.callouts_stale.inc()  # nobody waits for it any more

    def _question(self, reading: _Reading, record: Record, domain: str, callout: Callout) -> None:
        flight = self._flying.get(record.key)
        if flight is not None and self._deps.clock.mono() - flight.began < LOST_S:
            self._flying[record.key] = flight._replace(reading=reading)
            return  # the answer under way is its answer too, under the claim of today
        known = self._known.recipient(record.key, callout.mailbox)
        now = self._deps.clock.wall()
        answer = known.answer
        due = learning.is_due(known, self._known.primary(domain), now, self._lifetimes)
        if callout.anew and not learning.asked_just_now(known, now, self._lifetimes):
            due = True
        if answer is not None and not due:
            self._storing.store(reading.claim, record.key, domain, [answer])
            return
        reason = self._refusal(domain, known.status, anew=callout.anew) or self._calls.crowded(domain)
        if reason:
            tried = learning.learn(known, Unverifiable(reason, blocked=False), self._circumstances(domain))
            self._deps.metrics.callouts.labels(reason).inc()
            self._storing.store(reading.claim, record.key, domain, tried.records)
            return
        reading.open.add(record.offset)
        self._flying[record.key] = _Flight(reading, record.offset, self._deps.clock.mono())
        self._ask(record.key, domain, known, anew=callout.anew)

    def _refusal(self, domain: str, status: RecipientStatus | None, *, anew: bool = False) -> str:
        """Why nothing is dialled, or ""."""
        settings = self._known.settings(domain)
        if settings is None:
            return "no domain"
        if not settings.active or settings.suspended:
            return "suspended" if settings.suspended else "pending"
        asked = self._asked.get(domain, Asked())
        mono = self._deps.clock.mono()
        return asking.hold(asked, self._known.facts(domain), known=status is not None, now=mono, anew=anew)

    def _ask(
        self, key: bytes, domain: str, known: learning.Known, attempts: int = 0, *, anew: bool = False
    ) -> None:
        deliverable = known.status is not None and known.status.status is Status.DELIVERABLE
        control = self._known.control(key) if deliverable else ""
        self._calls.ask(Question(known.mailbox, domain, key, control, attempts, anew))

    # --- what sessions and deliveries say ---

    def refused(self, question: Question) -> str:
        known = self._known.recipient(question.key, question.mailbox)
        return self._refusal(question.domain, known.status, anew=question.anew)

    def told(self, question: Question, finding: Finding, control: bool | None) -> None:
        reading, offset, began = self._flying.pop(question.key)
        known = self._known.recipient(question.key, question.mailbox)
        answered = not isinstance(finding, Unverifiable)
        finding = believable(finding, self._known.facts(question.domain))
        learnt = self._learn(reading.claim, question.domain, known, finding, control)
        self._deps.metrics.callouts.labels(_outcome(finding, learnt)).inc()
        self._deps.metrics.callout_seconds.observe(self._deps.clock.mono() - began)
        if answered:
            self._is_up(question.domain)
        after_s = learning.again_after(learnt, control, question.attempts, self._lifetimes)
        if after_s is not None:
            due = self._deps.clock.mono() + after_s
            heapq.heappush(self._again, (due, question.key, question.mailbox, question.attempts + 1))
        self._storing.store(
            reading.claim, question.key, question.domain, learnt.records, lambda: reading.open.discard(offset)
        )

    def offered(self, domain: str, offered: Offered) -> None:
        self._offered[domain] = offered

    def failed(self, domain: str, finding: Unverifiable) -> None:
        mono = self._deps.clock.mono()
        asked = self._asked.get(domain, Asked())
        self._asked[domain] = asking.unreachable(asked, finding.reason, mono)

    def _observed(self, reading: _Reading, key: bytes, domain: str, seen: Observed) -> None:
        """A delivery heard something about a recipient."""
        try:
            finding = classify(seen.stage, parse_line(seen.reply))
        except ValueError:
            log.warning("an observation holds no reply", domain=domain)
            return
        if isinstance(finding, Unverifiable) or self._known.settings(domain) is None:
            return
        if isinstance(finding, Undeliverable):
            late = seen.stage.upper() == Stage.DOT
            old = self._known.facts(domain)
            new = asking.rejects_late(old, domain, self._deps.clock.wall(), late=late)
            self._publish(reading.claim, domain, old, new)
        known = self._known.recipient(key, seen.mailbox)
        learnt = self._learn(reading.claim, domain, known, finding, None, "delivery")
        if learning.worth_writing(known, learnt, self._lifetimes):
            self._storing.store(reading.claim, key, domain, learnt.records)

    def _learn(
        self,
        claim: Claim,
        domain: str,
        known: learning.Known,
        finding: Finding,
        control: bool | None,
        source: str = "callout",
    ) -> Learnt:
        """What it means for the recipient, and for what is known of the primary."""
        circumstances = self._circumstances(domain)._replace(control=control, source=source)
        learnt = learning.learn(known, finding, circumstances, self._lifetimes)
        blocked = isinstance(finding, Unverifiable) and finding.blocked
        had_status, said_to_us = known.status is not None, source == "callout"
        outcome = _outcome(finding, learnt)
        heard = Heard(known.mailbox, outcome, blocked, learnt.pending, had_status, said_to_us)
        asked = asking.heard(self._asked.get(domain, Asked()), heard, self._deps.clock.mono())
        self._asked[domain] = asked
        old = self._known.facts(domain)
        answered = not isinstance(finding, Unverifiable)
        confirmed = isinstance(finding, Deliverable) and had_status
        said = asking.Said(circumstances.now, self._offered.get(domain), answered, confirmed)
        self._publish(claim, domain, old, asking.facts(old, domain, asked, said))
        if learnt.status is not None:
            self._storing.say_recipient(domain, known.status, learnt.status)
        return learnt

    def _circumstances(self, domain: str) -> Circumstances:
        facts = self._known.facts(domain)
        braked = facts is not None and facts.braked
        return Circumstances(self._deps.clock.wall(), self._deps.config.host.name, braked=braked)

    def _is_up(self, domain: str) -> None:
        """It answered at RCPT: deliver, which believes it away, is asked to try at once."""
        primary = self._known.primary(domain)
        if primary is None or primary.health not in (Health.DOWN, Health.DEFERRING):
            return
        if self._flushed.get(domain) != primary.since:
            self._flushed[domain] = primary.since
            self._storing.flush(domain)

    # --- what is written ---

    def _publish(self, claim: Claim, domain: str, old: PrimaryFacts | None, new: PrimaryFacts) -> None:
        if new == old:
            return
        if old is None or old.callouts is not new.callouts or old.braked is not new.braked:
            self._storing.say_primary(new)
        self._storing.store(claim, b"@" + domain.encode(), domain, [new])

    # --- time ---

    async def _ticks(self, progress: Callable[[], None]) -> None:
        """Background questions that are due; positions. Without a claim, time passing is all the progress."""
        committed_at = self._deps.clock.mono()
        while True:
            await asyncio.sleep(self._tick_s)
            now = self._deps.clock.mono()
            if not self._readings:
                progress()
            while self._again and self._again[0][0] <= now:
                _, key, address, attempts = heapq.heappop(self._again)
                self._ask_again(key, address, attempts)
            if now - committed_at >= COMMIT_S:
                await self._commit()
                committed_at = now

    def _ask_again(self, key: bytes, address: str, attempts: int) -> None:
        domain = mailbox(address).domain
        reading = self._readings.get(topics.partition_of(domain, self._deps.partitions))
        if reading is None or not reading.claim.held() or key in self._flying:
            return
        known = self._known.recipient(key, address)
        if self._refusal(domain, known.status):
            due = self._deps.clock.mono() + self._lifetimes.witness_s
            heapq.heappush(self._again, (due, key, address, attempts))
            return
        self._flying[key] = _Flight(reading, _NOBODYS, self._deps.clock.mono())
        self._ask(key, domain, known, attempts)

    async def _commit(self) -> None:
        """Remember what is done; after a crash the rest is asked again, as far as somebody still waits."""
        for reading in tuple(self._readings.values()):
            done = reading.done
            if done is None or done < 0 or done == reading.committed:
                continue
            try:
                await self._deps.log.commit(reading.claim, "callouts", done)
                reading.committed = done
            except NotOwner:
                continue
            except Unavailable as error:
                log.warning("a position could not be committed", topic="callouts", error=str(error))


def _outcome(finding: Finding, learnt: Learnt) -> str:
    match finding:
        case Deliverable():
            return "deliverable"
        case Undeliverable():
            return "contradicted" if learnt.pending else "undeliverable"
        case Unverifiable(reason):
            return reason
