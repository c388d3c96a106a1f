"""A start with a million mails waiting for a primary that is down: time to ready, memory a mail, what it
costs while nothing happens, how long a page of the queue takes; and what a mail more costs then."""

import asyncio
import time
from pathlib import Path

from bench.cpu import Meter, resident
from bench.figures import Figures
from bench.flat import MAILS, compare, costs, more_domains
from bench.house import DOMAIN, KNOWN, House, house
from bench.load import content
from libs.log.open import LOG_FILE
from libs.log.sqlite import SqliteLog
from libs.mail.codec import encode, new_entry, queue_headers
from libs.mail.records import Basis, ContentRef, Kind, Mail, Recipient
from libs.runtime.clock import SystemClock
from libs.topics import PARTITIONS, partition_of

WAITING = 1_000_000
MOST_S, MOST_OCTETS, MOST_IDLE, MOST_PAGE_S = 20.0, 400, 2.0, 2.0
WITHIN_S = 120.0
LATE = 2000  # handed over while the figure is read
IDLE_S = 65.0  # two rounds of what deliver looks through from time to time
CONTENT = b"Subject: one of very many\r\n\r\nHello\r\n"


async def restore(folder: Path, figures: Figures) -> None:
    async with house(folder / "few") as built:
        await _away(built)
        few = await costs(built)
    async with house(folder / "many") as built:
        await _away(built)
        running = built.running
        await running.stop("solo")
        await running.start("solo")
        await running.ready()
        empty = resident(running.pid("solo"))
        await running.stop("solo")
        await _write(folder / "many/state" / LOG_FILE)
        await _start(built, figures)
        grown = resident(running.pid("solo")) - empty
        figures.add("sqlite.restore.memory", grown / WAITING, "B/mail", most=MOST_OCTETS)
        await _at_rest(built, figures)
        built.pids = {"solo": running.pid("solo")}
        many = await costs(built)
        compare(figures, "waiting", few, many)
        await more_domains(built, folder)
        compare(figures, "domains", many, await costs(built))


async def _away(built: House) -> None:
    """The recipient is known, the primary is away, and there is room for what will wait."""
    await built.load(mode="rcpt", count=1, connections=1, recipient=KNOWN)
    await built.primary.down()
    await built.command("domain", "set", DOMAIN, "--max-waiting", str(2 * WAITING))


async def _start(built: House, figures: Figures) -> None:
    running, name = built.running, f"sqlite.restore.{WAITING}"
    series = f'backupmx_queue_messages{{domain="{DOMAIN}"}}'
    began = time.monotonic()
    await running.start("solo")
    meter = Meter({"solo": running.pid("solo")})
    await running.ready(within=WITHIN_S)
    figures.add(name, time.monotonic() - began, "s", most=MOST_S, note="start to ready")
    figures.add(f"{name}.cpu", meter.taken()["solo"], "s")
    async with asyncio.timeout(WITHIN_S):
        while True:
            seen = await running.metric("solo", series)
            if seen >= WAITING:
                break
            await asyncio.sleep(0.1)
    if seen != WAITING:
        raise SystemExit(f"{seen:.0f} mails wait, not {WAITING}")


async def _at_rest(built: House, figures: Figures) -> None:
    """The primary is down, and nothing happens."""
    meter, name = Meter({"solo": built.running.pid("solo")}), f"sqlite.restore.{WAITING}"
    await asyncio.sleep(IDLE_S)
    figures.add(f"{name}.idle", meter.taken()["solo"] / IDLE_S * 100, "% of a core", most=MOST_IDLE)
    began = time.monotonic()
    await built.command("queue", "list")
    figures.add(f"{name}.page", time.monotonic() - began, "s", most=MOST_PAGE_S, note="queue list")


async def _write(path: Path) -> None:
    """What ingest would have written."""
    partition = partition_of(DOMAIN, PARTITIONS)
    async with SqliteLog(path, partitions=PARTITIONS, clock=SystemClock()) as log:

        async def mail(number: int) -> None:
            id_ = f"{number:024d}"
            octets = content(number, 10_240) if number < 2 * MAILS + LATE else CONTENT
            stored = await log.append("content", partition, id_.encode(), octets, within=60)
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
            ref = ContentRef(partition, (stored.offset,), len(octets))
            entry = encode(new_entry(mail))
            await log.append("queue", partition, id_.encode(), entry, within=60, headers=queue_headers(ref))

        for at in range(0, WAITING, 1000):
            await asyncio.gather(*map(mail, range(at, at + 1000)))
