"""What a process sees around itself, for the metrics: its event loop, the log's disk and replicas, its host.

Nothing is decided by it; whoever decides looks for itself.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import structlog

from libs.log.contract import Log, LogError
from libs.log.kafka_topics import Replicas
from libs.runtime import our_hosts, selfcheck
from libs.runtime.deps import Deps
from libs.runtime.run import Life

LOOP_S = 0.5
LOG_S = 15.0
HOST_FIRST_S, HOST_S = 10.0, 300.0
ABOUT = ("dns", "spf", "address", "reverse_dns", "certificate")

log = structlog.get_logger()


@runtime_checkable
class Replicated(Protocol):
    """A log that is kept in several places; `differences`: see KafkaLog."""

    differences: Mapping[str, list[str]]

    async def replicas(self) -> Replicas: ...


async def watch(deps: Deps, the_log: Log, life: Life) -> None:
    """For ever, until drained. `the_log`: the one that `deps.log` measures."""
    deps.metrics.disk_limit.set(deps.config.log.max_disk_share)
    deps.metrics.clock_difference_seconds.set_function(lambda: deps.events.clocks.difference_s)
    watching: list[asyncio.Task[Any]] = [
        asyncio.create_task(_loop(deps)),
        asyncio.create_task(_log(deps, the_log)),
    ]
    if "ingest" in deps.metrics.running:
        watching.append(asyncio.create_task(_host(deps)))
    draining = asyncio.ensure_future(life.must_drain.wait())
    life.ready()
    try:
        ended: set[asyncio.Future[Any]] = {draining, *watching}
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        for task in watching:
            if task.done():
                task.result()
    finally:
        for task in (draining, *watching):
            task.cancel()
        await asyncio.gather(draining, *watching, return_exceptions=True)


async def _loop(deps: Deps) -> None:
    while True:
        due = deps.clock.mono() + LOOP_S
        await asyncio.sleep(LOOP_S)
        deps.metrics.loop_delay.observe(max(0.0, deps.clock.mono() - due))


async def _log(deps: Deps, the_log: Log) -> None:
    metrics = deps.metrics
    while True:
        try:
            metrics.disk_used.set((await the_log.bounds("content", 0)).disk)
            if isinstance(the_log, Replicated):
                seen = await the_log.replicas()
                metrics.isr_short.set(seen.below_min)
                metrics.replicas_short.set(seen.under_replicated)
                metrics.leaderless.set(seen.offline)
                metrics.topics_differ.set(len(the_log.differences))
        except LogError as error:  # a log that is away shows in consumer_lag_seconds
            log.info("the log's disk and replicas are not seen", error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(LOG_S)


async def _host(deps: Deps) -> None:
    """What selfcheck would say, and a warning of what is wrong now and was not before."""
    before: set[str] = set()
    await asyncio.sleep(HOST_FIRST_S)
    while True:
        wrong = [each for each in await _checked(deps) if not each.right]
        counts = Counter(each.about for each in wrong)
        for about in ABOUT:
            deps.metrics.host_checks_failed.labels(about).set(counts[about])
        for each in wrong:
            if each.says not in before:
                log.warning("this host is not as it should be", host=each.host, what=each.says)
        before = {each.says for each in wrong}
        await asyncio.sleep(HOST_S)


async def _checked(deps: Deps) -> tuple[our_hosts.Check, ...]:
    try:
        return await selfcheck.checked(deps.config, deps.dns, deps.clock.wall())
    except selfcheck.Unreadable as error:
        return (our_hosts.Check(deps.config.host.name, False, str(error), "certificate"),)
