"""All that was known of recipients is gone: they are asked about, or taken on suspicion, never refused."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.faults.scene import ANN, scene
from tests.helpers.patience import PATIENCE_S
from tests.helpers.running import Running

NOBODY = "nobody@office.example"


async def emptied(backup: Running, kafka: tuple[str, ...]) -> None:
    """Of `recipients` nothing is left, as after a topic that was made anew. Nothing runs meanwhile."""
    if not kafka:
        (path,) = backup.folder.glob("state/*.sqlite")
        with sqlite3.connect(path) as file:
            (number,) = file.execute("SELECT id FROM topics WHERE name = 'recipients'").fetchone()
            assert file.execute(f"DELETE FROM records_{number}").rowcount > 0
        file.close()
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=list(kafka))
    await admin.start()
    try:
        await admin.delete_topics([f"{backup.prefix}recipients"])
    finally:
        await admin.close()
    async with asyncio.timeout(PATIENCE_S):
        while (await backup.ask("topics", "check")).code == 0 or (await backup.ask("topics", "apply")).code:
            pass


@pytest.mark.parametrize("log", ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))])
async def test_nothing_is_known_any_more(tmp_path: Path, log: str, request: pytest.FixtureRequest) -> None:
    """Rule 7. With the primary away everybody is taken on suspicion; once it is back it is asked again."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    async with scene(tmp_path, kafka=kafka) as at:
        assert (await at.rcpt(ANN)).startswith("250 2.1.5")
        assert (await at.rcpt(NOBODY)).startswith("550 5.1.1")
        await at.office.down()
        assert (await at.mail()).startswith("250 2.0.0")
        await at.health("down")
        assert (await at.rcpt(NOBODY)).startswith("550 5.1.1")
        for name in at.backup.names:
            assert await at.backup.stop(name) == 0
        await emptied(at.backup, kafka)
        await asyncio.gather(*(at.backup.start(name) for name in at.backup.names))
        await at.backup.ready()
        for to in (ANN, NOBODY):
            assert (await at.rcpt(to))[:9] == "250 2.1.5", to
        await at.office.up()
        await at.office.got(1)
        async with asyncio.timeout(120):
            while not (await at.rcpt(NOBODY)).startswith("550 5.1.1"):
                pass
        assert (await at.rcpt(ANN)).startswith("250 2.1.5")
