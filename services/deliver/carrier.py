"""Carriers: a connection to a next hop that takes one waiting mail after the other, and probes.

A carrier connects first and takes a mail then, so a next hop that is away costs its mail nothing. The outcome
of a mail is written down beside the carrier, which goes on with the next one; the slot is given back when the
outcome is acknowledged (rule 11).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

import structlog

from libs.log.contract import LogError, NotOwner
from libs.mail.codec import Undecodable
from libs.mail.states import open_recipients
from libs.smtp.route import Found
from services.deliver import attempt
from services.deliver.attempt import Kept, Missing, Stale, Unreachable, Withheld
from services.deliver.destination import Send, Unseen, permit, spaced
from services.deliver.hop import Hop
from services.deliver.outcome import Outcome
from services.deliver.outgoing import Job
from services.deliver.partition import Partition
from services.deliver.settlement import Peer, Settlement, no_route
from services.deliver.waiting import Waiting

_IDLE_S = 5.0  # a connection waits so long for more mail
TURN = 10  # mails on a connection to an address that others wait for: then it is their turn
_UNREAD_S = 30.0  # a mail whose record or content cannot be read now is left alone so long
_BUG_S = 900.0  # likewise after a bug of ours

log = structlog.get_logger()


class Carriers:
    """All connections and outcomes in hand of one partition."""

    def __init__(self, partition: Partition, settlement: Settlement) -> None:
        self._partition, self._settlement = partition, settlement
        self._tasks: set[asyncio.Task[None]] = set()  # carriers and probes
        self._busy: set[asyncio.Task[None]] = set()  # carriers that have a mail
        self.finishing: set[asyncio.Task[None]] = set()  # carriers whose final dot may have been sent
        self._outcomes: set[asyncio.Task[None]] = set()

    # --- begin and end ---

    def carry(self, hop: Hop, connections: int, *, single: bool = False) -> None:
        """Have up to `connections` carriers for `hop`, one of them more with each mail that is ready."""
        if hop.idle:
            hop.more.set()
            return
        waiting = self._partition.index.count(hop.name).mails
        while len(hop.carriers) < min(connections, waiting):
            task = asyncio.create_task(self._carry(hop, single=single))
            hop.carriers.add(task)
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._ended(hop, done))

    def _ended(self, hop: Hop, task: "asyncio.Task[None]") -> None:
        hop.carriers.discard(task)
        self._tasks.discard(task)
        self._busy.discard(task)
        self.finishing.discard(task)
        self._partition.stir(hop.name)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a carrier ended by a bug", hop=hop.name, exc_info=error)
        if hop.destination.probing and hop.probe is None:
            self._partition.saw(hop, Unseen())  # a single attempt that had no mail

    def probe(self, hop: Hop) -> None:
        """Ask `hop` whether it is up."""
        task = asyncio.create_task(self._probe(hop))
        hop.probe = task
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._probed(hop, done))

    def _probed(self, hop: Hop, task: "asyncio.Task[None]") -> None:
        hop.probe = None
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a probe ended by a bug", hop=hop.name, exc_info=error)
            self._partition.saw(hop, Unseen())

    def cut(self) -> None:
        """The claim is lost: end what did not reach its final dot."""
        for task in self._tasks - self.finishing:
            task.cancel()

    async def drained(self) -> None:
        """Returns when all that is in hand has ended and is written down; idle connections leave at once."""
        for task in self._tasks - self._busy:
            task.cancel()
        await self.ended()

    async def ended(self) -> None:
        while pending := self._tasks | self._outcomes:
            await asyncio.wait(pending)

    # --- one connection ---

    async def _carry(self, hop: Hop, *, single: bool) -> None:
        part = self._partition
        try:
            kept = await attempt.connect(part, hop)
        except Unreachable as unreachable:
            part.saw(hop, unreachable.seen)
            if not hop.primary and unreachable.found in (Found.NXDOMAIN, Found.NULL_MX):
                await self._give_up(hop, unreachable.found)
            return
        try:
            while (mail := await self._next(hop, kept, single=single)) is not None:
                fresh = await self._one(hop, kept, mail)
                if single or not fresh or not kept.connection.usable or not self._may_go_on(hop):
                    break
                if kept.used >= TURN and part.shared.addresses.wanted(kept.connection.target.address):
                    break
        finally:
            await kept.quit()

    def _may_go_on(self, hop: Hop) -> bool:
        """Is this connection still within what the next hop may have?"""
        part = self._partition
        allowed = permit(hop.destination, part.gates(hop), part.clock.mono(), part.pace(hop))
        return isinstance(allowed, Send) and not allowed.single and len(hop.carriers) <= allowed.connections

    async def _next(self, hop: Hop, kept: Kept, *, single: bool) -> Waiting | None:
        """The next mail, with a slot taken for it; None when there is none for a while."""
        part = self._partition
        while not part.draining and part.claim.held() and await kept.current(part, hop):
            pause_s = hop.next_mail - part.clock.mono()
            if pause_s > _IDLE_S:
                return None
            if pause_s > 0:
                await asyncio.sleep(pause_s)
                continue
            await part.shared.slots.acquire()
            part.deps.metrics.slots_used.inc()
            mail = self._take(hop)
            if mail is not None:
                if part.index.next_due(hop.name) is not None:
                    part.stir(hop.name)  # more is ready: another carrier may come
                return mail
            self._free_slot()
            if hop.next_mail > part.clock.mono():
                continue
            if single or part.draining or part.shared.addresses.wanted(kept.connection.target.address):
                return None
            hop.idle += 1
            hop.more.clear()
            try:
                async with asyncio.timeout(_IDLE_S):
                    await hop.more.wait()
            except TimeoutError:
                return None
            finally:
                hop.idle -= 1
            if not kept.connection.usable or not self._may_go_on(hop):
                return None
        return None

    def _take(self, hop: Hop) -> Waiting | None:
        """The mail whose turn it is, where the rate of its domain allows one more."""
        part = self._partition
        now = part.clock.mono()
        if now < hop.next_mail:
            return None
        mail = part.index.take(hop.name, part.clock.wall(), slow=hop.slow_out == 0)
        if mail is not None:
            settings = part.settings(hop.name)
            hop.next_mail = spaced(now, settings.max_rate if settings else 0)
        return mail

    async def _one(self, hop: Hop, kept: Kept, mail: Waiting) -> bool:
        """One mail on this connection; False: the connection is of no more use."""
        part, slow = self._partition, mail.due > 0
        self._busy.add(_this())
        hop.slow_out += slow
        again: float | None = None
        handed_on = False
        try:
            job = await part.read(mail)
            if part.of_former_owner(job.mail):
                await self._settlement.keep_back(job)
                return True
            open_ = open_recipients(job.entry.progress, len(job.mail.recipients))
            if job.entry.progress.dsn_id or not open_:
                self._settle(hop, job, None, Peer(), slow=slow)
                handed_on = True
                return True
            got = await attempt.transact(kept, part, job, open_, self._before_dot)
            to = kept.connection
            dsn = "DSN" in to.capabilities
            by = Peer(to.target.host, to.target.address, to.source_address, to.tls, dsn=dsn)
            self._settle(hop, job, self._settlement.judge(hop, job, got, best=kept.best), by, slow=slow)
            handed_on = True
        except (Stale, Withheld):
            return False
        except Missing:
            handed_on = await self._missing(hop, mail, slow=slow)
            return not handed_on
        except (LogError, Undecodable) as error:
            log.warning("a mail cannot be read now", id=mail.id, error=str(error))
            again = part.clock.wall() + _UNREAD_S
            return kept.connection.usable
        except Exception:
            log.exception("an attempt failed by a bug", id=mail.id)
            again = part.clock.wall() + _BUG_S
            return False
        finally:
            self._busy.discard(_this())
            self.finishing.discard(_this())
            if not handed_on:
                hop.slow_out -= slow
                self.back(mail.id, again)
                self._free_slot()
        return True

    def _before_dot(self) -> bool:
        """May the final dot be sent? From then on the carrier is not cut."""
        held = self._partition.claim.held()
        if held:
            self.finishing.add(_this())
        return held

    async def hold(self, id_: str, work: Callable[[Waiting, Job], Awaitable[None]]) -> bool:
        """Do `work` with a mail as its newest record has it; it is out meanwhile, so that nobody attempts or
        changes it. Was that done? Not where it is out already, gone, or cannot be read now; nor where another
        owner wrote of it: that is merged instead, and what the mail is then is for the next look. Raises
        NotOwner; a bug about one mail ends nothing else."""
        part = self._partition
        mail = part.index.take_this(id_)
        if mail is None:
            return False
        try:
            job = await part.read(mail)
            if id_ in part.ledger.foreign:
                await self._settlement.resume(job)
                return False
            await work(mail, job)
        except NotOwner:
            raise
        except (LogError, Undecodable) as error:
            log.warning("a mail cannot be read or written now", id=id_, error=str(error))
            return False
        except Exception:
            log.exception("a mail is left as it is by a bug", id=id_)
            return False
        finally:
            self.back(id_)
        return True

    def back(self, id_: str, due: float | None = None) -> None:
        """A mail that was out waits again."""
        part = self._partition
        part.index.again(id_, due)
        mail = part.index.get(id_)
        if mail is not None:
            part.stir(mail.next_hop)

    def _free_slot(self) -> None:
        self._partition.shared.slots.release()
        self._partition.deps.metrics.slots_used.dec()

    # --- outcomes ---

    def _settle(
        self, hop: Hop, job: Job, each: Mapping[int, Outcome] | None, by: Peer, *, slow: bool
    ) -> None:
        """Write the outcome down beside the carrier. `each` None: go on with what the record says."""
        task = asyncio.create_task(self._written(hop, job, each, by, slow=slow))
        self._outcomes.add(task)
        task.add_done_callback(self._outcomes.discard)

    async def _written(
        self, hop: Hop, job: Job, each: Mapping[int, Outcome] | None, by: Peer, *, slow: bool
    ) -> None:
        part, again = self._partition, None
        try:
            if each is None:
                await self._settlement.proceed(job, self._settlement.current(job), {}, by)
            else:
                await self._settlement.attempted(hop, job, each, random.uniform(-1, 1), by)
        except NotOwner:
            log.info("an outcome is left to the next owner", id=job.mail.id)
        except LogError as error:
            log.warning("an outcome cannot be written down yet", id=job.mail.id, error=str(error))
            again = part.clock.wall() + _UNREAD_S
        except Exception:
            log.exception("an outcome was not written down by a bug", id=job.mail.id)
            again = part.clock.wall() + _BUG_S
        finally:
            hop.slow_out -= slow
            self.back(job.mail.id, again)
            self._free_slot()

    async def _missing(self, hop: Hop, mail: Waiting, *, slow: bool) -> bool:
        """The content is gone: read the newest record first, it may refer to another place (rule 6)."""
        part = self._partition
        known = part.index.get(mail.id)
        if known is None or known.offset != mail.offset:
            return False
        try:
            job = await part.read(known)
        except (LogError, Undecodable) as error:
            log.warning("a mail cannot be read now", id=mail.id, error=str(error))
            return False

        async def lose() -> None:
            try:
                await self._settlement.content_lost(job)
            except NotOwner:
                log.info("an outcome is left to the next owner", id=mail.id)
            finally:
                hop.slow_out -= slow
                self.back(mail.id)
                self._free_slot()

        task = asyncio.create_task(lose())
        self._outcomes.add(task)
        task.add_done_callback(self._outcomes.discard)
        return True

    async def _give_up(self, hop: Hop, found: Found) -> None:
        """Mail of our own to a domain that takes none ends; others wait (DNS alone never costs a mail)."""
        part = self._partition
        kept_back = []
        while (mail := part.index.take(hop.name, part.clock.wall(), slow=False)) is not None:
            if not mail.kind.ours:
                kept_back.append(mail.id)
                continue
            await part.shared.slots.acquire()
            part.deps.metrics.slots_used.inc()
            try:
                job = await part.read(mail)
            except (LogError, Undecodable) as error:
                log.warning("a mail cannot be read now", id=mail.id, error=str(error))
                self.back(mail.id, part.clock.wall() + _UNREAD_S)
                self._free_slot()
            else:
                self._settle(hop, job, no_route(job, str(found)), Peer(), slow=False)
        for id_ in kept_back:
            self.back(id_)

    # --- probes ---

    async def _probe(self, hop: Hop) -> None:
        part = self._partition
        seen = await attempt.probe(part, hop, await self._witness(hop))
        part.deps.metrics.probes.labels(type(seen).__name__.lower()).inc()
        part.saw(hop, seen)

    async def _witness(self, hop: Hop) -> str:
        """A recipient of the oldest waiting mail; postmaster of the domain where none waits."""
        oldest = self._partition.index.oldest(hop.name)
        if oldest is not None:
            try:
                job = await self._partition.read(oldest)
            except (LogError, Undecodable):
                return f"postmaster@{hop.name}"
            ordered = sorted(job.mail.recipients, key=lambda recipient: recipient.basis.value)
            return ordered[0].mailbox
        return f"postmaster@{hop.name}"


def _this() -> "asyncio.Task[None]":
    task = asyncio.current_task()
    assert task is not None
    return task
