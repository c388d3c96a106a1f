"""verify's callouts over a log, a real DNS server and a real primary."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from libs import topics
from libs.log.contract import Log
from libs.log.sqlite import SqliteLog
from libs.mail.codec import encode
from libs.mail.event import Event, EventType
from libs.mail.knowledge import (
    Callout,
    Observed,
    PrimaryFacts,
    PrimaryState,
    RecipientStatus,
    RecipientTry,
    Status,
    Told,
)
from libs.mail.records import Domain
from libs.runtime.clock import Clock as ClockProtocol
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config
from libs.runtime.deps import Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics
from libs.smtp.client import CALLOUT, Timeouts
from services.verify.callouts import NOBODY, Callouts
from services.verify.calls import GENTLE, Gait
from services.verify.known import Known
from services.verify.learning import LIFETIMES, Lifetimes
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

PARTITIONS = 2
ANN, BOB, EVE = "ann@office.example", "bob@office.example", "eve@office.example"
ZONE = """
office.example      MX 10 mx.office.example
office.example      MX 20 mx1.backup.example
mx.office.example   A 127.0.0.2
mx1.backup.example  A 127.0.0.9
"""


class House:
    """verify's callouts with everything they need, and the one who asks."""

    def __init__(self, deps: Deps, known: Known, callouts: Callouts, zone: Zone, out: io.StringIO) -> None:
        self.deps, self.known, self.callouts, self.zone, self.out = deps, known, callouts, zone, out

    async def put(
        self, topic: str, key: str, record: Domain | Callout | Observed | PrimaryState | Told
    ) -> None:
        domain = key.rpartition("@")[2]
        partition = topics.partition_of(domain, PARTITIONS)
        await self.deps.log.append(topic, partition, key.encode(), encode(record), within=PATIENCE_S)

    async def add(self, domain: str = "office.example", **more: object) -> None:
        record = Domain(domain, 1.0, **{"active_since": 1.0, **more})  # type: ignore[arg-type]
        await self.put("domains", domain, record)
        await until(lambda: self.known.settings(domain))

    async def remove(self, domain: str = "office.example") -> None:
        partition = topics.partition_of(domain, PARTITIONS)
        await self.deps.log.append("domains", partition, domain.encode(), None, within=PATIENCE_S)

    def events(self) -> str:
        """All that was said, a JSON object a line."""
        return self.out.getvalue()

    async def ask(self, mailbox: str, *, anew: bool = False) -> RecipientStatus | RecipientTry:
        """As ingest does: watch, publish, wait for the recipient to change."""
        key = mailbox.lower().encode()
        watches = [self.known.recipients.watch(name) for name in (key, b"try:" + key)]
        await self.put("callouts", mailbox.lower(), Callout(mailbox, "mx1.backup.example", anew))
        done, open_ = await asyncio.wait(watches, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        for watch in open_:
            watch.cancel()
        assert done, f"no answer for {mailbox}"
        found = self.known.recipient(key, mailbox)
        answer = found.tried if watches[1] in done else found.status
        assert answer is not None
        return answer

    async def advance(self, seconds: float) -> None:
        """Move this process's clock and the log's, and return once the log's was heard."""
        assert isinstance(self.deps.clock, Clock)
        self.deps.clock.advance(seconds)
        await until(lambda: self.deps.events.clocks.agree)

    def status(self, mailbox: str) -> Status | None:
        found = self.known.recipient(mailbox.encode(), mailbox).status
        return found.status if found is not None else None

    def tried(self, mailbox: str) -> RecipientTry | None:
        return self.known.recipient(mailbox.encode(), mailbox).tried

    def facts(self, domain: str = "office.example") -> PrimaryFacts | None:
        return self.known.facts(domain)


async def ticks(deps: Deps) -> None:
    """The log's clock is heard, however this one jumps: one event a minute of its time."""
    ticked_at = float("-inf")
    while True:
        if deps.clock.mono() - ticked_at >= 60:
            ticked_at = deps.clock.mono()
            deps.events.emit(Event(type=EventType.TICK))
        await asyncio.sleep(0.01)


def configuration(tmp_path: Path, port: int, zone: Zone) -> Config:
    return Config(
        installation={
            "id": "installation-1",
            "hosts": ["mx1.backup.example"],
            "operators": "ops@ops.example",
        },
        host={"name": "mx1.backup.example", "ipv4": ["127.0.0.9"]},
        state_directory=tmp_path,
        dial={"port": port, "allow": ["127.0.0.0/8", "::1/128"]},
        dns={"servers": [f"127.0.0.1:{zone.port}"]},
    )  # type: ignore[arg-type]


@asynccontextmanager
async def house(
    tmp_path: Path,
    primary: Primary,
    *,
    zone: str = ZONE,
    clock: ClockProtocol | None = None,
    lifetimes: Lifetimes = LIFETIMES,
    log: Log | None = None,
    gently: Gait = GENTLE,
    timeouts: Timeouts = CALLOUT,
) -> AsyncIterator[House]:
    """`log`: instead of an embedded one of its own."""
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        dns_server = await stack.enter_async_context(Zone(zone))
        log = log or await stack.enter_async_context(
            SqliteLog(tmp_path / "log", partitions=PARTITIONS, clock=clock)
        )
        config = configuration(tmp_path, primary.port, dns_server)
        out = io.StringIO()
        dns, metrics = Dns(dns_server.servers, clock, 2.0), Metrics()
        events = Events(log, clock, metrics, service="verify", host="h", partitions=PARTITIONS, out=out)
        deps = Deps(config, log, clock, dns, events, metrics, PARTITIONS)
        known = Known(deps)
        callouts = Callouts(deps, known, tick_s=0.02, lifetimes=lifetimes, gently=gently, timeouts=timeouts)
        tasks = [asyncio.create_task(table.run()) for table in known.tables]
        tasks += [asyncio.create_task(events.run()), asyncio.create_task(ticks(deps))]
        running = asyncio.create_task(callouts.run())
        try:
            await known.caught_up()
            async with log.own("verify", callouts):
                yield House(deps, known, callouts, dns_server, out)
                await callouts.drain()
                await running
        finally:
            for task in (*tasks, running):
                task.cancel()
            await asyncio.gather(*tasks, running, return_exceptions=True)
            await dns.close()


def at(**more: object) -> Primary:
    return Primary(address="127.0.0.2", **more)  # type: ignore[arg-type]


def asked(primary: Primary) -> list[str]:
    """Whom it was asked about, in order; without those that nobody has."""
    commands = [command for visit in primary.visits for command in visit.commands]
    names = [command[len("RCPT TO:<") : -1] for command in commands if command.startswith("RCPT")]
    return [name for name in names if not name.startswith(NOBODY)]
