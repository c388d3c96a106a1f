"""The Kafka set-up survives kill -9 of every process, a broker included, while 2,000 mails are sent."""

from pathlib import Path

import pytest

from deploy.kafka.cluster import Cluster
from tests.helpers.running import SERVICES
from tests.path.storm import place, storm


@pytest.mark.timeout(500)
async def test_every_process_may_be_killed(tmp_path: Path, brokers: Cluster) -> None:
    """A mail that got 250 is never lost: lost 0, wrongly refused 0, duplicates are counted."""
    async with place(tmp_path, kafka=brokers.bootstrap, replication=3) as at:

        async def kill_broker() -> None:
            brokers.kill(1)

        async def restart_broker() -> None:
            brokers.restart(1)

        each = [at.killing(name) for name in SERVICES]
        again = [at.killing("deliver"), at.killing("ingest")]
        found = await storm(at, [*each, kill_broker, *again, restart_broker], seed=2)
        assert not found.lost
        assert not found.altered
        for name in SERVICES:
            assert await at.backup.stop(name) == 0
