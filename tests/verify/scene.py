"""A log, a zone, and `verify` running on them: chunks go in, verdicts come out."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from libs.log.contract import BEGIN, Log, Stored, Unavailable
from libs.log.sqlite import SqliteLog
from libs.mail.codec import decode, encode
from libs.mail.records import Trace, Verdict
from libs.runtime.clock import Clock, SystemClock
from libs.runtime.config import Config
from libs.runtime.deps import Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics
from libs.runtime.run import Life
from services.verify.service import verify
from tests.helpers.patience import PATIENCE_S
from tests.helpers.zone import Zone
from tests.verify import sign
from tests.verify.sign import zone_text
from tests.verify.test_auth_cases import HOSTS

ZONE = """
sender.example                 TXT "v=spf1 ip4:192.0.2.0/24 -all"
mail.sender.example            A 192.0.2.1
ed._domainkey.sender.example   TXT {ed25519}
slow.example                   !timeout
"""
PARTITIONS = 4
SIGNED = sign.made(["sign ed25519 d=sender.example s=ed"])


def trace(chunks: int, sender: str = "bob@sender.example") -> Trace:
    return Trace(chunks, "office.example", "192.0.2.1", "mail.sender.example", sender)


class Scene:
    """One log, one zone; `start()` runs a verify on them, as often as wanted."""

    def __init__(self, log: Log, zone: Zone, clock: Clock, directory: Path) -> None:
        self.log, self.zone, self.clock, self.directory = log, zone, clock, directory
        self.verdicts: dict[str, list[Verdict]] = {}
        self.metrics = Metrics()
        self._came = asyncio.Condition()
        self._dns: list[Dns] = []
        self._running: list[tuple[asyncio.Task[None], Life]] = []
        self._tail = asyncio.create_task(self._follow())

    async def start(
        self,
        dns_timeout_s: float = 0.5,
        log: Log | None = None,
        trusted: Sequence[str] = (),
        received_spf: bool = False,
    ) -> Life:
        """Another verify; on `log` where it is to have a connection of its own. `trusted`: whose seals."""
        log = log or self.log
        config = Config(
            installation={"id": "test-1234", "hosts": HOSTS, "operators": "ops@ops.example"},
            host={"name": HOSTS[0]},
            arc={"trusted": tuple(trusted)},
            auth={"received_spf": received_spf},
            state_directory=self.directory,
        )  # type: ignore[arg-type]
        dns = Dns(self.zone.servers, self.clock, dns_timeout_s)
        self._dns.append(dns)
        events = Events(
            log, self.clock, self.metrics, service="verify", host=HOSTS[0],
            partitions=PARTITIONS, out=io.StringIO(),
        )  # fmt: skip
        deps = Deps(config, log, self.clock, dns, events, self.metrics, PARTITIONS)
        life = Life("verify", self.clock)
        self._running.append((asyncio.create_task(verify(deps, life)), life))
        await asyncio.wait_for(life.is_ready.wait(), PATIENCE_S)
        return life

    async def stop(self) -> None:
        """Drain the one that was started first."""
        task, life = self._running.pop(0)
        life.must_drain.set()
        await asyncio.wait_for(task, PATIENCE_S)

    async def close(self) -> None:
        while self._running:
            await self.stop()
        self._tail.cancel()
        with suppress(asyncio.CancelledError, Unavailable):
            await self._tail
        for dns in self._dns:
            await dns.close()

    async def chunk(
        self, id_: str, number: int, value: bytes, last: Trace | None = None, p: int = 0
    ) -> Stored:
        headers = [("index", b"%d" % number)]
        if last is not None:
            headers.append(("trace", encode(last)))
        return await self.log.append("content", p, id_.encode(), value, within=PATIENCE_S, headers=headers)

    async def send(
        self, id_: str, content: bytes = sign.MESSAGE, sender: str = "bob@sender.example", p: int = 0
    ) -> None:
        await self.chunk(id_, 0, content, trace(1, sender), p)

    async def verdict(self, id_: str) -> Verdict:
        async with asyncio.timeout(PATIENCE_S), self._came:
            await self._came.wait_for(lambda: id_ in self.verdicts)
        return self.verdicts[id_][0]

    async def _follow(self) -> None:
        async for batch in self.log.follow("verdicts", dict.fromkeys(range(PARTITIONS), BEGIN)):
            for record in batch.records:
                verdict = decode(record.value or b"", Verdict)
                self.verdicts.setdefault(record.key.decode(), []).append(verdict)
            async with self._came:
                self._came.notify_all()


@asynccontextmanager
async def scene(directory: Path, clock: Clock | None = None) -> AsyncIterator[Scene]:
    clock = clock or SystemClock()
    async with (
        SqliteLog(directory / "log", partitions=PARTITIONS, clock=clock) as log,
        scene_on(log, directory, clock) as made,
    ):
        yield made


@asynccontextmanager
async def scene_on(log: Log, directory: Path, clock: Clock) -> AsyncIterator[Scene]:
    async with Zone(zone_text(ZONE)) as zone:
        made = Scene(log, zone, clock, directory)
        try:
            yield made
        finally:
            await made.close()
