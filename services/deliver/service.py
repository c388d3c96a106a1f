"""The service `deliver`: a shard for each claim, gained and lost; what they share; the end in order."""

import asyncio
import uuid
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from typing import Any

import structlog

from libs import topics
from libs.log.contract import END, Claim, LogError, Record
from libs.log.table import Table
from libs.mail.codec import decode
from libs.mail.event import Event, EventType, encode_event
from libs.mail.records import Domain
from libs.runtime.clocks import Clocks, trusts_itself
from libs.runtime.deps import Deps
from libs.runtime.run import Life
from libs.smtp.client import CALLOUT, Dialer, timeouts
from libs.smtp.demands import Demands
from libs.smtp.route import Ours
from services.deliver.addresses import Addresses
from services.deliver.observations import Observations
from services.deliver.partition import Dialers, Shared
from services.deliver.shard import Shard

LENIENT_S = 120.0  # for what a slow server says to a probe behind its greeting
SLOTS = 200  # attempts of a process whose outcome is not acknowledged yet
DRAIN_S = 30.0  # attempts that did not end by then are cut before their final dot
_LOOK_S = 1.0
_STUCK_S = 15.0
_TICK_S = 60.0
_AGAIN_S = 1.0

log = structlog.get_logger()


class Shards:
    """The owner of group `deliver`: its callbacks return at once, the shards live in tasks."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._shards: dict[int, Shard] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _count(self) -> None:
        self._shared.addresses.share = len(self._shards) / self._shared.deps.partitions

    def gained(self, claim: Claim) -> None:
        self._shards[claim.partition] = shard = Shard(claim, self._shared)
        self._count()
        task = asyncio.create_task(self._live(claim, shard))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def lost(self, claim: Claim) -> None:
        if shard := self._shards.pop(claim.partition, None):
            shard.lost()
            self._count()

    async def _live(self, claim: Claim, shard: Shard) -> None:
        """A shard for as long as the claim is held; after a bug a new one takes over from the log."""
        while claim.held():
            try:
                await shard.run()
            except Exception:
                log.exception("a shard ended by a bug and begins anew", partition=claim.partition)
                await asyncio.sleep(_AGAIN_S)
            else:
                break
            finally:
                shard.upkeep.close()
            if claim.held():
                self._shards[claim.partition] = shard = Shard(claim, self._shared)
        if self._shards.get(claim.partition) is shard:
            del self._shards[claim.partition]

    def of(self, partition: int) -> Shard | None:
        return self._shards.get(partition)

    @property
    def moving(self) -> bool:
        """Does each shard make its passes?"""
        now = self._shared.deps.clock.mono()
        return all(
            now - shard.passed_at < _STUCK_S for shard in self._shards.values() if shard.caught_up.is_set()
        )

    async def caught_up(self) -> None:
        """Every shard there is now has read its queue to the end."""
        await asyncio.gather(*(shard.caught_up.wait() for shard in tuple(self._shards.values())))

    async def drain(self) -> None:
        """No more attempts; those in hand end and are written down, within DRAIN_S."""
        shards = tuple(self._shards.values())
        if not shards:
            return
        draining = [asyncio.ensure_future(shard.drain()) for shard in shards]
        _, late = await asyncio.wait(draining, timeout=DRAIN_S)
        for task in late:
            task.cancel()
        for shard in shards:
            shard.lost()
        await asyncio.gather(*draining, return_exceptions=True)

    async def ended(self) -> None:
        """Returns when no shard is left: their claims must have been lost."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def follow_recipients(deps: Deps, shard_of: Callable[[int], Shard | None]) -> None:
    """For ever, one tail for all shards: what callouts find goes to the one of its partition."""
    starts = dict.fromkeys(range(deps.partitions), END)
    async with aclosing(deps.log.follow("recipients", starts)) as batches:
        async for batch in batches:
            if (shard := shard_of(batch.partition)) is not None:
                for record in batch.records:
                    shard.taught(record)


def dialers(deps: Deps) -> Dialers:
    """With the time-outs of the configuration."""
    config = deps.config
    patient = timeouts(config.dial)
    longest = config.dial.greeting_s
    brisk = patient._replace(banner_s=min(longest, patient.banner_s), ehlo_s=min(longest, patient.ehlo_s))
    lenient = CALLOUT._replace(
        banner_s=patient.banner_s,
        ehlo_s=patient.ehlo_s,
        mail_s=LENIENT_S,
        rcpt_s=LENIENT_S,
        verify_s=LENIENT_S,
    )
    made = (
        Dialer(config.dial, config.host, deps.clock, within, hosts=config.installation.hosts)
        for within in (patient, brisk, CALLOUT, lenient)
    )
    return Dialers(*made)


def shared(deps: Deps, domains: Table[Domain]) -> Shared:
    """What the shards of a process have in common."""
    config = deps.config
    # With the embedded log there is no former owner whose attempts might still run: its file is locked.
    settle_s = 0.0 if config.log.kind == "sqlite" else config.timing.settle_s
    return Shared(
        deps=deps,
        domains=domains,
        dialers=dialers(deps),
        demands=Demands(config, deps.dns, deps.clock),
        ours=Ours(config.installation.hosts, (*config.host.ipv4, *config.host.ipv6)),
        addresses=Addresses(),
        slots=asyncio.Semaphore(SLOTS),
        clocks=Clocks(deps.clock, lambda: trusts_itself(deps.log)),
        observations=Observations(deps.log, deps.clock, deps.partitions),
        settle_s=settle_s,
    )


async def deliver(deps: Deps, life: Life) -> None:
    """Follow `domains` to its end, take claims, deliver until told to drain, end in order."""

    def decoded(record: Record) -> Domain | None:
        return decode(record.value or b"", Domain) if topics.is_relay_domain(record.key) else None

    domains = deps.table("domains", decoded)
    common = shared(deps, domains)
    shards = Shards(common)
    beside = [
        asyncio.create_task(each)
        for each in (
            domains.run(),
            common.observations.run(),
            follow_recipients(deps, shards.of),
            _tick(deps, common),
        )
    ]
    draining = asyncio.create_task(life.must_drain.wait())
    try:
        await _first(asyncio.create_task(domains.caught_up()), draining, *beside)
        if life.must_drain.is_set():
            return
        async with deps.log.own("deliver", shards):
            await _first(asyncio.create_task(shards.caught_up()), draining, *beside)
            life.ready()
            while not life.must_drain.is_set():
                await asyncio.wait({draining, *beside}, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                _raise_ended(beside)
                if shards.moving:
                    life.progress()
            await shards.drain()
    finally:
        await shards.ended()
        for task in (draining, *beside):
            task.cancel()
        await asyncio.gather(draining, *beside, return_exceptions=True)
        await common.demands.close()


async def _first(goal: "asyncio.Task[None]", *others: "asyncio.Task[Any]") -> None:
    """Wait for `goal`, or for one of `others` to end; raises what that one raised."""
    try:
        await asyncio.wait({goal, *others}, return_when=asyncio.FIRST_COMPLETED)
        _raise_ended(others)
    finally:
        goal.cancel()
        with suppress(asyncio.CancelledError):
            await goal


def _raise_ended(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    for task in tasks:
        if task.done():
            task.result()


async def _tick(deps: Deps, common: Shared) -> None:
    """Hear the log's clock once a minute, whatever else is acknowledged (rule 10)."""
    partition = topics.partition_of(deps.config.host.name, deps.partitions)
    key = deps.config.host.name.encode()
    while True:
        event = Event(
            type=EventType.TICK,
            event_time=deps.clock.wall(),
            service="deliver",
            host=deps.config.host.name,
            id=uuid.uuid4().hex[:8],
        )
        try:
            stored = await deps.log.append("events", partition, key, encode_event(event), within=10)
        except LogError as error:
            log.warning("the log's clock was not heard", error=str(error))
        else:
            common.clocks.heard(stored.time)
        await asyncio.sleep(_TICK_S)
