"""A process: restoring -> ready -> draining; signals; the order of start and of drain."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

from libs.runtime.clock import Clock


class Phase(StrEnum):
    RESTORING = "restoring"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


class Life:
    """The life of one service in this process; the service says what it reached, run() says what it must do.

    A service calls `ready()` once its tables are at their ends and its doors are open, `progress()` whenever
    something that proves it is not stuck happened (liveness), and returns soon after `must_drain` is set.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.phase = Phase.RESTORING
        self.must_drain = asyncio.Event()
        self.is_ready = asyncio.Event()
        self._clock = clock
        self._progress_at = clock.mono()

    def ready(self) -> None:
        if self.phase is Phase.RESTORING:
            self.phase = Phase.READY
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
    """A service ended by itself."""


async def run(services: Sequence[Service], lives: Sequence[Life]) -> None:
    """Start the last service first, each when the one before is ready; drain the first one first.

    Returns when SIGTERM or SIGINT came and all have drained. When a service fails, the others are drained and
    ServiceFailed is raised from its error: the process ends and whoever supervises it starts a new one.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.ensure_future(stop.wait())
    tasks: dict[str, asyncio.Future[None]] = {}
    try:
        for service, life in reversed(list(zip(services, lives, strict=True))):
            tasks[service.name] = asyncio.ensure_future(service.main(life))
            started = asyncio.ensure_future(life.is_ready.wait())
            await asyncio.wait({started, stopping, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
            started.cancel()
            if stop.is_set() or any(task.done() for task in tasks.values()):
                break
        await asyncio.wait({stopping, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        failed = next((name for name, task in tasks.items() if task.done()), None)
        for life in lives:
            life.phase = Phase.DRAINING
            life.must_drain.set()
            if task := tasks.get(life.name):
                await asyncio.wait({task})
            life.phase = Phase.ENDED
        if failed is not None and not stop.is_set():
            raise ServiceFailed(f"{failed} ended by itself") from tasks[failed].exception()
        for task in tasks.values():
            task.result()
    finally:
        stopping.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
