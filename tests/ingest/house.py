"""A running ingest on a real log, with verify played by appending to its topics."""

import asyncio
import io
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from libs import topics
from libs.log.contract import BEGIN, END, Log, Record
from libs.log.sqlite import SqliteLog
from libs.mail.address import mailbox
from libs.mail.codec import decode, decode_callout, encode, mail_of
from libs.mail.event import Event, decode_events
from libs.mail.knowledge import Callout
from libs.mail.records import (
    Access,
    Action,
    ContentRef,
    Domain,
    Installation,
    Mail,
    QueueEntry,
    Trace,
    Verdict,
)
from libs.runtime.clock import Clock, SystemClock
from libs.runtime.config import Config
from libs.runtime.deps import Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics
from libs.runtime.run import Life
from services.ingest.service import ingest
from tests.helpers.client import Client
from tests.helpers.patience import PATIENCE_S
from tests.helpers.zone import Zone
from tests.ingest.faulty import Faulty

PARTITIONS = 3
INSTALLATION = "installation-1"
HOST = "mx1.backup.example"


class Queued:
    """A mail of the topic `queue`, its content put together."""

    def __init__(self, mail: Mail, ref: ContentRef, content: bytes) -> None:
        self.mail, self.ref, self.content = mail, ref, content


def free_port() -> tuple[socket.socket, int]:
    """A port that is ours as long as the socket is open: ingest binds it with SO_REUSEPORT, too."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held, held.getsockname()[1]


def config(state: Path, port: int, **parts: dict[str, Any]) -> Config:
    """The configuration of a test; `parts` override single keys of a part."""
    values: dict[str, Any] = {
        "installation": {
            "id": INSTALLATION,
            "hosts": [HOST, "mx2.backup.example"],
            "operators": "ops@operators.example",
        },
        "host": {"name": HOST, "ipv4": ["192.0.2.1"], "ipv6": ["2001:db8::1"]},
        "state_directory": state,
        "smtp": {"listen": [f"127.0.0.1:{port}"], "drain_s": 0.0},
        "timing": {"rcpt_deadline_s": 0.3, "verdict_deadline_s": 5.0, "acknowledgement_s": 5.0},
    }
    for name, part in parts.items():
        values[name] = values.get(name, {}) | part
    return Config(**values)


class House:
    """`async with House(tmp_path)`. `answers`: mailbox -> records that verify writes when asked (missing: it
    stays silent); `judge(trace, content)` gives the verdict, None to stay silent. With `proxies` (networks)
    the port is a proxied one. `log`: a log that others used before; what they left there is not seen, and
    forget() takes back what this house wrote into its tables."""

    def __init__(
        self,
        tmp_path: Path,
        *,
        zone: str = "",
        full: bool = False,
        clock: Clock | None = None,
        proxies: Sequence[str] = (),
        log: Log | None = None,
        **parts: dict[str, Any],
    ) -> None:
        self._proxies = list(proxies)
        self._full, self._given = full, log
        # On a shared log an id of one's own: sights of others are of no use then.
        self.installation = INSTALLATION if log is None else f"installation-of-{secrets.token_hex(8)}"
        self._starts: dict[str, dict[int, int]] = {}
        self._written: set[tuple[str, int, bytes]] = set()
        self._tmp_path, self._zone_text, self._parts = tmp_path, zone, parts
        self.answers: dict[str, list[tuple[str, Struct]]] = {}
        self.asked: list[str] = []
        self.judge: Callable[[Trace, bytes], Verdict | None] = lambda trace, content: Verdict(
            "", Action.ACCEPT, b"Authentication-Results: mx1.backup.example; none\r\n", may_notify=True
        )
        self.events: list[Event] = []
        self.judged: list[tuple[Trace, bytes]] = []
        self.aborted: list[str] = []
        self.metrics = Metrics()
        self.clock = clock or SystemClock()
        self.life = Life("ingest", self.clock)
        self._stack = AsyncExitStack()
        self._parts_of: dict[str, list[bytes]] = {}

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        held, self.port = free_port()
        self._stack.callback(held.close)
        self.log = Faulty(self._given or await self._stack.enter_async_context(self._own_log()))
        if self._given is not None:
            self.log.disk = 0.9 if self._full else None
            await self._skip()
        self.zone = await self._stack.enter_async_context(Zone(self._zone_text))
        if self._proxies:
            proxied = {
                "listen": [],
                "proxy_listen": [f"127.0.0.1:{self.port}"],
                "proxy_networks": self._proxies,
            }
            self._parts["smtp"] = self._parts.get("smtp", {}) | proxied
        of = {"id": self.installation} | self._parts.pop("installation", {})
        self.config = config(self._tmp_path, self.port, installation=of, **self._parts)
        self.dns = Dns(self.zone.servers, self.clock, timeout_s=1.0)
        self._stack.push_async_callback(self.dns.close)
        events = Events(
            self.log,
            self.clock,
            self.metrics,
            service="ingest",
            host=HOST,
            partitions=PARTITIONS,
            out=io.StringIO(),
        )
        self.deps = Deps(self.config, self.log, self.clock, self.dns, events, self.metrics, PARTITIONS)
        self._tasks = [
            asyncio.create_task(work)
            for work in (events.run(), self._answer(), self._judge(), self._collect())
        ]
        self.service: asyncio.Task[None] | None = None
        return self

    def _own_log(self) -> SqliteLog:
        return SqliteLog(
            self._tmp_path / "log.db",
            partitions=PARTITIONS,
            clock=SystemClock(),
            reserve=(0.0, 0),
            free=(lambda: (10, 100)) if self._full else None,
        )

    async def _skip(self) -> None:
        """What is in the log already is not ours."""
        ours = ("callouts", "content", "events", "queue", "requests")
        ends = await asyncio.gather(*(self._ends(topic) for topic in ours))
        self._starts = dict(zip(ours, ends, strict=True))

    async def _ends(self, topic: str) -> dict[int, int]:
        found = await asyncio.gather(*(self.log.bounds(topic, number) for number in range(PARTITIONS)))
        return {number: bounds.end for number, bounds in enumerate(found)}

    async def forget(self) -> None:
        """Take back what was put into tables, for the next house on this log."""
        await asyncio.gather(
            *(
                self.log.append(topic, partition, key, None, within=PATIENCE_S)
                for topic, partition, key in self._written
            )
        )

    async def start(self) -> Self:
        """Run ingest until it is ready."""
        self.service = asyncio.create_task(self.run())
        ready = asyncio.create_task(self.life.is_ready.wait())
        await asyncio.wait({self.service, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        if self.service.done():
            self.service.result()
        assert ready.done(), "not ready"
        return self

    async def run(self) -> None:
        await ingest(self.deps, self.life)

    def held(self) -> float:
        """Octets of content in memory, as the metric says."""
        held = self.metrics.registry.get_sample_value("backupmx_content_budget_bytes")
        assert held is not None
        return held

    def accepted(self) -> float:
        """Mails that got 250, as the metric says."""
        [family] = self.metrics.accepted.collect()
        return sum(sample.value for sample in family.samples)

    def partition(self, domain: str) -> int:
        return topics.partition_of(domain, PARTITIONS)

    async def stop(self) -> None:
        """Drain."""
        if self.service is not None:
            self.life.must_drain.set()
            service, self.service = self.service, None
            await asyncio.wait_for(service, PATIENCE_S)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            await self._stack.aclose()
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    def client(self, **how: Any) -> Client:
        return Client(self.port, **how)

    # --- what control and verify write ---

    async def install(self, *domains: Domain, count: int | None = None, id_: str = "") -> None:
        """The installation record and its domains."""
        for domain in domains:
            await self.put("domains", domain.domain, domain.domain, domain)
        record = Installation(id_ or self.installation, PARTITIONS, len(domains) if count is None else count)
        self._written.add(("domains", 0, topics.INSTALLATION_KEY))
        await self.log.append("domains", 0, topics.INSTALLATION_KEY, encode(record), within=PATIENCE_S)

    async def permit(self, access: Access) -> None:
        """What the operator said of a client or a sender."""
        key = topics.ACCESS_KEY + access.subject.encode()
        self._written.add(("domains", 0, key))
        await self.log.append("domains", 0, key, encode(access), within=PATIENCE_S)

    async def put(self, topic: str, domain: str, key: str, record: Struct | None) -> None:
        partition = topics.partition_of(domain, PARTITIONS)
        value = None if record is None else encode(record)
        if topics.TOPICS[topic].compact:
            self._written.add((topic, partition, key.encode()))
        await self.log.append(topic, partition, key.encode(), value, within=PATIENCE_S)

    async def _follow(self, topic: str, start: int) -> "Any":
        starts = self._starts.get(topic) or dict.fromkeys(range(PARTITIONS), start)
        async with aclosing(self.log.follow(topic, starts)) as batches:
            async for batch in batches:
                for record in batch.records:
                    yield record

    async def _answer(self) -> None:
        async for record in self._follow("callouts", END):
            question = decode_callout(record.value)
            if not isinstance(question, Callout):
                continue
            asked = question.mailbox
            self.asked.append(f"{asked} anew" if question.anew else asked)
            for key, answer in self.answers.get(mailbox(asked).key, ()):
                await self.put("recipients", mailbox(asked).domain, key, answer)

    async def _judge(self) -> None:
        async for record in self._follow("content", BEGIN):
            id_ = record.key.decode()
            if record.header("abort"):
                self.aborted.append(id_)
                self._parts_of.pop(id_, None)
                continue
            parts = self._parts_of.setdefault(id_, [])
            assert record.header("index") == b"%d" % len(parts)
            parts.append(record.value)
            if (header := record.header("trace")) is not None:
                trace, content = decode(header, Trace), b"".join(self._parts_of.pop(id_))
                assert trace.chunks == len(parts)
                self.judged.append((trace, content))
                verdict = self.judge(trace, content)
                if verdict is not None:
                    await self.put("verdicts", trace.domain, id_, verdict)

    async def _collect(self) -> None:
        async for record in self._follow("events", BEGIN):
            self.events += decode_events(record.value)

    # --- what came out ---

    async def records(self, topic: str) -> list[Record]:
        """All records of `topic` that are there now."""
        found: list[Record] = []
        left = set(range(PARTITIONS))
        starts = self._starts.get(topic) or dict.fromkeys(left, BEGIN)
        if starts == await self._ends(topic):
            return []  # Kafka waits for half a second before it says so
        async with aclosing(self.log.follow(topic, starts)) as batches:
            async for batch in batches:
                found += batch.records
                if batch.position >= batch.end:
                    left.discard(batch.partition)
                if not left:
                    return found
        return found

    async def queued(self) -> list[Queued]:
        """Mails of `queue` with their content, without those that have a tombstone."""
        newest = {record.key: record for record in await self.records("queue")}
        found = []
        for record in newest.values():
            if record.value is None:
                continue
            ref = decode(record.header("content") or b"", ContentRef)
            chunks = [
                (await self.log.read("content", ref.partition, offset, record.key)).value or b""
                for offset in ref.offsets
            ]
            content = b"".join(chunks)
            assert len(content) == ref.size
            assert ref.eightbit == (not content.isascii())
            assert record.header("format") == b"1"
            found.append(Queued(mail_of(decode(record.value, QueueEntry)), ref, content))
        return found
