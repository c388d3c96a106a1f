"""The one place that earns the 250: verdict, trace fields, `queue` record, Receipt.

The mail is ours from the instant its `queue` record is acknowledged. Without an acknowledgement the client
hears 451, and if the record may still appear, its tombstone is written: it was never promised (rule 2).
"""

import asyncio

import structlog

from libs.log.contract import LogError, NotStored
from libs.mail import forged, headers, replies
from libs.mail.codec import encode, new_entry, queue_headers
from libs.mail.event import Event, EventType
from libs.mail.records import Action, Mail, State, Verdict
from libs.mail.replies import Receipt
from libs.runtime.deps import Deps
from services.ingest import policy
from services.ingest.effects import Committed, Content, Refused
from services.ingest.facts import Envelope
from services.ingest.holds import RETURNS, Holds
from services.ingest.limits import COMMIT_S
from services.ingest.patience import Breakdowns
from services.ingest.session import Session
from services.ingest.verdicts import Verdicts

TOMBSTONES, TOMBSTONE_S = 20, 30.0  # how often a tombstone is tried, and how long each time

log = structlog.get_logger()


class Committer:
    """`tasks`: tombstones that must be awaited before this process ends."""

    def __init__(self, deps: Deps, verdicts: Verdicts, breakdowns: Breakdowns) -> None:
        self._deps, self._verdicts, self._breakdowns = deps, verdicts, breakdowns
        self._within = deps.config.timing.acknowledgement_s
        self._host = deps.config.host.name
        self._hosts = deps.config.installation.hosts
        self._holds = Holds()
        self.tasks: set[asyncio.Task[None]] = set()

    async def commit(
        self, session: Session, envelope: Envelope, content: Content, client: str
    ) -> Committed | Refused:
        """Not to be cancelled between the append and its acknowledgement."""
        clock, metrics = self._deps.clock, self._deps.metrics
        began = clock.mono()
        partition = content.ref.partition
        verdict = await self._verdicts.wait(
            content.id, partition, self._deps.config.timing.verdict_deadline_s
        )
        if (reply := policy.at_dot(verdict, hides=content.hides)) is not None:
            return Refused(reply)
        if max(content.arrived - content.began, clock.mono() - content.began_mono) > COMMIT_S - self._within:
            return Refused(replies.NOT_STORED)  # rule 5: the owner may truncate it before we are done
        mail = self._mail(session, envelope, content, client, verdict)
        loops = headers.returned(content.head, self._hosts, (to.mailbox for to in mail.recipients)) >= RETURNS
        if loops and not self._holds.one_more(mail.domain, clock.mono()):
            return Refused(replies.ROUTING_LOOP)
        try:
            await self._deps.log.append(
                "queue",
                partition,
                mail.id.encode(),
                encode(new_entry(mail, State.HELD if loops else State.QUEUED)),
                within=self._within,
                headers=queue_headers(content.ref),
            )
        except LogError as error:
            log.warning("mail not committed", id=mail.id, error=f"{type(error).__name__}: {error}")
            self._breakdowns.failed(partition, clock.mono())
            if not isinstance(error, NotStored):
                self._start_tombstone(mail.id, partition)
            return Refused(replies.NOT_STORED)
        receipt = Receipt(mail.id)
        metrics.accepted.inc(mail.domain)
        metrics.commit_seconds.observe(clock.mono() - began)
        self._deps.events.emit(_event(EventType.RECEPTION, mail, content.ref.size))
        if loops:
            metrics.loops_held.inc()
            log.error("a mail that was here three times is held", id=mail.id, domain=mail.domain)
            self._deps.events.emit(_event(EventType.HELD, mail, content.ref.size))
        return Committed(receipt)

    def _mail(
        self,
        session: Session,
        envelope: Envelope,
        content: Content,
        client: str,
        verdict: Verdict | None,
    ) -> Mail:
        recipients = envelope.recipients
        trace = headers.received(
            helo=session.helo,
            client=client,
            by=self._host,
            protocol=protocol(session, envelope),
            id=content.id,
            tls=session.tls,
            recipient=recipients[0].mailbox if len(recipients) == 1 else "",
            time=self._deps.clock.wall(),
        )
        verdict = verdict or self._unverified(content, envelope)
        return Mail(
            id=content.id,
            domain=envelope.domain,
            next_hop=envelope.next_hop,
            era=envelope.era,
            kind=envelope.kind,
            reverse_path=envelope.reverse_path,
            recipients=recipients,
            prepend=verdict.above + trace + verdict.fields,
            arrived=content.arrived,
            may_notify=verdict.may_notify,
            ret=envelope.ret,
            envid=envelope.envid,
            smtputf8=envelope.smtputf8,
            client=client,
            helo=session.helo,
            tls=session.tls,
            # What verify could not read is looked at here: nearly all mail is spared that.
            strip=forged.claims(content.head, *self._hosts) if verdict.unread else verdict.strip,
        )

    def _unverified(self, content: Content, envelope: Envelope) -> Verdict:
        """Verify did not answer: temperror, and nobody may be notified."""
        self._deps.metrics.unverdicted.inc()
        sender = (
            (("smtp.mailfrom", envelope.reverse_path.rpartition("@")[2]),) if envelope.reverse_path else ()
        )
        findings = (
            headers.Finding("spf", "temperror", sender),
            headers.Finding("dkim", "temperror"),
            headers.Finding("dmarc", "temperror"),
        )
        return Verdict(
            content.id,
            Action.ACCEPT,
            fields=headers.authentication_results(self._hosts[0], findings),
            may_notify=False,
            unread=True,
        )

    def _start_tombstone(self, id_: str, partition: int) -> None:
        task = asyncio.get_running_loop().create_task(self._tombstone(id_, partition))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _tombstone(self, id_: str, partition: int) -> None:
        """If no try succeeds, the mail may be handed over although the client heard 451: a duplicate, no
        loss."""
        for _ in range(TOMBSTONES):
            try:
                await self._deps.log.append("queue", partition, id_.encode(), None, within=TOMBSTONE_S)
            except LogError as error:
                log.warning("tombstone not stored", id=id_, error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(1)
            else:
                return


def protocol(session: Session, envelope: Envelope) -> str:
    """The `with` clause: RFC 3848, RFC 6531 section 4.3."""
    tls = "S" if session.tls else ""
    if envelope.smtputf8:
        return f"UTF8SMTP{tls}"
    return f"ESMTP{tls}" if session.extended or tls else "SMTP"


def _event(type_: EventType, mail: Mail, size: int) -> Event:
    return Event(
        type=type_,
        id=mail.id,
        domain=mail.domain,
        sender=mail.reverse_path,
        recipient=", ".join(recipient.mailbox for recipient in mail.recipients),
        size=size,
        peer_address=mail.client,
        tls=mail.tls,
        created_time=mail.arrived,
    )
