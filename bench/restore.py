"""A start with a million mails waiting for a primary that is down: time to ready, memory a mail, what it
costs while nothing happens, how long a page of the queue takes."""

import asyncio
import time
from pathlib import Path

from bench.cpu import Meter, resident
from bench.figures import Figures
from bench.house import DOMAIN, KNOWN, house
from libs.log.open import LOG_FILE
from libs.log.sqlite import SqliteLog
from libs.mail.codec import encode, new_entry, queue_headers
from libs.mail.records import Basis, ContentRef, Kind, Mail, Recipient
from libs.runtime.clock import SystemClock
from libs.topics import PARTITIONS, partition_of

WAITING = 1_000_000
MOST_S, MOST_OCTETS, MOST_IDLE, MOST_PAGE_S = 20.0, 400, 2.0, 2.0
WITHIN_S = 120.0
IDLE_S = 65.0  # two rounds of what deliver looks through from time to time
CONTENT = b"Subject: one of very many\r\n\r\nHello\r\n"


async def restore(folder: Path, figures: Figures) -> None:
    async with house(folder) as built:
        await built.primary.down()
        running = built.running
        await running.stop("solo")
        await running.start("solo")
        await running.ready()
        empty = resident(running.pid("solo"))
        await running.stop("solo")
        await _write(folder / "state" / LOG_FILE)

        began = time.monotonic()
        await running.start("solo")
        meter = Meter({"solo": running.pid("solo")})
        await running.ready(within=WITHIN_S)
        figures.add(
            f"sqlite.restore.{WAITING}", time.monotonic() - began, "s", most=MOST_S, note="start to ready"
        )
        figures.add(f"sqlite.restore.{WAITING}.cpu", meter.taken()["solo"], "s")
        series = f'backupmx_queue_messages{{domain="{DOMAIN}"}}'
        async with asyncio.timeout(WITHIN_S):
            while True:
                seen = await running.metric("solo", series)
                if seen >= WAITING:
                    break
                await asyncio.sleep(0.1)
        if seen != WAITING:
            raise SystemExit(f"{seen:.0f} mails wait, not {WAITING}")
        grown = resident(running.pid("solo")) - empty
        figures.add("sqlite.restore.memory", grown / WAITING, "B/mail", most=MOST_OCTETS)
        meter = Meter({"solo": running.pid("solo")})
        await asyncio.sleep(IDLE_S)
        idle = meter.taken()["solo"] / IDLE_S * 100
        figures.add(f"sqlite.restore.{WAITING}.idle", idle, "% of a core", most=MOST_IDLE)
        began = time.monotonic()
        await built.command("queue", "list")
        figures.add(
            f"sqlite.restore.{WAITING}.page",
            time.monotonic() - began,
            "s",
            most=MOST_PAGE_S,
            note="queue list",
        )


async def _write(path: Path) -> None:
    """What ingest would have written."""
    partition = partition_of(DOMAIN, PARTITIONS)
    async with SqliteLog(path, partitions=PARTITIONS, clock=SystemClock()) as log:

        async def mail(number: int) -> None:
            id_ = f"{number:024d}"
            stored = await log.append("content", partition, id_.encode(), CONTENT, within=60)
            mail = Mail(
                id=id_,
                domain=DOMAIN,
                next_hop=DOMAIN,
                kind=Kind.RELAYED,
                reverse_path="eve@sender.example",
                recipients=(Recipient(KNOWN, Basis.DELIVERABLE),),
                prepend=b"Received: from client.sender.example by mx1.backup.example\r\n" * 3,
                arrived=stored.time,
                may_notify=True,
                client="127.0.0.1",
                helo="client.sender.example",
            )
            ref = ContentRef(partition, (stored.offset,), len(CONTENT))
            entry = encode(new_entry(mail))
            await log.append("queue", partition, id_.encode(), entry, within=60, headers=queue_headers(ref))

        for at in range(0, WAITING, 1000):
            await asyncio.gather(*map(mail, range(at, at + 1000)))
