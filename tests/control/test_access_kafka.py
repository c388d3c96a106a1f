"""Access rules over Kafka: one command, and every process of ingest knows."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.test_processes import COUNT, all_ready, several
from tests.helpers.client import Client
from tests.helpers.patience import PATIENCE_S
from tests.helpers.running import Running

pytestmark = pytest.mark.xdist_group("broker")


async def greetings(running: Running) -> set[str]:
    """What ten connections hear: each of the processes has some of them."""
    found = set()
    for _ in range(10):
        async with Client(running.smtp_port) as client:
            found.add((await client.reply())[:9])
    return found


async def everywhere(running: Running, greeting: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await greetings(running) != {greeting}:
            pass


async def test_every_process_of_ingest_reads_the_rules(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """Blocked in all of them, and again after a restart; removed in all of them."""
    async with several(tmp_path, broker) as running:
        assert COUNT > 1
        await everywhere(running, "220 mx1.b")
        assert (await running.ask("access", "block", "127.0.0.0/8", "--for", "1h")).code == 0
        await everywhere(running, "554 5.7.1")
        assert await running.stop("ingest") == 0
        await running.start("ingest")
        await running.ready("ingest")
        await all_ready(running)
        await everywhere(running, "554 5.7.1")
        (row,) = (await running.ask("access", "list", "--json")).rows
        assert (row["subject"], row["until"] - row["since"]) == ("127.0.0.0/8", 3600.0)
        assert (await running.ask("access", "remove", "127.0.0.0/8")).code == 0
        await everywhere(running, "220 mx1.b")
        assert (await running.ask("domain", "list", "--json")).rows[0]["domain"] == "office.example"
