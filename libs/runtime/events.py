"""Events: one JSON line on standard output for each, and the same record on the topic `events`."""

import asyncio
import sys
from typing import TextIO

from msgspec.structs import replace

from libs import topics
from libs.log.contract import Log, LogError
from libs.mail.event import Event, encode_event
from libs.runtime.clock import Clock
from libs.runtime.clocks import Clocks, trusts_itself
from libs.runtime.metrics import Metrics

_GATHER_S = 0.05  # events wait so long for each other: the log stores many with one write
_ROOM = 10_000  # events that may wait for the log; the line on standard output is never dropped


class Events:
    """`emit` returns at once; its line is out at the end of this turn of the event loop. `run` moves events
    to the topic; what does not get there is counted."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        metrics: Metrics,
        *,
        service: str,
        host: str,
        partitions: int,
        out: TextIO = sys.stdout,
    ) -> None:
        self._log, self._clock, self._metrics, self._out = log, clock, metrics, out
        self._service, self._host, self._partitions = service, host, partitions
        self.clocks = Clocks(clock, lambda: trusts_itself(log))  # hears each event that the log takes
        self._flushing = False
        self._ahead_s: float | None = None  # our clock is so much ahead of the log's
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(_ROOM)

    def emit(self, event: Event) -> None:
        """`service`, `host` and an `event_time` of 0 are filled in."""
        full = replace(
            event,
            service=self._service,
            host=self._host,
            event_time=event.event_time or self._clock.wall(),
        )
        line = encode_event(full)
        self._out.write(line.decode() + "\n")
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_lines)
        try:
            self._waiting.put_nowait((full.domain, line))
        except asyncio.QueueFull:
            self._metrics.events_failed.inc()

    def _flush_lines(self) -> None:
        self._flushing = False
        self._out.flush()

    async def run(self) -> None:
        """For ever: append what was emitted, oldest first, many at a time."""
        async with asyncio.TaskGroup() as group:
            slots = asyncio.Semaphore(200)
            while True:
                event = await self._waiting.get()
                await asyncio.sleep(_GATHER_S)
                while True:
                    await slots.acquire()
                    group.create_task(self._append(*event, slots))
                    if self._waiting.empty():
                        break
                    event = self._waiting.get_nowait()

    async def _append(self, domain: str, line: bytes, slots: asyncio.Semaphore) -> None:
        partition = topics.partition_of(domain, self._partitions)
        try:
            stored = await self._log.append("events", partition, domain.encode(), line, within=30)
            self._ahead_s = self._clock.wall() - stored.time
            self.clocks.heard(stored.time)
        except LogError:
            self._metrics.events_failed.inc()
        finally:
            slots.release()
            self._waiting.task_done()

    def log_time(self) -> float | None:
        """What the log's clock says now, as of the last event that it took (every process appends one a
        minute); None before the first."""
        return None if self._ahead_s is None else self._clock.wall() - self._ahead_s

    async def flush(self) -> None:
        """Return once everything emitted so far was appended or counted as failed."""
        await self._waiting.join()
