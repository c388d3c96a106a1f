"""Reads `content` of the partitions owned, writes a verdict for each message. The content is the request.

A message of one chunk whose DNS is known is answered where it is read, without a copy; everything else
becomes a task of its own, so that slow DNS blocks nobody. The position committed is the first chunk needed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import structlog

from libs.log.contract import BEGIN, Batch, Claim, Log, LogError, NotOwner, Record, Unavailable
from libs.mail.codec import encode
from libs.mail.records import Verdict
from libs.runtime.clock import Clock
from libs.runtime.metrics import Metrics
from services.verify.assemble import Abort, Assemblies, Budget, Chunk, Complete, Extent, Part, read
from services.verify.authenticate import Authenticator
from services.verify.spill import Elsewhere, Spill

_AT_ONCE = 5000  # messages under evaluation; beyond it reading waits
_TURN_S = 0.005  # then others of the event loop have theirs
_COMMIT_S = 1.0
_PAUSE_S = 0.2
_CLOCKS_AGREE_S = 120.0  # rule 10
_SHORT = 500  # a backlog of so many chunks is read whatever its age

_log = structlog.get_logger()


class _Shard:
    """All that is known of one partition while it is owned. `position`: the next offset to read."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.position: int | None = None
        self.committed: int | None = None
        self.assemblies = Assemblies()
        self.tasks: set[asyncio.Task[None]] = set()


class Assembled:
    """A content as its chunks: see authenticate.Message."""

    def __init__(self, parts: tuple[Part, ...], spill: Spill) -> None:
        self._parts, self._spill = parts, spill
        self.size = sum(_length(part) for part in parts)

    async def first(self, octets: int) -> bytes:
        parts: list[Part] = []
        for part in self._parts:
            if octets <= 0:
                break
            parts.append(
                part._replace(length=min(part.length, octets)) if isinstance(part, Extent) else part[:octets]
            )
            octets -= _length(part)
        return await self._joined(tuple(parts))

    async def whole(self) -> bytes:
        return await self._joined(self._parts)

    @asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[Elsewhere]:
        written: list[Extent] = []
        extents: list[Extent] = []
        try:
            for part in self._parts:
                if isinstance(part, bytes):
                    part = self._spill.must_write(part)
                    written.append(part)
                    await asyncio.sleep(0)
                extents.append(part)
            yield self._spill.elsewhere(extents)
        finally:
            for extent in written:
                self._spill.free(extent)

    async def _joined(self, parts: tuple[Part, ...]) -> bytes:
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        if any(isinstance(part, Extent) for part in parts):
            return await asyncio.to_thread(self._from_file, parts)
        return b"".join(part for part in parts if isinstance(part, bytes))

    def _from_file(self, parts: tuple[Part, ...]) -> bytes:
        return b"".join(self._spill.read(part) if isinstance(part, Extent) else part for part in parts)


def _length(part: Part) -> int:
    return part.length if isinstance(part, Extent) else len(part)


class Contents:
    """An Owner of group `verify`: reads what it owns. `deadline_s`: how long ingest waits for a verdict."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        metrics: Metrics,
        authenticator: Authenticator,
        spill: Spill,
        *,
        deadline_s: float,
        budget: Budget,
    ) -> None:
        self._log, self._clock, self._metrics = log, clock, metrics
        self._authenticator, self._spill, self._budget = authenticator, spill, budget
        self._deadline_s = deadline_s
        self._shards: dict[int, _Shard] = {}
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._under_way = 0

    # --- claims ---

    def gained(self, claim: Claim) -> None:
        self._shards[claim.partition] = _Shard(claim)
        self._changed.set()

    def lost(self, claim: Claim) -> None:
        shard = self._shards.get(claim.partition)
        if shard is None or shard.claim is not claim:
            return
        del self._shards[claim.partition]
        for task in shard.tasks:
            task.cancel()
        self._free(shard.assemblies.parts())
        self._changed.set()

    # --- reading ---

    async def run(self, progress: Callable[[], None]) -> None:
        """For ever: read what is owned, from the start again whenever that changes."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_house(progress))
            while True:
                reading = group.create_task(self._read(progress))
                try:
                    await self._changed.wait()
                    self._changed.clear()
                finally:
                    reading.cancel()
                    with suppress(asyncio.CancelledError):
                        await reading

    async def finish(self) -> None:
        """Reading has ended: wait for the verdicts under way, then commit."""
        tasks = [task for shard in self._shards.values() for task in shard.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=self._deadline_s)
        await self._commit()

    async def _read(self, progress: Callable[[], None]) -> None:
        starts: dict[int, int] = {}
        for shard in tuple(self._shards.values()):
            if shard.position is None:
                shard.position = await self._start(shard.claim)
            starts[shard.claim.partition] = shard.position
        if not starts:
            return
        async with aclosing(self._log.follow("content", starts)) as batches:
            async for batch in batches:
                await self._take(batch)
                progress()

    async def _start(self, claim: Claim) -> int:
        """Where the group stands; with a long backlog, not before what ingest may still wait for."""
        since = self._clock.wall() - self._deadline_s - _CLOCKS_AGREE_S
        while True:
            try:
                committed = await self._log.commit(claim, "content")
                bounds = await self._log.bounds("content", claim.partition, since)
            except NotOwner:
                return BEGIN  # the claim is gone again: lost() follows
            except Unavailable:
                await asyncio.sleep(_PAUSE_S)
                continue
            start = bounds.begin if committed is None else max(committed, bounds.begin)
            return start if bounds.end - start <= _SHORT else max(start, bounds.since)

    async def _take(self, batch: Batch) -> None:
        shard = self._shards.get(batch.partition)
        if shard is None:
            return
        # Only when behind: at the end of the partition every message is a live one, whatever the clocks say.
        behind = batch.position < batch.end
        oldest = self._clock.wall() - self._deadline_s if behind else float("-inf")
        began = self._clock.mono()
        for record in batch.records:
            if not shard.claim.held():
                return
            try:
                self._one(shard, record, oldest)
            except Exception:  # our bug: said, and the partition goes on; the mail gets no verdict
                _log.exception("a chunk failed", partition=record.partition, offset=record.offset)
                shard.assemblies.done(record.key)
            shard.position = record.offset + 1
            while self._under_way >= _AT_ONCE:
                self._room.clear()
                await self._room.wait()
            if self._clock.mono() - began > _TURN_S:
                await asyncio.sleep(0)
                began = self._clock.mono()
        if shard.claim.held():
            shard.position = batch.position

    def _one(self, shard: _Shard, record: Record, oldest: float) -> None:
        chunk = read(record)
        if chunk is None:
            return
        key = record.key
        if isinstance(chunk, Abort):
            self._free(shard.assemblies.drop(key))
            return
        value = record.value or b""
        trace = chunk.trace
        if trace is not None and trace.chunks == 1 and chunk.number == 0 and key not in shard.assemblies:
            if record.time < oldest:
                self._metrics.contents_stepped_over.inc()
                return
            verdict = self._authenticator.now(key.decode("ascii", "replace"), trace, value)
            if verdict is not None:
                shard.assemblies.evaluate(key, record.offset)
                self._begin(shard, self._append(shard, key, verdict, self._clock.mono()))
                return
        if chunk.error:
            self._metrics.quarantined.labels("content").inc()
        part = self._keep(value)
        if part is None:
            chunk, part = Chunk(chunk.number, trace, chunk.error or "no room"), b""
        complete, freed = shard.assemblies.add(key, record.offset, chunk, part, self._clock.mono())
        self._free(freed)
        if complete is None:
            return
        if record.time < oldest:
            self._metrics.contents_stepped_over.inc()
            self._free(complete.parts)
            shard.assemblies.done(key)
            return
        self._begin(shard, self._evaluate(shard, key, complete), complete.parts)

    # --- evaluating ---

    def _begin(self, shard: _Shard, work: Coroutine[Any, Any, None], parts: tuple[Part, ...] = ()) -> None:
        """`parts` are let go when the work has ended, also when it was cancelled before it began."""
        self._under_way += 1
        task = asyncio.create_task(work)
        shard.tasks.add(task)
        task.add_done_callback(lambda task: self._ended(shard, task, parts))

    def _ended(self, shard: _Shard, task: asyncio.Task[None], parts: tuple[Part, ...]) -> None:
        shard.tasks.discard(task)
        self._free(parts)
        self._under_way -= 1
        if self._under_way < _AT_ONCE:
            self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a message got no verdict", exc_info=error)

    async def _evaluate(self, shard: _Shard, key: bytes, complete: Complete) -> None:
        began = self._clock.mono()

        if complete.broken:
            self._metrics.contents_broken.inc()
            verdict = await self._authenticator.without_content(complete.id, complete.trace, complete.broken)
        else:
            verdict = await self._authenticator.verdict(
                complete.id, complete.trace, Assembled(complete.parts, self._spill)
            )
        await self._append(shard, key, verdict, began)

    async def _append(self, shard: _Shard, key: bytes, verdict: Verdict, began: float) -> None:
        """Store the verdict; again, while ingest may still wait for it."""
        value = encode(verdict)
        try:
            while True:
                try:
                    await self._log.append(
                        "verdicts",
                        shard.claim.partition,
                        key,
                        value,
                        within=self._deadline_s,
                        claim=shard.claim,
                    )
                except NotOwner:
                    return
                except LogError:
                    if self._clock.mono() - began > self._deadline_s:
                        return
                    await asyncio.sleep(_PAUSE_S)
                else:
                    break
        finally:
            shard.assemblies.done(key)
        self._metrics.verdict_seconds.observe(self._clock.mono() - began)
        self._metrics.verdicts.inc()
        for method, result in verdict.results.items():
            self._metrics.auth_results.inc(method, result)

    # --- octets ---

    def _keep(self, value: bytes) -> Part | None:
        return value if self._budget.take(len(value)) else self._spill.write(value)

    def _free(self, parts: Iterable[Part]) -> None:
        for part in parts:
            if isinstance(part, Extent):
                self._spill.free(part)
            else:
                self._budget.give(len(part))

    # --- every second ---

    async def _keep_house(self, progress: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(_COMMIT_S)
            if not self._shards:
                progress()  # nothing is owned: there is nothing to be stuck at
            for shard in self._shards.values():
                ended, parts = shard.assemblies.expire(self._clock.mono())
                self._metrics.contents_broken.inc(ended)
                self._free(parts)
            self._metrics.assembly_bytes.set(self._budget.used)
            await self._commit()

    async def _commit(self) -> None:
        await asyncio.gather(*(self._commit_one(shard) for shard in tuple(self._shards.values())))

    async def _commit_one(self, shard: _Shard) -> None:
        if shard.position is None or shard.position == BEGIN:
            return
        needed = shard.assemblies.needed(shard.position)
        if needed == shard.committed:
            return
        try:
            await self._log.commit(shard.claim, "content", needed)
            shard.committed = needed
        except LogError:
            return  # the next second tries again; the new owner starts from an older position
