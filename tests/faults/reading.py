"""ingest and verify in this process over either log, for a domain that wants refused what fails DMARC. What
each verify reads of `content` is under the test's control."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from libs.log.contract import Batch, Log, Record
from libs.log.sqlite import SqliteLog
from libs.mail.records import Domain, Enforce, Overrides
from libs.runtime.clock import SystemClock
from libs.runtime.deps import Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics
from libs.runtime.run import Life
from services.verify.service import verify
from tests.helpers.kafka import fresh, log_on
from tests.helpers.patience import PATIENCE_S
from tests.ingest.house import HOST, PARTITIONS, House
from tests.ingest.test_service import ANN, deliverable
from tests.verify import sign
from tests.verify.sign import zone_text

LOGS = pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))]
)
Alter = Callable[[Record], Iterable[Record]]
BOB = "bob@sender.example"
REFUSED = "550 5.7.1 Rejected by the DMARC policy"
ZONE = """
office.example                 MX 10 mail.office.example
office.example                 MX 20 mx1.backup.example
mail.office.example            A 127.0.0.2
mx1.backup.example             A 127.0.0.9
sender.example                 MX 10 mail.sender.example
sender.example                 TXT "v=spf1 -all"
_dmarc.sender.example          TXT "v=DMARC1; p=reject"
ed._domainkey.sender.example   TXT {ed25519}
mail.sender.example            A 127.0.0.4
"""
_LINES = r"\r\n" + r"A line of text, as long as such lines are.\r\n" * 50_000  # three chunks
_LARGE = rf"change figures. \r\n => figures. {_LINES}"
FORGED = sign.made([_LARGE])
HONEST = sign.made([_LARGE, "sign ed25519 d=sender.example s=ed"])  # nothing else speaks for it


class Reader:
    """A log, of whose `content` a reader gets what `alter` makes of each record. `read`: the index of each
    that it got."""

    def __init__(self, log: Log, alter: Alter) -> None:
        self.read: list[int] = []
        self._log, self._alter = log, alter

    async def follow(self, topic: str, starts: Mapping[int, int]) -> AsyncIterator[Batch]:
        async for batch in self._log.follow(topic, starts):
            yield self._altered(batch) if topic == "content" else batch

    def _altered(self, batch: Batch) -> Batch:
        records = [altered for record in batch.records for altered in self._alter(record)]
        self.read += map(index, records)
        return replace(batch, records=records)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def index(record: Record) -> int:
    """The number of a chunk in its mail; -1 for what ends a mail that will not come."""
    return int(record.header("index") or b"-1")


class Verify:
    """A verify that runs: `stop` drains it."""

    def __init__(self, task: asyncio.Task[None], life: Life, reader: Reader) -> None:
        self.reader = reader
        self._task, self._life = task, life

    async def stop(self) -> None:
        self._life.must_drain.set()
        await asyncio.wait_for(self._task, PATIENCE_S)


class Backup:
    """`house`: ingest, which knows ANN."""

    def __init__(
        self, house: House, kind: str, stack: AsyncExitStack, bootstrap: Sequence[str], prefix: str
    ) -> None:
        self.house = house
        self._kind, self._stack, self._bootstrap, self._prefix = kind, stack, bootstrap, prefix

    async def verify(self, alter: Alter = lambda record: [record]) -> Verify:
        """One more; over Kafka with a connection of its own."""
        house, log = self.house, self.house.log
        if self._kind == "kafka":
            log = await self._stack.enter_async_context(
                log_on(self._bootstrap, prefix=self._prefix, partitions=PARTITIONS)
            )
        reader, metrics = Reader(log, alter), Metrics()
        dns = Dns(house.zone.servers, house.clock, 2.0)
        self._stack.push_async_callback(dns.close)
        events = Events(
            log, house.clock, metrics, service="verify", host=HOST, partitions=PARTITIONS, out=io.StringIO()
        )
        life = Life("verify", house.clock)
        deps = Deps(house.config, reader, house.clock, dns, events, metrics, PARTITIONS)
        running = Verify(asyncio.create_task(verify(deps, life)), life, reader)
        self._stack.push_async_callback(running.stop)
        await asyncio.wait_for(life.is_ready.wait(), PATIENCE_S)
        return running

    async def mail(self, content: bytes) -> str:
        """Send it in a session of its own; the reply to its final dot."""
        async with self.house.client() as client:
            await client.greet()
            return await client.mail(ANN, sender=BOB, content=content)

    async def results(self) -> list[bytes]:
        """What is to be put on top of each mail that waits, those of before included."""
        return [queued.mail.prepend for queued in await self.house.queued()]


async def passes_unread(at: Backup, alter: Alter) -> None:
    """A forged mail that verify cannot read whole, because of `alter`, is accepted with temperror; the same
    mail is refused as soon as it is read as it was sent."""
    bad = await at.verify(alter)
    assert (await at.mail(FORGED)).startswith("250 2.0.0")
    [fields] = await at.results()
    assert b"dkim=temperror" in fields
    assert b"dmarc=temperror" in fields
    await bad.stop()
    await at.verify()
    assert (await at.mail(FORGED)).startswith(REFUSED)


@asynccontextmanager
async def backup(
    folder: Path, kind: str, request: pytest.FixtureRequest, verdict_s: float = 30.0
) -> AsyncIterator[Backup]:
    """Ready, without any verify. `verdict_s`: how long ingest waits for one."""
    bootstrap = request.getfixturevalue("broker") if kind == "kafka" else ()
    prefix = fresh()
    async with AsyncExitStack() as stack:
        log: Log = await stack.enter_async_context(
            log_on(bootstrap, prefix=prefix, partitions=PARTITIONS)
            if kind == "kafka"
            else SqliteLog(folder / "log", partitions=PARTITIONS, clock=SystemClock())
        )
        timing = {"verdict_deadline_s": verdict_s}
        house = await stack.enter_async_context(House(folder, zone=zone_text(ZONE), log=log, timing=timing))
        house.judge = lambda trace, content: None  # what is not verify stays silent
        wish = Overrides(enforce=Enforce.DMARC)
        await house.install(Domain("office.example", 1.0, 2.0, overrides=wish))
        await house.put("recipients", "office.example", ANN, deliverable(ANN))
        await house.start()
        async with AsyncExitStack() as verifies:
            yield Backup(house, kind, verifies, bootstrap, prefix)
