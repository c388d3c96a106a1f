"""One process is built here in sight, and its services run.

    health, heap, log, events, watch, then the services, the last first

With smtp.processes, `ingest` is a parent and so many children, each of which is such a process.

The log is a part like the others: a process whose Kafka is away has its health pages, is not ready, and
keeps trying.
"""

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path

import structlog
import typer
import uvloop

from libs.log.contract import Log, LogError
from libs.log.open import open_log, partitions_agree
from libs.mail.event import Event, EventType
from libs.runtime import heap, logs
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config, Endpoint
from libs.runtime.deps import CONTENT_ROOM, Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.health import health
from libs.runtime.measured import MeasuredLog
from libs.runtime.metrics import PARENT, Metrics
from libs.runtime.processes import Child, Children
from libs.runtime.run import CannotStart, Life, Service, ServiceFailed, run
from libs.runtime.terminal import fail
from libs.runtime.watch import watch

HOLD_CONTENT = frozenset({"ingest", "verify"})  # those that share a process's room for it; so does SQLite
TICK_S = 60.0  # rule 10: every process appends a tick each minute
FLUSH_S = 10.0
# Objects made until garbage is looked for, by generation. A mail makes hundreds that are gone by themselves:
# with Python's own 700 the collector looked at every few mails, a twelfth of their cost.
_COLLECT = (20_000, 20, 100)

_SPAWN = multiprocessing.get_context("spawn")  # a fork would take a running loop with it

_Main = Callable[[Deps, Life], Awaitable[None]]


async def process(config: Config, names: Sequence[str], pages_at: Endpoint | Path) -> None:
    """Run the services `names` until SIGTERM. Raises ServiceFailed."""
    called = names[0] if len(names) == 1 else "solo"
    clock, metrics = SystemClock(), _metrics(config, called, names)
    dns = Dns([(at.address, at.port) for at in config.dns.servers], clock, config.dns.timeout_s)
    mains = {name: _main(name) for name in names}
    built: list[Deps] = []  # by `log`; whoever starts after it finds it
    opened: list[Log] = []

    async def log(life: Life) -> None:
        async with open_log(config, clock, called) as (an_open_log, partitions):
            measured = MeasuredLog(an_open_log, clock, metrics)
            events = Events(
                measured, clock, metrics, service=called, host=config.host.name, partitions=partitions
            )
            holders = len(HOLD_CONTENT.intersection(names)) + (config.log.kind == "sqlite")
            room = CONTENT_ROOM // max(1, holders)
            built.append(Deps(config, measured, clock, dns, events, metrics, partitions, room))
            opened.append(an_open_log)
            life.ready()
            draining = asyncio.ensure_future(life.must_drain.wait())
            agreeing = asyncio.ensure_future(partitions_agree(an_open_log, partitions))
            try:
                await asyncio.wait({draining, agreeing}, return_when=asyncio.FIRST_COMPLETED)
                if agreeing.done():
                    agreeing.result()
                await draining
            finally:
                draining.cancel()
                agreeing.cancel()

    def service(name: str) -> Service:
        return Service(name, lambda life: mains[name](built[0], life))

    beside = [
        Service("watch", lambda life: watch(built[0], opened[0], life)),
        Service("events", lambda life: _events(built[0].events, life)),
        Service("log", log),
        Service("heap", heap.keep_small),
    ]
    services = [*map(service, names), *beside]
    lives = [Life(each.name, clock) for each in services]
    pages = Service("health", lambda life: health(pages_at, lives[: len(names)], metrics, life))
    try:
        await run([*services, pages], [*lives, Life("health", clock)])
    finally:
        await dns.close()


def _main(name: str) -> _Main:
    """The coroutine of a service. Imported here: a process loads what it runs."""
    match name:
        case "ingest":
            from services.ingest.service import ingest

            return ingest
        case "verify":
            from services.verify.service import verify

            return verify
        case "deliver":
            from services.deliver.service import deliver

            return deliver
        case _:
            from services.control.service import control

            return control


def _metrics(config: Config, called: str, services: Sequence[str]) -> Metrics:
    """With what is always true of this process."""
    metrics = Metrics(services)
    about = version("backupmx"), sys.version.split()[0], called, config.host.name
    metrics.build_info.labels(*about).set(1)
    return metrics


async def _events(events: Events, life: Life) -> None:
    """Moves events to the log, ticks, and at the end waits until all have arrived."""

    async def tick() -> None:
        while True:
            events.emit(Event(type=EventType.TICK))
            await asyncio.sleep(TICK_S)

    running = [asyncio.ensure_future(each) for each in (events.run(), tick())]
    try:
        life.ready()
        draining = asyncio.ensure_future(life.must_drain.wait())
        await asyncio.wait({draining, *running}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        for task in running:
            if task.done():
                task.result()
        try:
            async with asyncio.timeout(FLUSH_S):
                await events.flush()
        except TimeoutError:
            structlog.get_logger().warning("the log is away: the last events are in these lines only")
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def parent(config: Config) -> None:
    """Keep the processes of ingest until SIGTERM, and serve one set of pages. Raises ServiceFailed."""
    clock, metrics = SystemClock(), _metrics(config, "ingest", (PARENT,))
    config.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def start(number: int) -> BaseProcess:
        started = _SPAWN.Process(target=child, args=(config, number), name=f"ingest {number}", daemon=True)
        started.start()
        return started

    numbers = range(config.smtp.processes)
    children = Children([Child(n, start, _socket(config, n), clock) for n in numbers], metrics)
    life = Life("ingest", clock)
    pages = Service("health", lambda own: health(config.health.listen, [life], metrics, own, children))
    await run([Service("ingest", children.run), pages], [life, Life("health", clock)])


def child(config: Config, number: int) -> None:
    """One process of ingest; it drains when its parent ends, however that one ends."""
    os.setsid()  # a ^C in the terminal is for the parent, who passes it on once
    mother = multiprocessing.parent_process()
    assert mother is not None

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(mother.sentinel, orphaned, loop)
        await process(config, ["ingest"], _socket(config, number))

    def orphaned(loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(mother.sentinel)
        structlog.get_logger().error("the parent is gone: this process ends, too")
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        _run(config, "ingest", serve, process=number)
    except typer.Exit as left:
        sys.exit(left.exit_code)


def _socket(config: Config, number: int) -> Path:
    """Where a child has its health pages."""
    return config.state_directory / f"ingest.{number}.sock"


def serve(config: Config, names: Sequence[str]) -> None:
    """Run a process to its end, or the parent of several."""
    called = names[0] if len(names) == 1 else "solo"
    if config.log.kind == "sqlite" and len(names) == 1:
        fail("log.kind 'sqlite' is one process: `backupmx solo`; services run alone over kafka", 2)
    if config.smtp.processes > 1 and len(names) > 1:
        fail(
            "smtp.processes: all services in one process are one process; `backupmx ingest` can be several", 2
        )
    if config.smtp.processes > 1 and called == "ingest":
        _run(config, called, lambda: parent(config))
    else:
        _run(config, called, lambda: process(config, names, config.health.listen))


def _run(config: Config, called: str, main: Callable[[], Coroutine[None, None, None]], **said: int) -> None:
    """`main` to its end; whatever goes wrong is one sentence on standard error and exit code 1. `said`
    stands in each log line."""
    logs.configure(called, config.host.name)
    structlog.contextvars.bind_contextvars(**said)
    heap.set_up()
    gc.freeze()  # what was imported stays
    gc.set_threshold(*_COLLECT)
    try:
        uvloop.run(main())
    except ServiceFailed as failed:
        error = _innermost(failed.__cause__)
        if isinstance(error, CannotStart | LogError | OSError):
            fail(str(error), 1)
        structlog.get_logger().critical(str(failed), exc_info=error)
        fail(f"{failed}: the log line before this one says why", 1)


def _innermost(error: BaseException | None) -> BaseException | None:
    """Out of groups that hold a single error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
