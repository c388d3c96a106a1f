"""What a recipient costs in each replica of `recipients`, and how soon a new process has read very many."""

import asyncio
import json
import sys
from pathlib import Path

from bench.figures import Figures
from bench.house import DOMAIN, ROOT
from libs.log.sqlite import SqliteLog
from libs.mail.codec import encode
from libs.mail.knowledge import RecipientStatus, Status
from libs.runtime.clock import SystemClock
from libs.topics import PARTITIONS, partition_of

RECIPIENTS = 1_000_000
DOMAINS = 100
BYTES = 200
AT_ONCE = 2000


async def cache(folder: Path, figures: Figures) -> None:
    """1,000,000 recipients of 100 domains; one of 100 does not exist, as many as are kept of each domain."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    path = folder / "log.sqlite"
    await _write(path)
    for service in ("ingest", "verify"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.replica", service, str(path),
            stdout=asyncio.subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        out, _ = await process.communicate()
        if process.returncode:
            raise SystemExit(f"the replica of {service} failed")
        said = json.loads(out)
        if said["keys"] != RECIPIENTS:
            raise SystemExit(f"{said['keys']} recipients are known, not {RECIPIENTS}")
        note = f"{RECIPIENTS} recipients, replica of {service}"
        figures.add(f"recipients.bytes.{service}", said["bytes"] / RECIPIENTS, "B", most=BYTES, note=note)
        figures.add(f"recipients.restore.{service}", said["ready_s"], "s", note=note)


async def _write(path: Path) -> None:
    """What verify would have written."""
    clock = SystemClock()
    async with SqliteLog(path, partitions=PARTITIONS, clock=clock) as log:

        async def recipient(number: int) -> None:
            domain = f"d{number % DOMAINS:02}.{DOMAIN}"
            name, now = f"first.last{number:06}@{domain}", clock.wall()
            status = Status.DELIVERABLE if number // DOMAINS % DOMAINS else Status.UNDELIVERABLE
            record = encode(RecipientStatus(name, status, now, now, reply="250 2.1.5 Recipient OK"))
            await log.append("recipients", partition_of(domain, PARTITIONS), name.encode(), record, within=60)

        for at in range(0, RECIPIENTS, AT_ONCE):
            await asyncio.gather(*map(recipient, range(at, at + AT_ONCE)))
