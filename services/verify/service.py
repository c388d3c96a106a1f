"""verify: is the recipient real, is the sender honest? One coroutine, top to bottom."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from libs.log.contract import Claim, Owner
from libs.runtime.config import ArcPart
from libs.runtime.deps import Deps
from libs.runtime.run import Life
from libs.runtime.sealing_key import sealing_key
from services.verify.assemble import Budget
from services.verify.authenticate import Authenticator
from services.verify.callouts import Callouts
from services.verify.content import Contents
from services.verify.heavy import Pool
from services.verify.known import Known
from services.verify.sealing import Sealer
from services.verify.spill import Spill

_DNS_SHARE = 0.75  # of the verdict's deadline: a verdict with temperror must still arrive in time


async def verify(deps: Deps, life: Life) -> None:
    """Until drained: own partition numbers in group `verify`, answer messages and questions."""
    deadline_s = deps.config.timing.verdict_deadline_s
    hosts = deps.config.installation.hosts
    pool, spill = Pool(), Spill(_directory(deps.config.state_directory))
    known = Known(deps)
    authenticator = Authenticator(
        deps.dns,
        deps.clock,
        pool,
        authserv_id=hosts[0],
        hosts=hosts,
        within_s=_DNS_SHARE * deadline_s,
        enforced=known.enforced,
        sealer=_sealer(deps.config.arc),
        trusted=deps.config.arc.trusted,
        received_spf=deps.config.auth.received_spf,
    )
    contents = Contents(
        deps.log,
        deps.clock,
        deps.metrics,
        authenticator,
        spill,
        deadline_s=deadline_s,
        budget=Budget(deps.content_room),
    )
    callouts = Callouts(deps, known)
    owner = _Both(contents, callouts, life.progress)
    running = _started(table.run() for table in known.tables)
    try:
        if not await _until(known.caught_up(), life, running):
            return
        async with deps.log.own("verify", owner):
            reading, asking = _started((contents.run(owner.read), callouts.run(owner.asked)))
            running += reading, asking
            life.ready()
            await _until(asyncio.Event().wait(), life, running)
            reading.cancel()
            await asyncio.wait({reading})
            await asyncio.gather(contents.finish(), callouts.drain())
            await asyncio.wait({asking})
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await pool.close()
        spill.close()


async def _until(
    ready: Coroutine[Any, Any, object], life: Life, running: Iterable[asyncio.Task[Any]]
) -> bool:
    """True when `ready` returned, False when drained first. Raises the error of a running task that ended."""
    waiting, draining = _started((ready, life.must_drain.wait()))
    try:
        await asyncio.wait({waiting, draining, *running}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        draining.cancel()
    for task in running:
        if task.done():
            task.result()
    return waiting.done() and not life.must_drain.is_set()


class _Both:
    """An Owner of group `verify` for the two that read what it owns; tells of progress when both have read
    on, or when there is nothing to read."""

    def __init__(self, contents: Owner, callouts: Owner, progress: Callable[[], None]) -> None:
        self._owners, self._progress = (contents, callouts), progress
        self._claims: set[int] = set()
        self._seen: set[str] = set()

    def gained(self, claim: Claim) -> None:
        self._claims.add(claim.partition)
        for owner in self._owners:
            owner.gained(claim)

    def lost(self, claim: Claim) -> None:
        self._claims.discard(claim.partition)
        for owner in self._owners:
            owner.lost(claim)

    def read(self) -> None:
        self._saw("content")

    def asked(self) -> None:
        self._saw("callouts")

    def _saw(self, topic: str) -> None:
        self._seen.add(topic)
        if len(self._seen) == len(self._owners) or not self._claims:
            self._seen.clear()
            self._progress()


def _started(work: Iterable[Coroutine[Any, Any, Any]]) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(each) for each in work]


def _directory(state: Path) -> Path | None:
    return state if state.is_dir() else None


def _sealer(arc: ArcPart) -> Sealer | None:
    if arc.domain is None or arc.selector is None or arc.key is None:
        return None
    return Sealer(arc.domain, arc.selector, sealing_key(arc.key.read_bytes()))
