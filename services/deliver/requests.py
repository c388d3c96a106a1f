"""What people ask for on `requests`, applied under the claim: flush a domain, release or delete a mail.

An event with the request's id says what came of it: Released or Deleted, or a Request that says why not.
"""

from libs.log.contract import LogError, NotOwner, Record
from libs.mail.codec import Undecodable
from libs.mail.event import Event, EventType
from libs.mail.records import Delete, Flush, Release, State
from libs.mail.states import bury, move
from services.deliver.carrier import Carriers
from services.deliver.destination import Flushed
from services.deliver.outgoing import Job
from services.deliver.partition import Partition


class Requests:
    """Of one partition."""

    def __init__(self, partition: Partition, carriers: Carriers) -> None:
        self._partition, self._carriers = partition, carriers

    async def apply(self, record: Record, request: Flush | Release | Delete, *, unseen: bool = False) -> None:
        """`record`: which `request` was read from; `unseen`: the queue is not read to its end. A request that
        is applied twice does no harm. Raises NotOwner: the next owner applies it."""
        if isinstance(request, Flush):
            self._flush(request)
        elif unseen and self._partition.index.get(request.id) is None:
            self._say(request, f"mail {request.id} is not known yet: the queue is still being read")
        elif (why := await self._to_mail(record, request)) is not None:
            self._say(request, why)

    def _flush(self, request: Flush) -> None:
        part = self._partition
        hop = part.hops.get(request.domain)
        hurried = 0
        if hop is not None:
            part.saw(hop, Flushed())
            hurried = part.index.hurry_all(request.domain)
            part.stir(request.domain)
        waiting = part.index.count(request.domain).mails
        self._say(request, f"flush by {request.by}: {waiting} mails wait, {hurried} of them were deferred")

    async def _to_mail(self, record: Record, request: Release | Delete) -> str | None:
        """Do it, with the mail out meanwhile; or why it cannot be done."""
        part = self._partition
        if part.index.get(request.id) is None:
            return f"there is no mail {request.id} in the queue"
        waiting = part.index.take_this(request.id)
        if waiting is None:
            return f"mail {request.id} is being attempted just now"
        try:
            if request.id in part.ledger.foreign:
                return f"what two owners wrote of mail {request.id} is not merged yet"
            job = await part.read(waiting)
            if isinstance(request, Release):
                return await self._release(job, request, record.offset)
            await self._delete(job, request)
        except NotOwner:
            raise
        except (LogError, Undecodable) as error:
            return f"mail {request.id} cannot be read now: {error}"
        else:
            return None
        finally:
            self._carriers.back(request.id)

    async def _release(self, job: Job, request: Release, offset: int) -> str | None:
        """`offset`: of the request; the state says that it was written on its word (rule 3)."""
        part, progress = self._partition, job.entry.progress
        if progress.state is not State.HELD and progress.request != offset:
            return f"mail {request.id} is not held: it is {progress.state}"
        if progress.state is State.HELD:
            now = part.clock.wall()
            job = await part.write(job, move(progress, State.QUEUED, now, request=offset))
        self._done(EventType.RELEASED, job, request, "released")
        return None

    async def _delete(self, job: Job, request: Delete) -> None:
        bury(job.entry.progress, len(job.mail.recipients), by_hand=True)
        await self._partition.end(job.mail.id)
        self._done(EventType.DELETED, job, request, "deleted")

    def _done(self, event: EventType, job: Job, request: Release | Delete, what: str) -> None:
        part = self._partition
        part.emit(event, job, request_id=request.request_id, text=f"{what} by {request.by}")
        part.changed.add(job.mail.next_hop)

    def _say(self, request: Flush | Release | Delete, text: str) -> None:
        self._partition.deps.events.emit(
            Event(type=EventType.REQUEST, domain=request.domain, request_id=request.request_id, text=text)
        )
