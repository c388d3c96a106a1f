"""A process: restoring -> ready -> draining; signals; the order of start and of drain."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NamedTuple

from libs.runtime.clock import Clock

FAILED_DRAIN_S = 30.0  # when a service has failed, each of the others has so long to drain


class Phase(StrEnum):
    RESTORING = "restoring"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


class Life:
    """The life of one service in this process; the service says what it reached, run() says what it must do.

    A service calls `ready()` once its tables are at their ends and its doors are open, `progress()` whenever
    something that proves it is not stuck happened (liveness), and returns soon after `must_drain` is set.
    While it restores, its doors are shut: it is cancelled instead. `reload` is set by SIGHUP: who reads files
    again clears it.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.phase = Phase.RESTORING
        self.must_drain = asyncio.Event()
        self.reload = asyncio.Event()
        self.is_ready = asyncio.Event()
        self._clock = clock
        self._progress_at = clock.mono()

    def ready(self) -> None:
        if self.phase is Phase.RESTORING:
            self.phase = Phase.READY
            self.progress()
        self.is_ready.set()

    def progress(self) -> None:
        self._progress_at = self._clock.mono()

    @property
    def stalled_s(self) -> float:
        """Seconds since the last progress()."""
        return self._clock.mono() - self._progress_at


class Service(NamedTuple):
    """`main(life)` is one coroutine that runs until drained; it is given everything else by main.py."""

    name: str
    main: Callable[[Life], Awaitable[None]]


class ServiceFailed(Exception):  # noqa: N818
    """A service ended by itself; the cause is its error, if it had one."""


class CannotStart(Exception):  # noqa: N818
    """A service cannot start, and the message is one sentence for the person who can change that."""


async def run(services: Sequence[Service], lives: Sequence[Life]) -> None:
    """Start the last service first, each when the one before is ready; drain the first one first.

    Returns when SIGTERM or SIGINT came and all have drained; a second signal cuts the draining short. When a
    service fails, the others are drained and ServiceFailed is raised from its error: the process ends and
    whoever supervises it starts a new one.
    """
    tasks: dict[str, asyncio.Future[None]] = {}
    with _signals(lives) as (stop, hurry):
        try:
            await _start(services, lives, tasks, stop)
            failed = next((name for name, task in tasks.items() if task.done()), None)
            for life in lives:
                if task := tasks.get(life.name):
                    await _drain(life, task, hurry, None if failed is None else FAILED_DRAIN_S)
                life.phase = Phase.ENDED
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
    if failed is not None:
        raise ServiceFailed(f"{failed} ended by itself") from _error(tasks[failed])
    for name, task in tasks.items():
        if error := _error(task):
            raise ServiceFailed(f"{name} failed while it drained") from error


async def _start(
    services: Sequence[Service],
    lives: Sequence[Life],
    tasks: "dict[str, asyncio.Future[None]]",
    stop: "asyncio.Future[None]",
) -> None:
    """Start one after the other, and return when `stop` is done or a service ended."""
    for service, life in reversed(list(zip(services, lives, strict=True))):
        tasks[service.name] = asyncio.ensure_future(service.main(life))
        started = asyncio.ensure_future(life.is_ready.wait())
        try:
            awaited: set[asyncio.Future[Any]] = {started, stop, *tasks.values()}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
        if stop.done() or any(task.done() for task in tasks.values()):
            return
    await asyncio.wait({stop, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED)


async def _drain(
    life: Life, task: "asyncio.Future[None]", hurry: "asyncio.Future[None]", within: float | None
) -> None:
    """Let one service end: at once when it was not ready yet, when `hurry` is done or `within` is over."""
    restoring = life.phase is Phase.RESTORING
    life.phase = Phase.DRAINING
    life.must_drain.set()
    if not restoring:
        await asyncio.wait({task, hurry}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    await asyncio.wait({task})


def _error(task: "asyncio.Future[None]") -> BaseException | None:
    return None if task.cancelled() else task.exception()


@contextmanager
def _signals(lives: Sequence[Life]) -> "Iterator[tuple[asyncio.Future[None], asyncio.Future[None]]]":
    """Futures for the first and the second SIGTERM or SIGINT; SIGHUP sets `reload` of each life."""
    loop = asyncio.get_running_loop()
    stop, hurry = loop.create_future(), loop.create_future()

    def received() -> None:
        for future in (stop, hurry):
            if not future.done():
                future.set_result(None)
                return

    def reload() -> None:
        for life in lives:
            life.reload.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield stop, hurry
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
