"""Writes DSNs: content and queue record, on the partition of the mail that caused them."""

from collections.abc import Mapping

from libs.mail.codec import encode, new_entry, queue_headers
from libs.mail.event import EventType
from libs.mail.records import Basis, Cause, ContentRef, Kind, Mail, Recipient
from libs.mail.reply import Foreign, parse_line
from services.deliver import dsn
from services.deliver.attempt import read_header
from services.deliver.ledger import OWNER
from services.deliver.notify import Action, Notice, sender_domain
from services.deliver.outgoing import Job
from services.deliver.partition import Partition

# RFC 3463: delivery time expired; other mail system status; no answer from host; other or undefined.
EXPIRED, GIVEN_UP, NO_ANSWER, UNDEFINED = "4.4.7", "5.3.0", "4.4.1", "5.0.0"
_EVENT = {Action.DELAYED: EventType.DELAYED, Action.RELAYED: EventType.RELAYED}


class Notices:
    """Of one partition."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    async def write(self, job: Job, notice: Notice, said: Mapping[int, Foreign], host: str) -> None:
        """The DSN `notice` about the mail of `job`: written twice it is one mail. `said`: what `host` said of
        each recipient just now. Raises NotOwner, Missing, LogError."""
        part, mail = self._partition, job.mail
        us = part.deps.config.host.name
        settings = part.settings(mail.domain)
        language = settings.language if settings else part.deps.config.defaults.language
        until = part.until(mail.domain, mail.arrived)
        written = dsn.Written(notice.id, us, part.clock.wall(), f"={notice.id}=", until, language)
        header = await read_header(part.deps.log, job)
        cause = job.entry.progress.cause
        reports = [
            report(index, notice.action, cause, said.get(index), job, host) for index in notice.recipients
        ]
        await self._commit(job, notice, dsn.build(mail, notice.action, reports, header, written, cause))
        part.deps.metrics.dsns.labels(notice.action.value).inc()
        if notice.action in _EVENT:
            for index in notice.recipients:
                part.emit(
                    _EVENT[notice.action], job, recipient=mail.recipients[index].mailbox, text=notice.id
                )

    async def _commit(self, job: Job, notice: Notice, content: bytes) -> None:
        part, mail, key = self._partition, job.mail, notice.id.encode()
        stored = await part.append("content", key, content, (("index", b"0"), ("by", b"deliver")))
        about = Mail(
            id=notice.id,
            domain=mail.domain,
            next_hop=sender_domain(mail),
            kind=Kind.DSN,
            reverse_path="",
            recipients=(Recipient(mail.reverse_path, Basis.DSN, ("NEVER",)),),
            prepend=b"",
            arrived=stored.time,
            may_notify=False,
            smtputf8=not content.isascii() and not mail.reverse_path.isascii(),
        )
        ref = ContentRef(part.number, (stored.offset,), len(content), not content.isascii())
        headers = (*queue_headers(ref), (OWNER, part.ledger.mark))
        await part.append("queue", key, encode(new_entry(about)), headers)


def report(
    index: int, action: Action, cause: Cause, reply: Foreign | None, job: Job, host: str
) -> dsn.Report:
    """What the DSN says of one recipient. `reply`: what was said of it just now by `host`; None: the mail's
    last reply has to do."""
    last, now = job.entry.progress.last_reply, reply is not None
    if reply is None and _is_reply(last):
        reply = parse_line(last)
    line, enhanced = ("", "") if reply is None else (reply.line(), reply.enhanced)
    host = host if now else ""
    if action is Action.RELAYED:
        status = enhanced if enhanced.startswith("2.") else "2.0.0"
        return dsn.Report(index, status, line if now else "", host, now)
    if action is Action.DELAYED:
        return dsn.Report(index, enhanced if enhanced.startswith("4.") else NO_ANSWER, line)
    status = {Cause.EXPIRED: EXPIRED, Cause.GIVEN_UP: GIVEN_UP, Cause.REFUSED: enhanced or UNDEFINED}[cause]
    return dsn.Report(index, status, line, host, now)


def _is_reply(line: str) -> bool:
    return line[:3].isdigit() and line[:1] in "245"
