"""The Kafka set-up survives kill -9 of every process, brokers included, while 2,000 mails are sent."""

from pathlib import Path

import pytest

from deploy.kafka.cluster import Cluster
from tests.helpers.kafka import brokers as brokers
from tests.helpers.running import SERVICES
from tests.path.storm import place, storm


@pytest.mark.timeout(500)
async def test_every_process_may_be_killed(tmp_path: Path, brokers: Cluster) -> None:
    """A mail that got 250 is never lost: lost 0, wrongly refused 0, duplicates are counted."""
    async with place(tmp_path, kafka=brokers.bootstrap, replication=3) as at:

        def killing(name: str):  # type: ignore[no-untyped-def]
            async def kill() -> None:
                await at.backup.kill(name)
                await at.backup.start(name)
                await at.backup.ready(name)

            return kill

        async def kill_broker() -> None:
            brokers.kill(1)

        async def restart_broker() -> None:
            brokers.restart(1)

        harm = [killing(name) for name in ("ingest", "verify", "deliver", "control", "deliver", "ingest")]
        assert {name for name in SERVICES} <= {"ingest", "verify", "deliver", "control"}
        found = await storm(
            at, [*harm[:3], kill_broker, *harm[3:], restart_broker], seed=2, pause_s=(0.2, 2.0)
        )
        assert not found.lost
        assert not found.altered
        for name in SERVICES:
            assert await at.backup.stop(name) == 0
