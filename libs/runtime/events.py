"""Events: one JSON line on standard output for each, and the same line on the topic `events`."""

import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from msgspec.structs import replace

from libs import topics
from libs.log.contract import Log, LogError
from libs.mail.event import Event, encode_event
from libs.runtime.clock import Clock
from libs.runtime.clocks import Clocks, trusts_itself
from libs.runtime.metrics import Metrics

_GATHER_S = 0.05  # events wait so long for each other: those of one domain share a record
_ROOM = 10_000  # events that may wait for the log; the line on standard output is never dropped
_RECORD_OCTETS = 100_000  # of the events in one record, about
_AT_ONCE = 50  # records under way


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
        self._lines: list[bytes] = []
        self._ahead_s: float | None = None  # our clock is so much ahead of the log's
        self._waiting: list[tuple[str, bytes]] = []
        self._some, self._none_left = asyncio.Event(), asyncio.Event()
        self._left = 0  # events that the log has not taken and that are not given up
        self._none_left.set()

    def emit(self, event: Event) -> None:
        """`service`, `host` and an `event_time` of 0 are filled in."""
        full = replace(
            event,
            service=self._service,
            host=self._host,
            event_time=event.event_time or self._clock.wall(),
        )
        line = encode_event(full)
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._flush_lines)
        self._lines.append(line)
        if len(self._waiting) >= _ROOM:
            self._metrics.events_failed.inc()
            return
        self._waiting.append((full.domain, line))
        self._left += 1
        self._some.set()
        self._none_left.clear()

    def _flush_lines(self) -> None:
        lines, self._lines = self._lines, []
        self._out.write(b"\n".join((*lines, b"")).decode())
        self._out.flush()

    async def run(self) -> None:
        """For ever: append what was emitted, oldest first, many at a time."""
        async with asyncio.TaskGroup() as group:
            slots = asyncio.Semaphore(_AT_ONCE)
            while True:
                await self._some.wait()
                await asyncio.sleep(_GATHER_S)
                self._some.clear()
                waiting, self._waiting = self._waiting, []
                for domain, lines in _records(waiting):
                    await slots.acquire()
                    group.create_task(self._append(domain, lines, slots))

    async def _append(self, domain: str, lines: Sequence[bytes], slots: asyncio.Semaphore) -> None:
        partition = topics.partition_of(domain, self._partitions)
        try:
            value = b"\n".join(lines)
            stored = await self._log.append("events", partition, domain.encode(), value, within=30)
            self._ahead_s = self._clock.wall() - stored.time
            self.clocks.heard(stored.time)
        except LogError:
            self._metrics.events_failed.inc(len(lines))
        finally:
            slots.release()
            self._left -= len(lines)
            if not self._left:
                self._none_left.set()

    def log_time(self) -> float | None:
        """What the log's clock says now, as of the last event that it took (every process appends one a
        minute); None before the first."""
        return None if self._ahead_s is None else self._clock.wall() - self._ahead_s

    async def flush(self) -> None:
        """Return once everything emitted so far was appended or counted as failed."""
        await self._none_left.wait()


def _records(events: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, list[bytes]]]:
    """(domain, lines) of each record; the events of a domain stay in order."""
    gathered: dict[str, tuple[list[bytes], int]] = {}
    for domain, line in events:
        lines, octets = gathered.get(domain, ([], 0))
        if octets and octets + len(line) > _RECORD_OCTETS:
            yield domain, lines
            lines, octets = [], 0
        lines.append(line)
        gathered[domain] = lines, octets + len(line)
    for domain, (lines, _) in gathered.items():
        yield domain, lines
