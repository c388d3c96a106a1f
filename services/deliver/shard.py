"""One partition under one claim: its queue and requests followed, its next hops served.

Created when a claim is gained, dropped when it is lost; nothing of it outlives the claim but attempts whose
final dot was sent. Each pass looks at the next hops that were stirred, asks destination.py what is permitted,
and starts carriers (a connection that takes one mail after the other) or a probe.
"""

import asyncio
import heapq
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

import structlog

from libs.log.contract import BEGIN, Batch, Claim, LogError, NotOwner, Record, Unavailable
from libs.log.standing import standing
from libs.mail.codec import Undecodable, decode, decode_request
from libs.mail.event import Event, EventType
from libs.mail.knowledge import Callouts, Health, PrimaryState
from libs.mail.records import Flush, Notify, Posted, Unbrake
from services.deliver.carrier import Carriers
from services.deliver.destination import Opened, ProbeNow, Probing, Send, Shut, permit
from services.deliver.hop import Hop
from services.deliver.ledger import Todo, confirmed_domain, facts_of
from services.deliver.partition import Partition, Shared
from services.deliver.requests import Requests
from services.deliver.schedule import is_due
from services.deliver.settlement import Settlement
from services.deliver.upkeep import Upkeep

_LOOK_S = 0.25  # a pass comes at least so often: the clock is an argument and may be moved from outside
_FOLD = 500  # records folded before others get their turn
_BEHIND_S = 3.0  # somebody waits for a request to a mail that the fold has not seen yet
_AGAIN_S = 5.0  # a step of the shard that the log refused is taken again after this

log = structlog.get_logger()


class Shard:
    """`run` returns after `lost` or `drain`, when the attempts in hand have ended."""

    def __init__(self, claim: Claim, shared: Shared) -> None:
        self.partition = part = Partition(claim, shared)
        self.settlement = Settlement(part)
        self.carriers = Carriers(part, self.settlement)
        self.upkeep = Upkeep(part, self.settlement, self.carriers)
        self.requests = Requests(part, self.settlement, self.carriers)
        self.caught_up = asyncio.Event()
        self.passed_at = part.clock.mono()
        self._claim, self._shared = claim, shared
        self._gained_at = part.clock.mono()
        self._ending, self._folded = asyncio.Event(), asyncio.Event()
        self._timers: list[tuple[float, str]] = []
        self._timer: dict[str, float] = {}  # the earliest of each next hop
        self._chores: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Restore, then serve until told to end. Raises what a bug raised; the caller starts anew."""
        tasks: list[asyncio.Task[object]] = []
        try:
            await self._restore_primaries()
            tasks = [
                asyncio.create_task(each)
                for each in (
                    self._follow_queue(),
                    self._serve_when_settled(),
                    self._follow_requests(),
                    self.upkeep.publish(),
                    self.upkeep.run(),
                    self._ending.wait(),
                )
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except NotOwner:
            log.info("the claim is lost", partition=self.partition.number)
        finally:
            for task in (*tasks, *self._chores):
                task.cancel()
            await asyncio.gather(*tasks, *self._chores, return_exceptions=True)
            await self.carriers.ended()

    def lost(self) -> None:
        """The claim is lost: attempts before the final dot are cut, the others run on (rule 4)."""
        self.partition.draining = True
        self.carriers.cut()
        self._ending.set()

    async def drain(self) -> None:
        """No new attempts; returns when those in hand have ended and are written down."""
        self.partition.draining = True
        await self.carriers.drained()
        self._ending.set()

    # --- restore and follow ---

    async def _restore_primaries(self) -> None:
        """What the owner before knew of the primaries of this partition."""
        async with aclosing(self._follow("primaries", BEGIN)) as batches:
            async for batch in batches:
                for record in batch.records:
                    try:
                        if record.value is not None:
                            state = decode(record.value, PrimaryState)
                            self.partition.recorded[state.domain] = state
                    except Undecodable:
                        self._quarantined(record)
                if batch.position >= batch.end:
                    break
        for domain in self.partition.recorded:
            if self.partition.settings(domain) is not None:
                self.partition.hop(domain, primary=True)
                self.partition.stir(domain)

    def _follow(self, topic: str, start: int) -> AsyncGenerator[Batch, None]:
        return self._shared.deps.log.follow(topic, {self.partition.number: start})

    async def _follow_queue(self) -> None:
        """Fold the queue; caught up means past the end read under this claim (rule 3)."""
        ledger = self.partition.ledger
        async with aclosing(self._follow("queue", BEGIN)) as batches:
            async for batch in batches:
                for count, record in enumerate(batch.records, 1):
                    self._fold(record)
                    if count % _FOLD == 0:
                        await asyncio.sleep(0)
                ledger.position = batch.position
                self._folded.set()
                if batch.position >= batch.end and not ledger.caught_up:
                    for id_ in {*ledger.scanned(), *ledger.unfinished}:
                        self._chore(self._rewrite(id_))
                    await self.partition.restored()
                    self.caught_up.set()

    def _fold(self, record: Record) -> None:
        part = self.partition
        todo = part.ledger.fold(record, part.clock.mono())
        if todo is Todo.NOTHING:
            return
        match todo:
            case Todo.ADDED if part.ledger.caught_up:
                if (mail := part.index.get(record.key.decode())) is not None:
                    part.arrived(mail)
            case Todo.BURY:
                self._chore(self.partition.bury(record.key))
            case Todo.MERGE:
                self._chore(self._rewrite(record.key.decode()))
            case Todo.UNREADABLE:
                self._quarantined(record)

    def _quarantined(self, record: Record) -> None:
        """Rule 8; whoever traces the mail sees it too."""
        deps = self._shared.deps
        deps.quarantined(record)
        deps.events.emit(
            Event(
                type=EventType.QUARANTINED,
                id=record.key.decode("ascii", "replace") if record.topic == "queue" else "",
                text=f"{record.topic} {record.partition} {record.offset}",
            )
        )

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        """Something the fold asks for, done beside it once the shard has caught up."""
        task = asyncio.ensure_future(self._when_caught_up(work))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _when_caught_up(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await self.caught_up.wait()
            await work
        except NotOwner:
            return  # the next owner does it
        finally:
            work.close()

    async def _rewrite(self, id_: str) -> None:
        """Another owner wrote of this mail: write what both know (rule 3), or its notice."""
        # One that is out is with an attempt, which merges when it is written down; or it is gone.
        await self.carriers.hold(id_, lambda _, job: self.settlement.resume(job))

    # --- callouts and requests ---

    def taught(self, record: Record) -> None:
        """A callout that went through shows that a primary is up; what it taught of the primary counts here,
        too. `record`: of `recipients`, as it comes."""
        part = self.partition
        facts = facts_of(record.key, record.value)
        if facts is not None:
            if facts.callouts is Callouts.LATE_REJECT:
                part.late[facts.domain] = facts.era
            else:
                part.late.pop(facts.domain, None)
        domain = confirmed_domain(record.key, record.value, part.clock.wall())
        hop = part.hops.get(domain)
        if hop is not None and hop.destination.health is Health.DOWN:
            part.saw(hop, Opened())

    async def _follow_requests(self) -> None:
        """Apply requests once each: the group's position says up to where that was done."""
        await self.caught_up.wait()
        position = await standing(self._shared.deps.log, self._claim, "requests", _AGAIN_S)
        async with aclosing(self._follow("requests", position)) as batches:
            async for batch in batches:
                for record in batch.records:
                    if record.value is not None:
                        await self._apply(record)
                if batch.records:
                    await self._store(batch.position)

    async def _store(self, position: int) -> None:
        try:
            await self._shared.deps.log.commit(self._claim, "requests", position)
        except Unavailable as error:  # the next batch stores it; applied twice it does no harm
            log.warning("the position in requests is not stored", error=str(error))

    async def _apply(self, record: Record) -> None:
        try:
            request = decode_request(record.value or b"")
        except Undecodable:
            self._quarantined(record)
            return
        if isinstance(request, Flush):
            self.requests.flush(request)
        elif isinstance(request, Unbrake):
            self.requests.unbrake(request)
        elif isinstance(request, Notify):
            await self.requests.notify(request)
        elif isinstance(request, Posted):
            return  # control's
        elif self.partition.index.get(request.id) is not None:
            await self.requests.apply(record, request)
        else:
            await self.requests.apply(record, request, unseen=not await self._past_the_end())

    async def _past_the_end(self) -> bool:
        """Fold up to where the queue ends now; False where that takes too long."""
        try:
            async with asyncio.timeout(_BEHIND_S):
                end = (await self._shared.deps.log.bounds("queue", self.partition.number)).end
                while self.partition.ledger.position < end:
                    self._folded.clear()
                    await self._folded.wait()
        except (TimeoutError, LogError) as error:
            log.warning("the queue is not read to its end", error=str(error))
            return False
        return True

    # --- serve ---

    async def _serve_when_settled(self) -> None:
        """Attempts begin once the table is caught up and a former owner's have surely ended."""
        await self.caught_up.wait()
        part = self.partition
        while part.clock.mono() - self._gained_at < self._shared.settle_s:
            self.passed_at = part.clock.mono()
            await asyncio.sleep(min(_LOOK_S, self._shared.settle_s))
        while True:
            self.passed_at = now = part.clock.mono()
            if not self._claim.held():
                raise NotOwner(f"partition {part.number}")
            self._ring(now)
            stirred, part.stirred = part.stirred, set()
            part.wake.clear()
            for name in stirred:
                if not part.draining:
                    self._serve(part.hop(name))
            pause = min(_LOOK_S, self._timers[0][0] - now) if self._timers else _LOOK_S
            try:
                async with asyncio.timeout(max(pause, 0.001)):
                    await part.wake.wait()
            except TimeoutError:
                continue

    def _serve(self, hop: Hop) -> None:
        """Do what is permitted for one next hop now, or note when to look again."""
        part = self.partition
        now, pace = part.clock.mono(), part.pace(hop)
        next_due = part.index.next_due(hop.name)
        match permit(hop.destination, part.gates(hop), now, pace):
            case Shut(until):
                if until != float("inf"):
                    self._look_at(hop, until)
                elif not hop.destination.probing:
                    self._look_at(hop, now + _AGAIN_S)  # settings may change
            case ProbeNow():
                part.saw(hop, Probing())
                self.carriers.probe(hop)
            case Send(connections, single):
                if next_due is None:
                    self._leave(hop)
                elif not is_due(next_due, part.clock.wall()):
                    self._look_at(hop, now + next_due - part.clock.wall())
                elif hop.next_mail > now:
                    self._look_at(hop, hop.next_mail)
                elif not single:
                    self.carriers.carry(hop, connections)
                elif not hop.carriers:
                    part.saw(hop, Probing())
                    self.carriers.carry(hop, 1, single=True)

    def _look_at(self, hop: Hop, at: float) -> None:
        if at < self._timer.get(hop.name, float("inf")):
            self._timer[hop.name] = at
            heapq.heappush(self._timers, (at, hop.name))

    def _ring(self, now: float) -> None:
        """Stir the next hops whose time has come."""
        while self._timers and self._timers[0][0] <= now:
            at, name = heapq.heappop(self._timers)
            if self._timer.get(name) == at:
                del self._timer[name]
                self.partition.stirred.add(name)

    def _leave(self, hop: Hop) -> None:
        """Nothing waits: a next hop that is nobody's primary is forgotten."""
        if not hop.primary and not hop.carriers and not self.partition.index.count(hop.name).mails:
            del self.partition.hops[hop.name]
