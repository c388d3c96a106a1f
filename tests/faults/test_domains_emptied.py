"""The table of domains loses what was in it: 451 for every domain, never 550, and nothing is taken."""

import asyncio
import sqlite3
from collections.abc import Awaitable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from libs import topics
from tests.faults.scene import ANN, Scene, scene
from tests.helpers.patience import PATIENCE_S
from tests.helpers.running import Running

NOBODY, STRANGER, OWN = "nobody@office.example", "kim@stranger.example", "postmaster@mx1.backup.example"
both = pytest.mark.parametrize(
    "log", ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))]
)


def deleted(backup: Running, where: str) -> None:
    """Rows of `domains` in the file of the embedded log, which nobody has open."""
    (path,) = backup.folder.glob("state/*.sqlite")
    with sqlite3.connect(path) as file:
        (number,) = file.execute("SELECT id FROM topics WHERE name = 'domains'").fetchone()
        assert file.execute(f"DELETE FROM records_{number} WHERE {where}").rowcount > 0
    file.close()


async def made_anew(backup: Running, kafka: tuple[str, ...]) -> None:
    """The topic is there and nothing is in it, not even the record of the installation."""
    if not kafka:
        deleted(backup, "1")
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=list(kafka))
    await admin.start()
    try:
        await admin.delete_topics([f"{backup.prefix}domains"])
    finally:
        await admin.close()
    async with asyncio.timeout(PATIENCE_S):
        while "installation record" not in (await backup.ask("topics", "apply")).err:
            pass


async def without_the_domain(backup: Running, kafka: tuple[str, ...]) -> None:
    """The record of the installation counts one domain more than there are."""
    key = b"office.example"
    if not kafka:
        deleted(backup, f"key = x'{key.hex()}'")
        return
    partition = topics.partition_of(key.decode(), topics.PARTITIONS)
    async with AIOKafkaProducer(bootstrap_servers=list(kafka)) as producer:
        await producer.send_and_wait(f"{backup.prefix}domains", key=key, value=None, partition=partition)


async def restarted(at: Scene, change: Awaitable[None]) -> None:
    for name in at.backup.names:
        assert await at.backup.stop(name) == 0
    await change
    await asyncio.gather(*(at.backup.start(name) for name in at.backup.names))
    await at.backup.ready("solo" if "solo" in at.backup.names else "ingest")


@both
async def test_nothing_is_left(tmp_path: Path, log: str, request: pytest.FixtureRequest) -> None:
    """Rule 7: without the record of the installation the log may be anybody's. What is known of recipients,
    of who exists and of who does not, is there still, and is no answer."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    async with scene(tmp_path, kafka=kafka) as at:
        assert (await at.rcpt(ANN)).startswith("250 2.1.5")
        assert (await at.rcpt(NOBODY)).startswith("550 5.1.1")
        await restarted(at, made_anew(at.backup, kafka))
        for to in (ANN, NOBODY, STRANGER, OWN):
            assert (await at.rcpt(to)).startswith("451 4.3.2"), to
        assert not at.backup.events("Reception")


@both
async def test_a_domain_is_missing(tmp_path: Path, log: str, request: pytest.FixtureRequest) -> None:
    """Fewer domains than are counted: 451 for whatever is not in the table, be it ours or not. A domain that
    would fill the gap in the count, and hide it, is not added."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    async with scene(tmp_path, kafka=kafka) as at:
        assert (await at.backup.ask("domain", "add", "other.example")).code == 0
        assert (await at.rcpt(ANN)).startswith("250 2.1.5")
        assert (await at.rcpt(NOBODY)).startswith("550 5.1.1")
        await restarted(at, without_the_domain(at.backup, kafka))
        await at.backup.ready()
        for to in (ANN, NOBODY, STRANGER):
            assert (await at.rcpt(to)).startswith("451 4.3.2"), to
        said = await at.backup.ask("domain", "add", "third.example")
        assert (said.code, said.err) == (1, "backupmx: 1 relay domains are missing in the log\n")
        for to in (ANN, NOBODY, STRANGER):
            assert (await at.rcpt(to)).startswith("451 4.3.2"), to
