"""Kafka stops while mail comes in: 451, never 5yz and never 250; what was accepted before is handed over."""

import asyncio
import time
from pathlib import Path

from deploy.kafka.cluster import Cluster
from tests.helpers.client import Client
from tests.path.storm import place


async def test_kafka_away_in_the_middle(tmp_path: Path) -> None:
    """Our fault is never a permanent error: a frozen Kafka is a 451 4.3.x, and all goes on when it thaws."""
    async with (
        Cluster(1, quick=True) as cluster,
        place(
            tmp_path,
            kafka=cluster.bootstrap,
            timing__acknowledgement_s="3",
            timing__verdict_deadline_s="3",
            timing__rcpt_deadline_s="3",
        ) as at,
    ):
        async with Client(at.backup.smtp_port) as client:
            await client.greet()
            assert (await client.mail("ann@office.example")).startswith("250 2.0.0")
            await at.office.got(1)
            await at.office.down()
            assert (await client.mail("ann@office.example")).startswith("250 2.0.0")
            cluster.freeze(0)
            for _ in range(3):
                assert (await client.mail("ann@office.example"))[:7] in ("451 4.3", "452 4.3")
            cluster.thaw(0)
        await at.office.up()
        await at.office.got(2)

        async with Client(at.backup.smtp_port) as client:
            await client.greet()
            deadline = time.monotonic() + 40  # a new producer, and the pause of a partition that failed
            while not (await client.mail("ann@office.example")).startswith("250"):
                assert time.monotonic() < deadline, "mail is still refused"
                await asyncio.sleep(0.1)
        await at.office.got(3)
