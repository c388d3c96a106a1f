"""A whole `deliver` in this process: a real log, a real DNS server, a real primary on a socket."""

import asyncio
import io
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from libs import topics
from libs.log.contract import BEGIN, Log, Record
from libs.log.sqlite import SqliteLog
from libs.log.table import Table
from libs.mail.codec import Undecodable, decode, encode, mail_of, new_entry, queue_headers
from libs.mail.event import Event, EventType, decode_event
from libs.mail.records import (
    Basis,
    ContentRef,
    Domain,
    Flush,
    Installation,
    Kind,
    Mail,
    Overrides,
    Progress,
    QueueEntry,
    Recipient,
    RequestRecord,
)
from libs.runtime.clock import Clock, SystemClock
from libs.runtime.config import Config
from libs.runtime.deps import Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics
from libs.runtime.run import Life
from services.deliver.partition import Shared
from services.deliver.service import deliver, follow_recipients, shared
from services.deliver.shard import Shard
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.primary import Primary

PARTITIONS = 2
HOST = "mx1.backup.example"
CONTENT = b"From: eve@sender.example\r\nSubject: hi\r\n\r\n.dot\r\n..two\r\nend\r\n"

ZONE = """
office.example      MX 10 mx.office.example
                    MX 20 mx1.backup.example
mx.office.example   A  127.0.0.1
sender.example      MX 10 mx.sender.example
mx.sender.example   A  127.0.0.1
"""


def config(port: int, dial: Mapping[str, object], **timing: float) -> Config:
    """With fast probes; `port`: where the primaries listen."""
    return Config(
        installation={"id": "installation", "hosts": (HOST,), "operators": "ops@isp.example"},
        host={"name": HOST},
        state_directory="unused",
        dial={"port": port, "allow": ("127.0.0.0/8",), **dial},
        timing={"probe_s": 0.2, "settle_s": 0.0, "acknowledgement_s": 5.0, **timing},
    )


class TestClaim:
    """A claim that a test ends."""

    __test__ = False
    group = "deliver"

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self._held = True

    def held(self) -> bool:
        return self._held

    def end(self) -> None:
        self._held = False


class House:
    """`queue` puts mails on the log as ingest does; `state` and `events` read what deliver wrote."""

    def __init__(self, log: Log, clock: Clock, dns: Dns, settings: Config, partitions: int) -> None:
        self.log, self.clock, self.partitions = log, clock, partitions
        self.out = io.StringIO()
        self.metrics = Metrics()
        emitted = Events(
            log, clock, self.metrics, service="deliver", host=HOST, partitions=partitions, out=self.out
        )
        self.deps = Deps(settings, log, clock, dns, emitted, self.metrics, partitions)
        self._ids = itertools.count(1)

    def partition(self, domain: str) -> int:
        return topics.partition_of(domain, self.partitions)

    async def domain(
        self, name: str, *, held: bool = False, suspended: bool = False, era: int = 0, **overrides: Any
    ) -> None:
        own = Overrides(**overrides)
        record = Domain(name, self.clock.wall(), 1.0, suspended=suspended, held=held, overrides=own, era=era)
        await self.log.append(
            "domains", self.partition(name), name.encode(), encode(record), within=PATIENCE_S
        )

    async def install(self) -> None:
        record = Installation("installation", self.partitions, 0)
        await self.log.append("domains", 0, topics.INSTALLATION_KEY, encode(record), within=PATIENCE_S)

    async def queue(
        self,
        *recipients: str,
        content: bytes = CONTENT,
        chunk: int = 900_000,
        domain: str = "office.example",
        may_notify: bool = True,
        reverse_path: str = "eve@sender.example",
        kind: Kind = Kind.RELAYED,
        basis: Basis = Basis.DELIVERABLE,
        progress: Progress | None = None,
        notify: tuple[str, ...] = (),
        ref_size: int = 0,
        **fields: object,
    ) -> str:
        """Commit a mail; returns its id."""
        id_ = f"mail{next(self._ids):06}"
        number = self.partition(domain)
        chunks = [content[at : at + chunk] for at in range(0, len(content), chunk)]
        offsets = []
        for index, octets in enumerate(chunks):
            stored = await self.log.append(
                "content",
                number,
                id_.encode(),
                octets,
                within=PATIENCE_S,
                headers=(("index", str(index).encode()),),
            )
            offsets.append(stored.offset)
        mail = Mail(
            id=id_,
            domain=domain,
            next_hop=domain,
            kind=kind,
            reverse_path=reverse_path,
            recipients=tuple(
                Recipient(name, basis, notify) for name in recipients or ("ann@office.example",)
            ),
            prepend=b"Received: by mx1.backup.example\r\n",
            arrived=stored.time,
            may_notify=may_notify,
            **fields,  # type: ignore[arg-type]
        )
        entry = new_entry(mail) if progress is None else QueueEntry(new_entry(mail).mail, progress)
        ref = ContentRef(number, tuple(offsets), ref_size or len(content))
        await self.log.append(
            "queue", number, id_.encode(), encode(entry), within=PATIENCE_S, headers=queue_headers(ref)
        )
        return id_

    async def flush(self, request_id: str, domain: str = "office.example") -> None:
        await self.ask(Flush(request_id, domain, "a test"))

    async def ask(self, request: RequestRecord) -> None:
        number, key = self.partition(request.domain), request.domain.encode()
        await self.log.append("requests", number, key, encode(request), within=PATIENCE_S)

    async def state(self, domain: str = "office.example") -> dict[str, Progress | None]:
        """The newest record of each mail: its progress, None for a tombstone."""
        found: dict[str, Progress | None] = {}
        async for record in self.records("queue", domain):
            with suppress(Undecodable):
                value = record.value
                found[record.key.decode()] = None if value is None else decode(value, QueueEntry).progress
        return found

    async def mails(self, domain: str = "office.example") -> list[Mail]:
        return [
            mail_of(decode(record.value, QueueEntry))
            async for record in self.records("queue", domain)
            if record.value is not None
        ]

    async def records(self, topic: str, domain: str) -> AsyncIterator:  # type: ignore[type-arg]
        batches = self.log.follow(topic, {self.partition(domain): BEGIN})
        try:
            async for batch in batches:
                for record in batch.records:
                    yield record
                if batch.position >= batch.end:
                    return
        finally:
            await batches.aclose()

    def events(self, *types: EventType) -> list[Event]:
        found = [decode_event(line.encode()) for line in self.out.getvalue().splitlines()]
        return [event for event in found if event.type in types]

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[Life]:
        """The service runs; drained at the end."""
        life = Life("deliver", self.clock)
        task = asyncio.create_task(deliver(self.deps, life))
        events = asyncio.create_task(self.deps.events.run())
        ready = asyncio.create_task(life.is_ready.wait())
        try:
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            yield life
        finally:
            ready.cancel()
            life.must_drain.set()
            await asyncio.wait_for(task, PATIENCE_S)
            await asyncio.wait_for(self.deps.events.flush(), PATIENCE_S)
            events.cancel()
            await asyncio.gather(events, ready, return_exceptions=True)

    @asynccontextmanager
    async def sharing(self) -> AsyncIterator[Shared]:
        """What shards have in common, for tests that hold the claims themselves."""

        def decoded(record: Record) -> Domain | None:
            return None if record.key == topics.INSTALLATION_KEY else decode(record.value or b"", Domain)

        def quarantined(record: Record) -> None:
            raise AssertionError(record)

        table = Table(
            self.log, "domains", range(self.partitions), decoded, self.clock, quarantined=quarantined
        )
        running = [asyncio.create_task(table.run()), asyncio.create_task(self.deps.events.run())]
        try:
            await table.caught_up()
            yield shared(self.deps, table)
        finally:
            await asyncio.wait_for(self.deps.events.flush(), PATIENCE_S)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    @asynccontextmanager
    async def shard(self, common: Shared, domain: str = "office.example") -> AsyncIterator[Shard]:
        """The shard of the domain's partition, caught up, under a claim that ends with the block."""
        claim = TestClaim(self.partition(domain))
        shard = Shard(claim, common)
        task = asyncio.create_task(shard.run())
        taught = asyncio.create_task(follow_recipients(self.deps, lambda number: shard))
        try:
            await asyncio.wait_for(shard.caught_up.wait(), PATIENCE_S)
            yield shard
        finally:
            taught.cancel()
            await asyncio.gather(taught, return_exceptions=True)
            claim.end()
            shard.lost()
            await asyncio.wait_for(task, PATIENCE_S)

    async def ended(self, ids: Sequence[str]) -> None:
        """Return once all these mails have their tombstones."""

        async def done() -> bool:
            state = await self.state()
            return all(id_ in state and state[id_] is None for id_ in ids)

        await until(done)


@asynccontextmanager
async def house(
    path: Path,
    primary: Primary,
    servers: Sequence[tuple[str, int]],
    clock: Clock | None = None,
    dial: Mapping[str, object] = MappingProxyType({}),
    **timing: float,
) -> AsyncIterator[House]:
    """A house with the relay domain office.example, deliver not running yet."""
    clock = clock or SystemClock()
    dns = Dns(servers, clock, 2.0)
    async with SqliteLog(
        path / "log.sqlite", partitions=PARTITIONS, clock=clock, reserve=(0.0, 0), chores_every_s=3600
    ) as log:
        built = House(log, clock, dns, config(primary.port, dial, **timing), PARTITIONS)
        await built.install()
        await built.domain("office.example")
        try:
            yield built
        finally:
            await dns.close()
