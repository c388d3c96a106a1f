"""What people ask for on `requests`, applied under the claim: flush a domain; retry, hold, release, delete,
bounce or redeliver mails; end a brake.

An event says what became of each mail, and a Request what came of it all, with counts; each has the request's
id.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

import structlog

from libs.log.contract import LogError, NotOwner, Record
from libs.mail.codec import Undecodable
from libs.mail.event import Event, EventType
from libs.mail.records import Delete, Flush, MailRequest, Notify, Redeliver, Retry, Unbrake
from libs.mail.states import bury
from services.deliver import brake as bounce_brake
from services.deliver.asked import DONE, Applied, Ended, GivenUp, Moved, Unchanged, concerns, meaning, perhaps
from services.deliver.carrier import Carriers
from services.deliver.destination import Flushed
from services.deliver.outgoing import Job
from services.deliver.partition import Partition
from services.deliver.settlement import Settlement

AT_ONCE = 50  # mails in hand of one request
_AGAIN_S, _ROUNDS = 0.1, 30  # mails that are being attempted are tried so often

log = structlog.get_logger()


class What(StrEnum):
    """What a request did to a mail; the names of its counts."""

    CHANGED = "changed"
    ALREADY = "already"
    UNCHANGED = "unchanged"
    BUSY = "busy"
    ANOTHER = "another"  # it is not about this mail


class Came(NamedTuple):
    """`why`: the sentence where nothing changed; `next_hop`: of a mail that did."""

    what: What
    why: str = ""
    next_hop: str = ""


class Requests:
    """Of one partition."""

    def __init__(self, partition: Partition, settlement: Settlement, carriers: Carriers) -> None:
        self._partition, self._settlement, self._carriers = partition, settlement, carriers

    def flush(self, request: Flush) -> None:
        """Attempt the mail of a domain now."""
        part = self._partition
        hurried = 0
        if request.domain in part.hops:
            hurried = part.index.hurry_all(request.domain)
            self._open([request.domain])
        waiting = part.index.count(request.domain).mails
        self._say(request, f"flush by {request.by}: {waiting} mails wait, {hurried} of them were deferred")

    def unbrake(self, request: Unbrake) -> None:
        """End the bounce brake of a domain: what its primary says of a mailbox is final. It is verify that
        answers this request, for the callout brake."""
        part = self._partition
        hop = part.hops.get(request.domain)
        if hop is not None and hop.primary:
            part.rebrake(hop, bounce_brake.released(hop.brake, part.clock.mono()))
            part.index.hurry_all(request.domain)
            part.stir(request.domain)

    async def notify(self, request: Notify) -> None:
        """Write to the contact of a domain. Raises NotOwner: the next owner does."""
        notices = self._settlement.notices
        if request.text:
            written = await notices.write_told(request)
        else:
            written = await notices.write_digest(request.domain, request.cause, request.day)
        what = What.CHANGED if written else What.UNCHANGED
        self._say(request, f"notice about {request.cause} of {request.day}", Counter({what: 1}))

    async def apply(self, record: Record, request: MailRequest, *, unseen: bool = False) -> None:
        """`record`: which `request` was read from; `unseen`: the queue is not read to its end. A request that
        is applied twice does no harm. Raises NotOwner: the next owner applies it."""
        if unseen:
            whom = f"mail {request.id} is not known yet" if request.id else "not all mail is known yet"
            self._say(request, f"{whom}: the queue is still being read", Counter({What.BUSY: 1}))
            return
        left = [request.id] if request.id else await self._selected(record, request)
        counts: Counter[What] = Counter()
        why, hops = "", set()
        for round_ in range(_ROUNDS):
            if round_:
                await asyncio.sleep(_AGAIN_S)
            came = await self._to_mails(record, request, left)
            hops |= {each.next_hop for each in came if each.what is What.CHANGED}
            left = [id_ for id_, each in zip(left, came, strict=True) if each.what is What.BUSY]
            counts += Counter(each.what for each in came if each.what is not What.BUSY)
            why = next((each.why for each in came if each.why), "")
            if not left:
                break
        counts[What.BUSY] = len(left)
        if isinstance(request, Retry | Redeliver):
            self._open({*hops, request.domain} if request.domain else hops)
        self._say(request, why if request.id and why else _summary(request, counts), counts)

    async def _selected(self, record: Record, request: MailRequest) -> list[str]:
        """The ids of the mails that it may be about, by what the index knows."""
        return [mail.id async for mail in self._partition.each() if perhaps(request, mail, record.time)]

    async def _to_mails(self, record: Record, request: MailRequest, ids: list[str]) -> list[Came]:
        """Do it to these mails, some at a time. Raises NotOwner."""
        came: list[Came] = []
        for at in range(0, len(ids), AT_ONCE):
            doing = [self._to_mail(record, request, id_) for id_ in ids[at : at + AT_ONCE]]
            for each in await asyncio.gather(*doing, return_exceptions=True):
                if isinstance(each, BaseException):
                    raise each
                came.append(each)
        return came

    async def _to_mail(self, record: Record, request: MailRequest, id_: str) -> Came:
        """Do it, with the mail out meanwhile. Raises NotOwner."""
        part = self._partition
        if part.index.get(id_) is None:
            return await self._unknown(request, id_)
        waiting = part.index.take_this(id_)
        if waiting is None:
            return Came(What.BUSY, f"mail {id_} is being attempted just now")
        try:
            if id_ in part.ledger.foreign:
                return Came(What.BUSY, f"what two owners wrote of mail {id_} is not merged yet")
            job = await part.read(waiting)
            if not concerns(request.which, job.mail, job.entry.progress):
                return Came(What.ANOTHER)
            if job.entry.progress.dsn_id and not isinstance(request, Delete):
                return Came(What.BUSY, f"the notice about mail {id_} is not written yet")
            return await self._do(record, request, job)
        except NotOwner:
            raise
        except (LogError, Undecodable) as error:
            return Came(What.BUSY, f"mail {id_} cannot be read now: {error}")
        except Exception:
            log.exception("a request for a mail failed by a bug", id=id_, request_id=request.request_id)
            return Came(What.BUSY, f"mail {id_}: a fault of ours")
        finally:
            self._carriers.back(id_)

    async def _unknown(self, request: MailRequest, id_: str) -> Came:
        """Not in the index: gone, or nothing that this version can read."""
        part = self._partition
        if not isinstance(request, Delete) or not part.ledger.unreadable(id_.encode()):
            return Came(What.UNCHANGED, f"there is no mail {id_} in the queue")
        await part.bury(id_.encode())
        part.deps.events.emit(
            Event(
                type=EventType.DELETED,
                id=id_,
                domain=request.domain,
                request_id=request.request_id,
                text=f"deleted unread by {request.by}",
            )
        )
        return Came(What.CHANGED)

    async def _do(self, record: Record, request: MailRequest, job: Job) -> Came:
        part, mail = self._partition, job.mail
        match meaning(request, mail, job.entry.progress, record.offset, part.clock.wall()):
            case Applied():
                return Came(What.CHANGED, next_hop=mail.next_hop)
            case Unchanged(why, already):
                return Came(What.ALREADY if already else What.UNCHANGED, f"mail {mail.id} {why}")
            case Moved(progress):
                job = await part.write(job, progress)
                if isinstance(request, Redeliver):
                    part.take_up(mail.id)
            case GivenUp(progress):
                await self._settlement.give_up(job, progress, request.request_id, request.by)
            case Ended():
                bury(job.entry.progress, len(mail.recipients), by_hand=True)
                await part.end(mail.id)
        part.changed.add(mail.next_hop)
        event, word = DONE[type(request)]
        if event is not EventType.BOUNCE:  # that one is said of each recipient
            part.emit(event, job, request_id=request.request_id, text=f"{word} by {request.by}")
        return Came(What.CHANGED, next_hop=mail.next_hop)

    def _open(self, names: Iterable[str]) -> None:
        """The gates of these next hops open as by a probe."""
        part = self._partition
        for name in names:
            if (hop := part.hops.get(name)) is not None:
                part.saw(hop, Flushed())
                part.stir(name)

    def _say(
        self, request: Flush | Notify | MailRequest, text: str, counts: Counter[What] | None = None
    ) -> None:
        numbers = {} if counts is None else {what.value: counts[what] for what in What if what in _SAID}
        self._partition.deps.events.emit(
            Event(
                type=EventType.REQUEST,
                domain=request.domain,
                request_id=request.request_id,
                text=text,
                counts=numbers,
            )
        )


_SAID = (What.CHANGED, What.ALREADY, What.UNCHANGED, What.BUSY)


def _summary(request: MailRequest, counts: Counter[What]) -> str:
    word = DONE[type(request)][1]
    text = f"{counts[What.CHANGED]} {'mail' if counts[What.CHANGED] == 1 else 'mails'} {word} by {request.by}"
    busy = counts[What.BUSY]
    return f"{text}; {busy} could not be: ask again" if busy else text
