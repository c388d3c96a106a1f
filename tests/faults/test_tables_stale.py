"""The log stops in the middle: tables that are fed no more are no ground for a permanent no."""

import asyncio
from pathlib import Path

from deploy.kafka.cluster import Cluster
from tests.faults.scene import ANN, scene
from tests.helpers.patience import PATIENCE_S

NOBODY, STRANGER = "nobody@office.example", "kim@stranger.example"


async def test_tables_that_are_not_fed(tmp_path: Path) -> None:
    """Rule 7, with `domains` and `recipients` behind a frozen Kafka: who is no domain of ours and who was
    denied a moment ago hears nothing permanent, as long as it lasts; then the same as before."""
    async with (
        Cluster(1, quick=True) as cluster,
        scene(tmp_path, kafka=cluster.bootstrap, timing__rcpt_deadline_s="3") as at,
    ):
        assert (await at.rcpt(ANN)).startswith("250 2.1.5")
        for name, reply in ((NOBODY, "550 5.1.1"), (STRANGER, "550 5.7.1")):
            assert (await at.rcpt(name)).startswith(reply)
        cluster.freeze(0)
        try:
            async with asyncio.timeout(PATIENCE_S):
                for name in (STRANGER, NOBODY):  # fresh for another moment
                    while (await at.rcpt(name)).startswith("550"):
                        pass
            for _ in range(3):
                assert (await at.rcpt(STRANGER)).startswith("451 4.3.2")
                for name in (NOBODY, ANN):
                    reply = await at.rcpt(name)
                    assert reply.startswith(("250 2.1.5", "451 4.3")), (name, reply)
        finally:
            cluster.thaw(0)
        for name, reply in ((STRANGER, "550 5.7.1"), (NOBODY, "550 5.1.1"), (ANN, "250 2.1.5")):
            async with asyncio.timeout(PATIENCE_S):
                while not (await at.rcpt(name)).startswith(reply):
                    pass
