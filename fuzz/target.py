"""`python -m fuzz.target FOLDER`: ingest in a process of its own, on the embedded log, with verify played.

Standard output: one JSON object a line. First `{"port": ...}`; for each mail of `queue` its `id`, `client`,
`recipients` and the SHA-256 of its `content`; for each line on standard input, once all mails so far are
told, `{"marked": true, "resident": octets, "errors": ..., "held": ...}`: exceptions of ours in sessions, and
octets of content in memory. Log lines go to standard error. It ends with its standard input.
"""

import asyncio
import ctypes
import gc
import hashlib
import io
import json
import os
import sys
import time
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, TextIO

import uvloop

from fuzz import furniture
from libs import topics
from libs.log.contract import BEGIN, END
from libs.log.sqlite import SqliteLog
from libs.mail.address import mailbox
from libs.mail.codec import decode, decode_callout, encode, mail_of
from libs.mail.knowledge import Callout, RecipientStatus, Status
from libs.mail.records import Action, ContentRef, Installation, QueueEntry, Trace, Verdict
from libs.runtime import logs
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config
from libs.runtime.deps import Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics
from libs.runtime.run import Life
from services.ingest.service import ingest
from tests.helpers.zone import Zone
from tests.ingest.house import INSTALLATION, config, free_port

PARTITIONS = 3
FIELDS = b"Authentication-Results: mx1.backup.example; none\r\n"


class Nowhere(io.StringIO):
    """Takes the lines of events and keeps none."""

    def write(self, text: str) -> int:
        return len(text)


class Target:
    """`deps` of the ingest that runs here; verify's part and the report are its tails."""

    def __init__(self, deps: Deps, report: TextIO, zone: Zone) -> None:
        self.deps, self.log, self._zone = deps, deps.log, zone
        self._report = report
        self._told = dict.fromkeys(range(PARTITIONS), 0)  # of `queue`

    async def furnish(self) -> None:
        for domain in furniture.domains():
            await self._put("domains", domain.domain, domain.domain, encode(domain))
        for status in furniture.statuses(time.time()):
            await self._put("recipients", status.mailbox.partition("@")[2], status.mailbox, encode(status))
        record = encode(Installation(INSTALLATION, PARTITIONS, len(furniture.domains())))
        await self.log.append("domains", 0, topics.INSTALLATION_KEY, record, within=5)

    async def _put(self, topic: str, domain: str, key: str, value: bytes) -> None:
        partition = topics.partition_of(domain, PARTITIONS)
        await self.log.append(topic, partition, key.encode(), value, within=30)

    async def answer(self) -> None:
        """Callouts: the first letters of a name say what its primary says."""
        async with aclosing(self.log.follow("callouts", dict.fromkeys(range(PARTITIONS), END))) as batches:
            async for batch in batches:
                for record in batch.records:
                    question = decode_callout(record.value or b"")
                    if not isinstance(question, Callout):
                        continue
                    asked = mailbox(question.mailbox)
                    kind = next((each for each in furniture.ASKED if asked.local.startswith(each)), "mute")
                    if kind != "mute":
                        status = Status.DELIVERABLE if kind == "yes" else Status.UNDELIVERABLE
                        known = RecipientStatus(str(asked), status, time.time(), time.time())
                        await self._put("recipients", asked.domain, asked.key, encode(known))

    async def judge(self) -> None:
        """Verdicts: a line of the content says which."""
        parts: dict[bytes, list[bytes]] = {}
        async with aclosing(self.log.follow("content", dict.fromkeys(range(PARTITIONS), END))) as batches:
            async for batch in batches:
                for record in batch.records:
                    if record.header("abort"):
                        parts.pop(record.key, None)
                        continue
                    parts.setdefault(record.key, []).append(record.value or b"")
                    if (header := record.header("trace")) is not None:
                        verdict = self._verdict(b"".join(parts.pop(record.key)))
                        await self._put(
                            "verdicts", decode(header, Trace).domain, record.key.decode(), encode(verdict)
                        )

    def _verdict(self, content: bytes) -> Verdict:
        if furniture.REJECT in content:
            return Verdict("", Action.REJECT, FIELDS, may_notify=True, reply="5.7.1 rejected by policy")
        if furniture.DEFER in content:
            return Verdict("", Action.DEFER, FIELDS, may_notify=True, reply="4.7.1 not now")
        return Verdict("", Action.ACCEPT, FIELDS, may_notify=True)

    async def tell(self) -> None:
        """What is in `queue`, as it comes."""
        async with aclosing(self.log.follow("queue", dict.fromkeys(range(PARTITIONS), BEGIN))) as batches:
            async for batch in batches:
                for record in batch.records:
                    ref = decode(record.header("content") or b"", ContentRef)
                    chunks = [
                        (await self.log.read("content", ref.partition, offset, record.key)).value or b""
                        for offset in ref.offsets
                    ]
                    mail = mail_of(decode(record.value or b"", QueueEntry))
                    self._say(
                        id=record.key.decode(),
                        client=mail.client,
                        recipients=len(mail.recipients),
                        content=hashlib.sha256(b"".join(chunks)).hexdigest(),
                        size=ref.size,
                    )
                self._told[batch.partition] = batch.position

    async def mark(self, port: int) -> None:
        """Answer each line on standard input until it ends."""
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        self._say(port=port)
        while await lines.readline():
            for partition in range(PARTITIONS):
                end = (await self.log.bounds("queue", partition)).end
                while self._told[partition] < end:  # noqa: ASYNC110 once or twice a run
                    await asyncio.sleep(0.01)
            self._zone.questions.clear()  # it keeps them for tests to look at
            read = self.deps.metrics.registry.get_sample_value
            self._say(
                marked=True,
                resident=needed(),
                errors=read("backupmx_session_errors_total"),
                held=read("backupmx_content_budget_bytes"),
            )

    def _say(self, **words: Any) -> None:
        self._report.write(json.dumps(words) + "\n")
        self._report.flush()


def needed() -> int:
    """Octets of memory of this process alone, without the pages of files (proc(5), RssAnon), and without what
    is free already: garbage in cycles, and what the C library keeps for the next who asks."""
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def settings(folder: Path, port: int) -> Config:
    """Limits that many sessions at once from one machine do not meet, deadlines that they wait for."""
    files = {"tls_certificate": folder / "cert.pem", "tls_key": folder / "key.pem"}
    return config(
        folder,
        port,
        smtp={
            "max_connections": 5000,
            "max_connections_per_client": 5000,
            "max_errors": furniture.MAX_ERRORS,
            **(files if files["tls_certificate"].exists() else {}),
        },
        defaults={"max_size": furniture.MAX_SIZE},
        timing={"rcpt_deadline_s": 0.3, "verdict_deadline_s": 60.0, "acknowledgement_s": 60.0},
    )


async def serve(folder: Path, report: TextIO) -> None:
    clock, metrics = SystemClock(), Metrics()
    held, port = free_port()
    async with AsyncExitStack() as stack:
        stack.callback(held.close)
        log = await stack.enter_async_context(
            SqliteLog(folder / "log.db", partitions=PARTITIONS, clock=clock, reserve=(0.0, 0))
        )
        zone = await stack.enter_async_context(Zone(""))
        dns = Dns(zone.servers, clock, timeout_s=5.0)
        stack.push_async_callback(dns.close)
        host = furniture.HOST
        events = Events(
            log, clock, metrics, service="ingest", host=host, partitions=PARTITIONS, out=Nowhere()
        )  # fmt: skip
        life = Life("ingest", clock)
        target = Target(
            Deps(settings(folder, port), log, clock, dns, events, metrics, PARTITIONS), report, zone
        )
        await target.furnish()
        async with asyncio.TaskGroup() as group:
            tails = [
                group.create_task(each)
                for each in (events.run(), target.answer(), target.judge(), target.tell())
            ]
            service = group.create_task(ingest(target.deps, life))
            await life.is_ready.wait()
            await target.mark(port)
            life.must_drain.set()
            await service
            for tail in tails:
                tail.cancel()


def main() -> None:
    # What the libraries print must not be taken for a report.
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logs.configure("ingest", furniture.HOST)
    uvloop.run(serve(Path(sys.argv[1]), report))


if __name__ == "__main__":
    main()
