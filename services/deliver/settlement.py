"""What an attempt came to, written down: states, notices, tombstones, events. The slot is held until then."""

from collections.abc import Mapping

import structlog

from libs.mail.event import EventType, Response
from libs.mail.knowledge import Health
from libs.mail.records import Basis, Cause, Kind, Progress, State
from libs.mail.reply import Foreign
from libs.mail.speaks import Stage
from libs.mail.states import merged, move, open_recipients
from services.deliver import brake as bounce_brake
from services.deliver.attempt import Missing
from services.deliver.destination import accepted_within
from services.deliver.hop import Hop
from services.deliver.notices import Notices
from services.deliver.notify import Plan, delayed, plan, relayed
from services.deliver.outcome import (
    Done,
    Failed,
    Known,
    Outcome,
    Scope,
    Settled,
    Why,
    outcome,
    seen,
    settle,
)
from services.deliver.outgoing import Answers, Job
from services.deliver.partition import Partition
from services.deliver.schedule import noted

ACCEPTED_LATELY_S = 3600.0

log = structlog.get_logger()


class Peer:
    """Who took the mail, for events and notices. `dsn`: it tells the sender itself what was asked for (RFC
    3461)."""

    def __init__(
        self, host: str = "", address: str = "", source: str = "", tls: str = "", *, dsn: bool = False
    ) -> None:
        self.host, self.address, self.source, self.tls, self.dsn = host, address, source, tls, dsn


class Settlement:
    """Of the attempts of one partition."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self.notices = Notices(partition)

    def judge(self, hop: Hop, job: Job, got: Answers, *, best: bool) -> dict[int, Outcome]:
        """The outcome for each recipient; the next hop and its brake learn from it at once. `best`: a server
        of the best preference said it."""
        now = self._partition.clock.mono()
        known = Known(accepted_within(hop.destination, now, ACCEPTED_LATELY_S), job.mail.kind.ours)
        each = {index: outcome(stage, what, known) for index, (stage, what) in got.items()}
        self._partition.saw(hop, seen(job.mail, each))
        if job.mail.kind is Kind.RELAYED:
            self._teach(hop, job, got, each, now, best=best)
        metrics = self._partition.deps.metrics
        for what in each.values():
            if isinstance(what, Done):
                metrics.attempts.inc("done")
                if hop.primary:
                    metrics.delivered.inc(hop.name)
            else:
                metrics.attempts.inc(what.why.value)
        return each

    def _teach(
        self, hop: Hop, job: Job, got: Answers, each: Mapping[int, Outcome], now: float, *, best: bool
    ) -> None:
        """The brake counts confirmed recipients; verify hears what the best preference said of a mailbox."""
        brake = hop.brake
        for index, what in each.items():
            recipient = job.mail.recipients[index]
            stage, reply = got[index]
            if recipient.basis is Basis.DELIVERABLE and isinstance(what, Done):
                brake = bounce_brake.accepted(brake, recipient.mailbox, now)
            elif recipient.basis is Basis.DELIVERABLE and _no_mailbox(what):
                brake = bounce_brake.refused(brake, recipient.mailbox, now)
            spoke = isinstance(what, Done) or stage in (Stage.RCPT, Stage.DOT)
            if best and spoke and isinstance(reply, Foreign):
                self._observed(job.mail.domain, recipient.mailbox, stage, reply)
        self._partition.rebrake(hop, brake)

    def _observed(self, domain: str, mailbox: str, stage: str, reply: Foreign) -> None:
        if (settings := self._partition.settings(domain)) is not None:
            saw = self._partition.shared.observations.saw
            saw(domain, mailbox, stage, reply.line(), settings.era)

    async def attempted(
        self, hop: Hop, job: Job, each: Mapping[int, Outcome], jitter: float, by: Peer
    ) -> None:
        """Write down what an attempt came to. Raises NotOwner: the next owner goes on from the last record;
        LogError: the content could not be read for a notice; the mail has `dsn_id` set then."""
        part = self._partition
        mono, wall = part.clock.mono(), part.clock.wall()
        final = bounce_brake.final(hop.brake, mono)
        refusing = hop.destination.health is Health.REFUSING
        progress = self.current(job)
        settled = settle(job.mail, progress, each, wall, final=final, refusing=refusing, jitter=jitter)
        self._say(job, settled, by)
        known = part.index.get(job.mail.id)
        if settled.retried and known is not None and part.over_s(known, wall) is not None:
            part.tries[job.mail.id] = noted(part.tries.get(job.mail.id, ()), mono)
        after = settled.progress
        if after is not None and not by.dsn and (told := relayed(job.mail, settled.delivered)):
            due = after.next_attempt
            after = move(after, after.state, wall, next_attempt=due, relayed=(*after.relayed, *told))
        if after is None and progress != job.entry.progress:
            after = progress
        if after is not None:
            said = {index: done.reply for index, done in settled.delivered.items()}
            said |= {index: failed.reply for index, failed in settled.failed.items()}
            await self.proceed(job, after, said, by, accepted=bool(settled.delivered))

    def current(self, job: Job) -> Progress:
        """The mail's progress with what another owner wrote of it merged in: the caller writes it."""
        foreign = self._partition.ledger.foreign.pop(job.mail.id, None)
        own = job.entry.progress
        return own if foreign is None else merged(own, foreign)

    async def proceed(
        self,
        job: Job,
        progress: Progress,
        said: Mapping[int, Foreign],
        by: Peer,
        *,
        accepted: bool = False,
    ) -> None:
        """Take the mail on from `progress`: tell the sender of what became of it, park it, defer it or end
        it.

        `said`: the reply to each recipient that was taken or failed now. Raises NotOwner, LogError (content
        unread).
        """
        part, mail = self._partition, job.mail
        steps = plan(mail, progress, part.clock.wall())
        if steps.before is not None and steps.before != job.entry.progress:
            job = await part.write(job, steps.before, accepted=accepted)
        for notice in steps.notices:
            try:
                await self.notices.write(job, notice, said, by.host)
            except Missing:
                await self.content_lost(job)
                return
        self._say_end(job, steps, said, expired=progress.cause is Cause.EXPIRED)
        if steps.after is None:
            await part.end(mail.id, accepted=accepted)
            if accepted:
                part.handed_over(mail)
        elif steps.after != job.entry.progress:
            await part.write(job, steps.after, accepted=accepted)
        part.changed.add(mail.next_hop)

    async def resume(self, job: Job) -> None:
        """Go on from what the record says: a notice unwritten, or another owner's news not yet merged."""
        await self.proceed(job, self.current(job), {}, Peer())

    async def keep_back(self, job: Job) -> None:
        """The domain is somebody else's now, and his primary must not see it: a person says what becomes of
        it. Raises NotOwner."""
        log.error("a mail of a former owner of the domain is held", id=job.mail.id, domain=job.mail.domain)
        await self._partition.write(job, move(self.current(job), State.HELD, self._partition.clock.wall()))
        self._partition.emit(EventType.HELD, job, text="the domain has another owner now")
        self._partition.changed.add(job.mail.next_hop)

    async def content_lost(self, job: Job) -> None:
        """Never a bounce: whoever is woken by the alert may know where the content is."""
        part = self._partition
        log.error("the content of a mail is missing", id=job.mail.id, domain=job.mail.domain)
        part.deps.metrics.content_lost.inc()
        await part.write(job, move(self.current(job), State.CONTENT_LOST, part.clock.wall()))
        part.emit(EventType.CONTENT_LOST, job)
        part.changed.add(job.mail.next_hop)

    async def expire(self, job: Job) -> None:
        """The lifetime is over, with witnesses (rule 10): every open recipient failed."""
        progress = self.current(job)
        left = open_recipients(progress, len(job.mail.recipients))
        failed = move(
            progress,
            progress.state,
            self._partition.clock.wall(),
            next_attempt=progress.next_attempt,
            failed=(*progress.failed, *left),
            cause=Cause.EXPIRED,
        )
        for index in left:
            self._partition.deps.metrics.bounces.labels(Why.EXPIRED.value).inc()
            self._partition.emit(
                EventType.EXPIRATION,
                job,
                recipient=job.mail.recipients[index].mailbox,
                text=progress.last_reply,
            )
        await self.proceed(job, failed, {}, Peer())

    async def give_up(self, job: Job, progress: Progress, request_id: str, by: str) -> None:
        """A person gave the mail up; `progress` says so."""
        for index in open_recipients(job.entry.progress, len(job.mail.recipients)):
            self._partition.deps.metrics.bounces.labels(Why.GIVEN_UP.value).inc()
            self._partition.emit(
                EventType.BOUNCE,
                job,
                recipient=job.mail.recipients[index].mailbox,
                text=f"given up by {by}",
                request_id=request_id,
            )
        await self.proceed(job, progress, {}, Peer())

    async def delay(self, job: Job) -> None:
        """The mail has been here for a day: tell the sender, once. Raises NotOwner, LogError."""
        progress = self.current(job)
        notice = delayed(job.mail, progress)
        if notice is None:
            return
        try:
            await self.notices.write(job, notice, {}, "")
        except Missing:
            await self.content_lost(job)
            return
        told = move(
            progress,
            progress.state,
            self._partition.clock.wall(),
            next_attempt=progress.next_attempt,
            dsn_id=progress.dsn_id,
            delay_told=True,
        )
        await self._partition.write(job, told)

    # --- what is said about it ---

    def _say(self, job: Job, settled: Settled, by: Peer) -> None:
        part = self._partition
        attempts = job.entry.progress.attempts + 1
        peer = {"peer_address": by.address, "source_address": by.source, "tls": by.tls}
        for index, done in settled.delivered.items():
            part.emit(
                EventType.DELIVERY,
                job,
                recipient=job.mail.recipients[index].mailbox,
                response=_response(done.reply),
                num_attempts=attempts,
                **peer,
            )
        for index, retry in settled.retried.items():
            part.emit(
                EventType.TRANSIENT_FAILURE,
                job,
                recipient=job.mail.recipients[index].mailbox,
                response=_response(retry.reply) if retry.reply else None,
                text=retry.why.value if retry.reply else f"{retry.why.value}: {retry.text}",
                num_attempts=attempts,
                **peer,
            )
        for index, failed in settled.failed.items():
            part.deps.metrics.bounces.labels(failed.why.value).inc()
            part.emit(
                EventType.BOUNCE,
                job,
                recipient=job.mail.recipients[index].mailbox,
                response=_response(failed.reply),
                text=failed.why.value,
                num_attempts=attempts,
                **peer,
            )

    def _say_end(self, job: Job, steps: Plan, said: Mapping[int, Foreign], *, expired: bool) -> None:
        part, telling = self._partition, steps.telling
        for index in telling.dropped:
            part.deps.metrics.dsns_suppressed.labels("null reverse-path").inc()
            part.emit(EventType.DROPPED, job, recipient=job.mail.recipients[index].mailbox)
        for _ in telling.silent:
            part.deps.metrics.dsns_suppressed.labels("notify").inc()
        if steps.after is not None and steps.after.state is State.PARKED:
            for index in telling.parked:
                part.deps.metrics.dsns_suppressed.labels("unauthenticated").inc()
                part.emit(
                    EventType.PARKED,
                    job,
                    recipient=job.mail.recipients[index].mailbox,
                    response=_response(said[index]) if index in said else None,
                    text="expired" if expired else "",
                )
            if job.mail.kind is Kind.OPERATOR:
                log.error("mail to the operators cannot be delivered", id=job.mail.id)


def _no_mailbox(what: Outcome) -> bool:
    return isinstance(what, Failed) and what.why is Why.NO_MAILBOX


def _response(reply: Foreign) -> Response:
    return Response(reply.code, reply.enhanced, reply.text)


def no_route(job: Job, why: str) -> dict[int, Outcome]:
    """The outcomes for a mail of our own whose next hop takes no mail at all (NXDOMAIN, null MX)."""
    left = open_recipients(job.entry.progress, len(job.mail.recipients))
    reply = Foreign(550, "5.1.2", why)
    return {index: Failed(Scope.MAIL, Why.REFUSED, reply) for index in left}
