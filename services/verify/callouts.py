"""Questions and observations on `callouts` become knowledge on `recipients`: the cache is the reply.

One callout in flight a recipient. Every question is answered by a record of its recipient (what is known, or
when it was last tried and why nothing is known), so that whoever waits for it wakes up.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial

import structlog

from libs import topics
from libs.log.contract import Claim, Record
from libs.mail.address import BadAddress, mailbox
from libs.mail.codec import Undecodable, decode_callout
from libs.mail.knowledge import (
    Allowed,
    Callout,
    Forgotten,
    Imported,
    Observed,
    RecipientTry,
    Sight,
    Told,
)
from libs.mail.reply import parse_line
from libs.mail.speaks import Stage
from libs.runtime.deps import Deps
from libs.smtp.client import CALLOUT, Dialer, Timeouts
from libs.smtp.route import Place, said
from services.verify import learning, orders, warming
from services.verify.asking import Heard, Offered
from services.verify.background import Background
from services.verify.calls import GENTLE, Calls, Gait, Question
from services.verify.finding import Deliverable, Finding, Undeliverable, Unverifiable, believable, classify
from services.verify.flights import NOBODYS, Flight, Flights
from services.verify.known import Known
from services.verify.learning import LIFETIMES, Circumstances, Learnt, Lifetimes
from services.verify.primaries import Primaries
from services.verify.reading import Reading
from services.verify.releases import Releases
from services.verify.storing import Storing
from services.verify.upkeep import Upkeep

NOBODY = "no-such-user-"  # how a mailbox begins that nobody has
COMMIT_S = 2.0
DRAIN_S = 3.0  # for the answers that are under way

log = structlog.get_logger()


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
        gently: Gait = GENTLE,
    ) -> None:
        self._deps, self._known, self._lifetimes, self._tick_s = deps, known, lifetimes, tick_s
        config = deps.config
        hosts = config.installation.hosts
        dialer = Dialer(config.dial, config.host, deps.clock, timeouts, hosts=hosts)
        self._calls, self._gently = Calls(deps, dialer, self), Calls(deps, dialer, self, gently)
        self._readings: dict[int, Reading] = {}
        self._changed, self._stop = asyncio.Event(), asyncio.Event()
        self._storing = Storing(deps, known)
        self._primaries = Primaries(deps, known, self._storing)
        self._flights = Flights()
        self._background = Background(deps, known, lifetimes, self)
        self._upkeep = Upkeep(deps, known, self._storing, self._background, lifetimes, self)
        self._releases = Releases(deps, self._primaries.released)

    # --- claims ---

    def gained(self, claim: Claim) -> None:
        self._readings[claim.partition] = Reading(claim)
        self._primaries.gained(claim)
        self._upkeep.claimed()
        self._releases.gained(claim)
        self._changed.set()

    def lost(self, claim: Claim) -> None:
        reading = self._readings.get(claim.partition)
        if reading is not None and reading.claim is claim:
            del self._readings[claim.partition]
            self._changed.set()
        self._releases.lost(claim)

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
        await self._releases.close()
        await asyncio.gather(self._calls.close(DRAIN_S), self._gently.close(DRAIN_S))
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
        starts: dict[int, int] = {}
        for reading in tuple(self._readings.values()):
            if (position := await reading.start(self._deps.log, self._tick_s)) is not None:
                starts[reading.claim.partition] = position
        return starts

    def _take(self, reading: Reading, record: Record, *, live: bool) -> None:
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
            case Imported() | Allowed() | Forgotten():
                self._told_by_operator(reading, record, domain, callout)

    def _question(self, reading: Reading, record: Record, domain: str, callout: Callout) -> None:
        if self._flights.join(record.key, reading.claim, self._deps.clock.mono()):
            return
        known = self._known.recipient(record.key, callout.mailbox)
        now = self._deps.clock.wall()
        answer = known.answer
        due = learning.is_due(known, self._known.primary(domain), now, self._lifetimes)
        if callout.anew and not learning.asked_just_now(known, now, self._lifetimes):
            due = True
        if answer is not None and not due:
            self._storing.store(reading.claim, record.key, domain, [answer])
            return
        has_status, elsewhere = known.status is not None, not (known.deliverable or callout.anew)
        reason = self._primaries.refusal(domain, known=has_status, anew=callout.anew, elsewhere=elsewhere)
        reason = reason or self._calls.crowded(domain)
        if reason:
            tried = learning.learn(known, Unverifiable(reason, blocked=False), self._circumstances(domain))
            self._deps.metrics.callouts.labels(reason).inc()
            self._storing.store(reading.claim, record.key, domain, tried.records)
            return
        reading.open.add(record.offset)
        flight = Flight(reading.claim, reading.open, record.offset, self._deps.clock.mono())
        self._ask(flight, record.key, domain, known, anew=callout.anew)

    def _told_by_operator(self, reading: Reading, record: Record, domain: str, told: Told) -> None:
        if isinstance(told, Imported) and self._flights.imported(record.key):
            return  # who waits for the answer must not take this for it
        era = self._known.era(domain)
        if era is not None and told.era < era:
            return  # of the recipients of a domain that was removed since
        known, now = self._known.recipient(record.key, told.mailbox), self._deps.clock.wall()
        if era != told.era:  # our own table will see soon that it was added again
            known = learning.Known(told.mailbox, None, None)
        due = learning.is_due(known, self._known.primary(domain), now, self._lifetimes)
        keyed = orders.carried_out(told, record.key, known, now, due=due)
        if text := orders.sentence(told, known):
            self._storing.say(domain, told.mailbox, text)
        reading.open.add(record.offset)
        done = partial(reading.open.discard, record.offset)
        self._storing.put(reading.claim, domain, keyed, done, told.era)

    def _ask(
        self, flight: Flight, key: bytes, domain: str, known: learning.Known, attempts: int = 0, *,
        anew: bool = False,
    ) -> None:  # fmt: skip
        self._flights.begin(key, flight._replace(era=self._known.era(domain)))
        if not flight.gentle and self._primaries.is_to_be_probed(domain):
            self.probe(domain, gentle=False)  # first: where this one is accepted, others say less
        control = self._known.control(key) if known.deliverable else ""
        elsewhere = not (known.deliverable or anew or flight.offset == NOBODYS)
        calls = self._gently if flight.gentle else self._calls
        calls.ask(Question(known.mailbox, domain, key, control, attempts, anew, flight.gentle, elsewhere))

    # --- for the background ---

    def refusal(self, domain: str, *, known: bool) -> str:
        return self._primaries.refusal(domain, known=known)

    def flies(self, key: bytes) -> bool:
        return self._flights.flies(key, self._deps.clock.mono())

    def ask(self, key: bytes, domain: str, known: learning.Known, *, attempts: int = 0, gentle: bool) -> None:
        if (reading := self._reading_of(domain)) is not None:
            flight = Flight(reading.claim, reading.open, NOBODYS, self._deps.clock.mono(), gentle)
            self._ask(flight, key, domain, known, attempts)

    def write(self, key: bytes, domain: str, tried: RecipientTry) -> None:
        if (reading := self._reading_of(domain)) is not None:
            self._storing.store(reading.claim, key, domain, [tried])

    def claim_of(self, domain: str) -> Claim | None:
        reading = self._reading_of(domain)
        return None if reading is None else reading.claim

    def probe(self, domain: str, *, gentle: bool = True) -> None:
        """Ask for a mailbox that nobody has, where it may be asked for."""
        if self._primaries.may_be_probed(domain, gentle=gentle):
            nobody = f"{NOBODY}{secrets.token_hex(8)}@{domain}"
            calls = self._gently if gentle else self._calls
            calls.ask(Question(nobody, domain, b"", anew=True, gentle=gentle))

    def _reading_of(self, domain: str) -> Reading | None:
        reading = self._readings.get(topics.partition_of(domain, self._deps.partitions))
        return reading if reading is not None and reading.claim.held() else None

    # --- what sessions and deliveries say ---

    def refused(self, question: Question) -> str:
        if not question.key:
            return self._primaries.refusal(question.domain, known=True, anew=True)
        if question.gentle:
            flight = self._flights.get(question.key)
            overtaken = flight is None or not flight.gentle
            return "overtaken" if overtaken else self._primaries.refusal(question.domain, known=True)
        known = self._known.recipient(question.key, question.mailbox).status is not None
        anew, elsewhere = question.anew, question.elsewhere
        return self._primaries.refusal(question.domain, known=known, anew=anew, elsewhere=elsewhere)

    def told(self, question: Question, finding: Finding, control: bool | None) -> None:
        if not question.key:
            if (claim := self.claim_of(question.domain)) is not None:
                self._primaries.probed(claim, question.domain, finding)
            return
        if (flight := self._flights.end(question.key, gentle=question.gentle)) is None:
            return
        known = self._known.recipient(question.key, question.mailbox)
        if flight.era != self._known.era(question.domain):  # another owner's primary, perhaps
            finding, control = Unverifiable("overtaken", blocked=False), None
        if flight.imported:
            known = known._replace(tried=warming.imported(known, self._deps.clock.wall()))
        answered = not isinstance(finding, Unverifiable)
        finding = believable(finding, self._known.facts(question.domain))
        guess = not question.gentle
        learnt = self._learn(flight.claim, question.domain, known, finding, control, guess=guess)
        self._deps.metrics.callouts.labels(_outcome(finding, learnt)).inc()
        self._deps.metrics.callout_seconds.observe(self._deps.clock.mono() - flight.began)
        if answered:
            self._primaries.is_up(question.domain)
        after_s = learning.again_after(learnt, question.attempts, self._lifetimes)
        if after_s is not None and not (learnt.tried is not None and learnt.tried.imported):
            self._background.again(after_s, question.key, question.mailbox, question.attempts + 1)
        if control is False and not self._circumstances(question.domain).braked:
            # It is in doubt itself, and nobody's witness: not for a week, until it is asked about again.
            self._background.again(0.0, mailbox(question.control).key.encode(), question.control, 0)
        done = partial(flight.open.discard, flight.offset)
        self._storing.store(flight.claim, question.key, question.domain, learnt.records, done)

    def place(self, domain: str) -> Place | None:
        settings = self._known.settings(domain)
        return said(settings.primary_host, settings.tls_name) if settings else None

    def offered(self, domain: str, offered: Offered) -> None:
        self._primaries.offered(domain, offered)

    def failed(self, domain: str, finding: Unverifiable) -> None:
        self._primaries.failed(domain, finding)

    def beside(self, domain: str, *, answers: bool) -> None:
        self._primaries.beside(domain, answers=answers)

    def held(self, domain: str) -> Unverifiable | None:
        return self._primaries.held(domain)

    def _observed(self, reading: Reading, key: bytes, domain: str, seen: Observed) -> None:
        """A delivery heard something about a recipient."""
        try:
            finding = classify(seen.stage, parse_line(seen.reply))
        except ValueError:
            log.warning("an observation holds no reply", domain=domain)
            return
        settings = self._known.settings(domain)
        if isinstance(finding, Unverifiable) or settings is None or settings.era != seen.era:
            return
        if isinstance(finding, Undeliverable):
            self._primaries.denied(reading.claim, domain, late=seen.stage.upper() == Stage.DOT)
        known = self._known.recipient(key, seen.mailbox)
        learnt = self._learn(reading.claim, domain, known, finding, None, "delivery", guess=False)
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
        *,
        guess: bool,
    ) -> Learnt:
        """What it means for the recipient, and for what is known of the primary. `guess`: a client named the
        recipient."""
        circumstances = self._circumstances(domain)._replace(control=control, source=source)
        learnt = learning.learn(known, finding, circumstances, self._lifetimes)
        blocked, elsewhere = False, ""
        if isinstance(finding, Unverifiable):
            blocked, elsewhere = finding.blocked, finding.elsewhere
        outcome, had_status = _outcome(finding, learnt), known.status is not None
        key = mailbox(known.mailbox).key  # spelt otherwise it is not another recipient
        heard = Heard(key, outcome, blocked, learnt.pending, had_status, guess, finding.reply, elsewhere)
        self._primaries.heard(claim, domain, heard, finding)
        if learnt.status is not None:
            self._storing.say_recipient(domain, known.status, learnt.status)
        return learnt

    def _circumstances(self, domain: str) -> Circumstances:
        facts = self._known.facts(domain)
        braked = facts is not None and facts.braked
        now, certain = self._deps.clock.wall(), self._deps.events.clocks.agree
        return Circumstances(now, self._deps.config.host.name, braked=braked, certain=certain)

    # --- time ---

    async def _ticks(self, progress: Callable[[], None]) -> None:
        """Background questions that are due; positions. Without a claim, time passing is all the progress."""
        committed_at = self._deps.clock.mono()
        while True:
            await asyncio.sleep(self._tick_s)
            now = self._deps.clock.mono()
            if not self._readings:
                progress()
            self._background.tick()
            self._upkeep.tick()
            if now - committed_at >= COMMIT_S:
                await self._commit()
                committed_at = now

    async def _commit(self) -> None:
        for reading in tuple(self._readings.values()):
            await reading.commit(self._deps.log)


def _outcome(finding: Finding, learnt: Learnt) -> str:
    match finding:
        case Deliverable():
            return "deliverable"
        case Undeliverable():
            return "contradicted" if learnt.pending else "undeliverable"
        case Unverifiable(reason):
            return reason
