"""Writes notices, DSNs and those to a domain's contact: content and queue record, on the partition of the
mail that caused them."""

import asyncio
from collections.abc import Mapping

import structlog

from libs.log.contract import Gone, LogError, NotOwner, Stored, Superseded, Unavailable
from libs.mail.codec import Undecodable, encode, new_entry, queue_headers
from libs.mail.event import Event, EventType
from libs.mail.notice import is_url, notice_id
from libs.mail.records import Basis, Cause, ContentRef, Kind, Mail, Notify, Recipient, State
from libs.mail.reply import Foreign, parse_line
from services.deliver import digest, dsn
from services.deliver.attempt import read_header
from services.deliver.ledger import OWNER
from services.deliver.notify import Action, Notice
from services.deliver.outgoing import Job
from services.deliver.partition import Partition
from services.deliver.waiting import Waiting

# RFC 3463: delivery time expired; other mail system status; no answer from host; other or undefined.
EXPIRED, GIVEN_UP, NO_ANSWER, UNDEFINED = "4.4.7", "5.3.0", "4.4.1", "5.0.0"
COMMIT_S = 3600.0
READ_S, AGAIN_S = 60.0, 0.5  # a log that is away is waited for so long, and tried so often
_EVENT = {Action.DELAYED: EventType.DELAYED, Action.RELAYED: EventType.RELAYED}

log = structlog.get_logger()


class Notices:
    """Of one partition."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._written: set[str] = set()  # under this claim: the fold sees what we wrote a little later

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
        content = dsn.build(mail, notice.action, reports, header, written, cause)
        await self._commit(notice.id, mail.domain, Kind.DSN, mail.reverse_path, content)
        part.deps.metrics.dsns.labels(notice.action.value).inc()
        if notice.action in _EVENT:
            for index in notice.recipients:
                part.emit(
                    _EVENT[notice.action], job, recipient=mail.recipients[index].mailbox, text=notice.id
                )

    async def write_told(self, notice: Notify) -> bool:
        """A notice whose text is given; False where it is for nobody's mailbox, or was written. Raises
        NotOwner."""
        part, id_ = self._partition, notice_id(notice.domain, notice.cause, notice.key)
        settings = part.settings(notice.domain)
        if settings is None or not notice.to or is_url(notice.to) or self._was_written(id_):
            return False
        written = dsn.Written(id_, part.deps.config.host.name, part.clock.wall(), "")
        content = digest.letter(notice.to, notice.subject, notice.text.split("\n"), written)
        await self._send(id_, notice.domain, notice.to, content, f"{notice.cause} {notice.key}")
        return True

    async def write_digest(self, domain: str, cause: str, day: str) -> bool:
        """The notice to the contact of `domain` about what is parked; False where there is nobody to write
        to, or nothing to say, or it was written. Raises NotOwner."""
        part = self._partition
        settings, id_ = part.settings(domain), notice_id(domain, cause, day)
        if settings is None or not settings.contact or is_url(settings.contact):
            return False
        parked = [each for each in part.index.still() if (each.state, each.domain) == (State.PARKED, domain)]
        if not parked:
            return False
        if self._was_written(id_):
            return False
        parked.sort(key=lambda mail: -mail.arrived)
        limit = part.clock.mono() + READ_S
        found = [await self._parked(mail, settings.parked_s, limit) for mail in parked[: digest.MOST]]
        listed = [each for each in found if each is not None]
        host, now = part.deps.config.host.name, part.clock.wall()
        written = dsn.Written(id_, host, now, "", language=settings.language)
        content = digest.build(domain, settings.contact, listed, len(parked), written)
        await self._send(id_, domain, settings.contact, content, f"{cause} {day}")
        return True

    def _was_written(self, id_: str) -> bool:
        return id_ in self._written or self._partition.ledger.met(id_)

    async def _send(self, id_: str, domain: str, to: str, content: bytes, about: str) -> None:
        part = self._partition
        await self._commit(id_, domain, Kind.NOTICE, to, content)
        self._written.add(id_)
        part.deps.metrics.notices.labels(about.partition(" ")[0], "mail").inc()
        part.deps.events.emit(Event(type=EventType.NOTICE, id=id_, domain=domain, recipient=to, text=about))

    async def _parked(self, waiting: Waiting, kept_s: float, limit: float) -> digest.Parked | None:
        """None: it was just taken up again or deleted; or nobody can read it, until `limit` (monotonic
        seconds) where the log is away, and it is counted only."""
        try:
            job = await self._read(waiting, limit)
        except (Gone, Superseded):
            return None
        except (LogError, Undecodable) as error:
            log.warning("a parked mail cannot be read for a notice", id=waiting.id, error=str(error))
            return None
        mail, progress = job.mail, job.entry.progress
        names = tuple(mail.recipients[index].mailbox for index in progress.failed)
        until = progress.since + kept_s
        return digest.Parked(
            mail.id, mail.reverse_path, names, mail.arrived, until, progress.cause, progress.last_reply
        )

    async def _read(self, waiting: Waiting, limit: float) -> Job:
        """Nobody would ask for this notice again: a log that is away is waited for. Raises LogError,
        Undecodable, NotOwner."""
        part = self._partition
        while True:
            try:
                return await part.read(waiting)
            except Unavailable:
                if part.clock.mono() >= limit:
                    raise
                if not part.claim.held():
                    raise NotOwner(f"partition {part.number}") from None
                await asyncio.sleep(AGAIN_S)

    async def _commit(self, id_: str, domain: str, kind: Kind, to: str, content: bytes) -> None:
        """A mail of our own to `to`: it is tried like any other, and nobody is told when it fails. Content
        that no record refers to is deleted after two hours (rule 5): no record is written long after it."""
        part, key = self._partition, id_.encode()
        while True:
            stored = await part.append("content", key, content, (("index", b"0"), ("by", b"deliver")))
            try:
                async with asyncio.timeout(COMMIT_S):
                    return await self._commit_at(stored, id_, domain, kind, to, content)
            except TimeoutError:
                log.warning("the content of a notice is too old, written again", id=id_)

    async def _commit_at(
        self, stored: Stored, id_: str, domain: str, kind: Kind, to: str, content: bytes
    ) -> None:
        part, key = self._partition, id_.encode()
        mail = Mail(
            id=id_,
            domain=domain,
            next_hop=to.rpartition("@")[2],
            kind=kind,
            reverse_path="",
            recipients=(Recipient(to, Basis.DSN, ("NEVER",)),),
            prepend=b"",
            arrived=stored.time,
            may_notify=False,
            smtputf8=not content.isascii() and not to.isascii(),
        )
        ref = ContentRef(part.number, (stored.offset,), len(content), not content.isascii())
        headers = (*queue_headers(ref), (OWNER, part.ledger.mark))
        await part.append("queue", key, encode(new_entry(mail)), headers)


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
