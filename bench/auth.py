"""What it costs to say whether a mail is honest, and how soon it is said."""

import asyncio
import json
import sys
import time
from pathlib import Path
from textwrap import dedent

from bench import house
from bench.cpu import Meter
from bench.figures import Figures
from bench.signed import CLIENT, HELO, KINDS, SENDER, ZONE, mails
from deploy.kafka.cluster import Cluster
from libs.mail.records import Trace
from libs.runtime.clock import SystemClock
from libs.runtime.dns import Dns
from services.verify.authenticate import Authenticator
from services.verify.content import Assembled
from services.verify.heavy import Pool
from services.verify.spill import Spill
from tests.helpers.zone import Zone

MOST_CPU_US = {"dkim": 1200.0}
P50_MS, P99_MS = 5.0, 25.0
SAYS = {
    "dkim": "SPF, DKIM with RSA-2048, DMARC",
    "arc": "the same, and DKIM with Ed25519, and three ARC seals",
}
ROUNDS, MAILS = 15, 100
RATE, WARM_UP, COUNT = 200, 6000, 4000  # mails: a second, while brokers compile themselves, and then


async def cpu(figures: Figures) -> None:
    """Process time of a verdict whose DNS is known, in the round that took least."""
    trace = Trace(1, house.DOMAIN, CLIENT, HELO, SENDER)
    async with Zone(dedent(house.ZONE) + ZONE) as zone:
        clock, pool = SystemClock(), Pool()
        dns = Dns(zone.servers, clock, 5.0)
        host = "mx1.backup.example"
        checks = Authenticator(dns, clock, pool, authserv_id=host, hosts=[host], within_s=15.0)
        for kind in KINDS:
            contents = mails(kind, MAILS)
            said = await checks.verdict("warm", trace, Assembled((contents[0],), Spill(None)))
            passed = [method for method, result in said.results.items() if result == "pass"]
            least = min(_round(checks, trace, contents) for _ in range(ROUNDS))
            note = f"{len(contents[0])} octets: {SAYS[kind]}; passed: {', '.join(passed)}"
            figures.add(f"auth_cpu.{kind}", least * 1e6, "us/mail", most=MOST_CPU_US.get(kind), note=note)
        await dns.close()
        await pool.close()


def _round(checks: Authenticator, trace: Trace, contents: list[bytes]) -> float:
    """Seconds a mail."""
    began = time.process_time()
    for content in contents:
        if checks.now("id", trace, content) is None:
            raise SystemExit("the DNS of a mail is not known any more")
    return (time.process_time() - began) / len(contents)


async def latency(folder: Path, figures: Figures, cluster: Cluster | None = None) -> None:
    """From the moment when the last chunk is appended until a follower sees the verdict, as ingest does."""
    async with house.house(folder, cluster, ZONE) as built:
        if cluster is None:
            await built.running.stop("solo")  # the embedded log is of one process: the one that sends
        for kind in KINDS:
            meter = Meter({"verify": built.pids["verify"]} if cluster else {})
            took = await _sent(built.running.config, kind)
            name, note = f"{built.log}.verdict.{kind}", f"{RATE} mails a second: {SAYS[kind]}"
            figures.add(f"{name}.p50", took["verdict.p50"], "ms", most=P50_MS, note=note)
            figures.add(f"{name}.p99", took["verdict.p99"], "ms", most=P99_MS, note=note)
            for part in ("p50", "p99"):
                until = "from the hand-over of the chunk, until it is stored"
                figures.add(f"{name}.stored.{part}", took[f"stored.{part}"], "ms", note=until)
                until = "from the hand-over of the chunk, until the verdict is seen"
                figures.add(f"{name}.whole.{part}", took[f"whole.{part}"], "ms", note=until)
            for part, seconds in meter.taken().items():
                figures.add(f"{name}.cpu.{part}", seconds * 1000 / (WARM_UP + COUNT), "ms/mail")


async def _sent(file: Path, kind: str) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.verdicts", str(file), "--kind", kind, "--rate", str(RATE),
        "--warm-up", str(WARM_UP), "--count", str(COUNT), stdout=asyncio.subprocess.PIPE, cwd=house.ROOT,
    )  # fmt: skip
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit("the verdicts were not measured")
    figures: dict[str, float] = json.loads(out.splitlines()[-1])
    return figures
