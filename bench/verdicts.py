"""How soon a verdict is seen: `python -m bench.verdicts FILE --kind KIND`, with the configuration in FILE.

Appends contents of one chunk as ingest does, so many a second whatever became of those before, and follows
`verdicts`. Over Kafka a verify runs elsewhere; the embedded log has one process, so it runs in this one, as
in `solo`. Prints a JSON object of milliseconds: `stored.p50` and `stored.p99` from the moment when a content
is handed to the log until that is acknowledged, `verdict.` from there until its verdict is seen (which may
come first), `whole.` both together.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import uvloop

from bench.figures import percentiles
from bench.house import DOMAIN
from bench.signed import CLIENT, HELO, KINDS, SENDER, mails
from libs.log.contract import END, Log
from libs.log.open import open_log
from libs.mail.codec import decode, encode
from libs.mail.records import Trace, Verdict
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config
from libs.runtime.config_file import load
from libs.runtime.deps import Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics
from libs.runtime.run import Life
from libs.topics import partition_of
from services.verify.service import verify

DIFFERENT = 50
WITHIN_S = 60.0


@asynccontextmanager
async def judged(config: Config, log: Log, partitions: int) -> AsyncIterator[None]:
    """With a verify in this process."""
    clock, metrics = SystemClock(), Metrics()
    dns = Dns([(at.address, at.port) for at in config.dns.servers], clock, config.dns.timeout_s)
    host = config.host.name
    events = Events(log, clock, metrics, service="verify", host=host, partitions=partitions)
    life = Life("verify", clock)
    running = asyncio.create_task(verify(Deps(config, log, clock, dns, events, metrics, partitions), life))
    await asyncio.wait_for(life.is_ready.wait(), WITHIN_S)
    yield
    life.must_drain.set()
    await running
    await dns.close()


class Load:
    """What was sent to one partition, and what came of it. Times are monotonic seconds, by mail id."""

    def __init__(self, log: Log, partition: int, contents: Sequence[bytes]) -> None:
        self.handed_over: dict[bytes, float] = {}
        self.stored: dict[bytes, float] = {}
        self.seen: dict[bytes, float] = {}
        self._log, self._partition, self._contents = log, partition, contents
        self._headers = [("index", b"0"), ("trace", encode(Trace(1, DOMAIN, CLIENT, HELO, SENDER)))]
        self._expected = 0
        self._follows, self._all = asyncio.Event(), asyncio.Event()

    async def follow(self) -> None:
        """For ever, as ingest does; raises SystemExit for a verdict that did not pass."""
        async with aclosing(self._log.follow("verdicts", {self._partition: END})) as batches:
            async for batch in batches:
                now = time.monotonic()
                self._follows.set()
                for record in batch.records:
                    self.seen[record.key] = now
                    results = decode(record.value or b"", Verdict).results
                    if {results[method] for method in ("spf", "dkim", "dmarc")} != {"pass"}:
                        raise SystemExit(f"a mail did not pass: {results}")
                if len(self.seen) >= self._expected:
                    self._all.set()

    async def send(self, count: int, rate: float) -> None:
        """So many, each at its time; returns when all verdicts were seen."""
        await asyncio.wait_for(self._follows.wait(), WITHIN_S)
        for times in (self.handed_over, self.stored, self.seen):
            times.clear()
        self._expected = count
        self._all.clear()
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(began + number / rate - time.monotonic())
                group.create_task(self._one(b"%.6f-%d" % (began, number), number))
        await asyncio.wait_for(self._all.wait(), WITHIN_S)

    async def _one(self, key: bytes, number: int) -> None:
        content = self._contents[number % len(self._contents)]
        self.handed_over[key] = time.monotonic()
        await self._log.append(
            "content", self._partition, key, content, within=WITHIN_S, headers=self._headers
        )
        self.stored[key] = time.monotonic()

    def figures(self) -> dict[str, float]:
        """See above."""
        found: dict[str, float] = {}
        for name, begun, ended in (
            ("stored", self.handed_over, self.stored),
            ("verdict", self.stored, self.seen),
            ("whole", self.handed_over, self.seen),
        ):
            took = percentiles(ended[key] - began for key, began in begun.items())
            found |= {f"{name}.{part}": value for part, value in took.items()}
        return found


async def measure(options: argparse.Namespace) -> dict[str, float]:
    config = load(options.file)
    async with AsyncExitStack() as stack:
        log, partitions = await stack.enter_async_context(open_log(config, SystemClock(), "bench"))
        if config.log.kind == "sqlite":
            await stack.enter_async_context(judged(config, log, partitions))
        load_ = Load(log, partition_of(DOMAIN, partitions), mails(options.kind, DIFFERENT))
        following = asyncio.create_task(load_.follow())
        sending = asyncio.create_task(_sent(load_, options))
        await asyncio.wait({following, sending}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        following.cancel()
        return await sending


async def _sent(load_: Load, options: argparse.Namespace) -> dict[str, float]:
    await load_.send(options.warm_up, options.rate)
    await load_.send(options.count, options.rate)
    return load_.figures()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--kind", choices=tuple(KINDS), required=True)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--warm-up", type=int, default=2000)
    parser.add_argument("--count", type=int, default=4000)
    print(json.dumps(uvloop.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
