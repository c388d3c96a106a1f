"""Events on their way to the topic, over a real embedded log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from io import StringIO
from pathlib import Path

from libs.log.contract import BEGIN, Record
from libs.log.sqlite import SqliteLog
from libs.mail.event import Event, EventType, decode_events
from libs.runtime.clock import SystemClock
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics


@asynccontextmanager
async def emitting(folder: Path) -> AsyncIterator[tuple[Events, SqliteLog, StringIO]]:
    lines = StringIO()
    async with SqliteLog(folder / "log.sqlite", partitions=1, clock=SystemClock()) as log:
        events = Events(log, SystemClock(), Metrics(), service="ingest", host="mx1", partitions=1, out=lines)
        running = asyncio.create_task(events.run())
        try:
            yield events, log, lines
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def stored(log: SqliteLog) -> list[Record]:
    async with aclosing(log.follow("events", {0: BEGIN})) as batches:
        found: list[Record] = []
        async for batch in batches:
            found += batch.records
            if batch.position >= batch.end:
                break
        return found


async def test_what_comes_at_once_shares_a_record(tmp_path: Path) -> None:
    """A record a domain, its events in order; each is a line on standard output, too."""
    async with emitting(tmp_path) as (events, log, lines):
        for id_, domain in (("1", "a.example"), ("2", "b.example"), ("3", "a.example")):
            events.emit(Event(EventType.RECEPTION, id=id_, domain=domain))
        await events.flush()
        found = {
            record.key: [each.id for each in decode_events(record.value or b"")]
            for record in await stored(log)
        }
        assert found == {b"a.example": ["1", "3"], b"b.example": ["2"]}
        assert len(lines.getvalue().splitlines()) == 3


async def test_no_record_grows_without_bound(tmp_path: Path) -> None:
    """Many large events at once are several records, none of them lost, none out of order."""
    async with emitting(tmp_path) as (events, log, _):
        for number in range(500):
            events.emit(Event(EventType.REJECTION, id=str(number), domain="a.example", text="x" * 1000))
        await events.flush()
        records = await stored(log)
        ids = [each.id for record in records for each in decode_events(record.value or b"")]
        assert ids == [str(number) for number in range(500)]
        assert max(len(record.value or b"") for record in records) <= 110_000
