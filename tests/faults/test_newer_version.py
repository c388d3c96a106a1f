"""A record of a newer version, after this host went back to an older one: kept, said, stepped over (rule
8)."""

from contextlib import aclosing
from pathlib import Path

import pytest

from libs.log.contract import BEGIN, Log, Record
from libs.log.open import open_log
from libs.mail.codec import decode
from libs.mail.records import QueueEntry
from libs.runtime.clock import SystemClock
from libs.runtime.config_file import load
from libs.topics import partition_of
from tests.faults.scene import BOB, scene


async def newest(log: Log, partition: int, subject: str) -> Record:
    """The newest record of the only mail to `subject`'s recipient."""
    found: Record | None = None
    async with aclosing(log.follow("queue", {partition: BEGIN})) as batches:
        async for batch in batches:
            for record in batch.records:
                if record.value is not None and subject.encode() in record.value:
                    found = record
            if batch.position >= batch.end:
                break
    assert found is not None
    return found


@pytest.mark.parametrize("log", ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))])
async def test_a_state_that_this_version_does_not_know(
    tmp_path: Path, log: str, request: pytest.FixtureRequest
) -> None:
    """A newer deliver had moved a mail into a state of its own. This one leaves it alone, whatever it was
    before, delivers its neighbours, and has it in the vault until a person deletes it; noise beside it,
    too."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    async with scene(tmp_path, kafka=kafka) as at:
        await at.office.down()
        assert (await at.mail(BOB, subject="neighbour")).startswith("250")
        assert (await at.mail(subject="newer")).startswith("250")
        await at.backup.until(lambda: at.backup.events("Primary"))
        name = "deliver" if kafka else "solo"
        assert await at.backup.stop(name) == 0
        async with open_log(load(at.backup.config), SystemClock(), "a test") as (opened, partitions):
            number = partition_of("office.example", partitions)
            old = await newest(opened, number, "ann@office.example")
            entry = decode(old.value or b"", QueueEntry)
            value = b"\x82\xa4mail" + bytes(entry.mail) + b"\xa8progress\x81\xa5state\xa5cloud"
            await opened.append("queue", number, old.key, value, within=30, headers=old.headers)
            await opened.append("queue", number, b"noise", b"\xc1", within=30)
        await at.office.up()
        await at.backup.start(name)
        await at.backup.ready(name)
        await at.office.got(1)
        rows = {}
        while len(rows) < 2:  # control reads it by itself
            rows = {row["queue_id"]: row for row in (await at.backup.ask("vault", "list", "--json")).rows}
        id_ = old.key.decode()
        assert {row["queue_name"] for row in rows.values()} == {"unreadable"}
        assert (rows[id_]["domain"], rows["noise"]["domain"]) == ("office.example", "")
        assert await at.queue() == []
        said = await at.backup.ask("queue", "flush", "office.example")
        assert "0 mails wait" in said.out
        assert at.subjects() == ["neighbour"]
        assert len(at.backup.events("Quarantined")) >= 2

        for key in (id_, "noise"):
            assert await at.backup.ask("vault", "delete", key, "--yes") == (0, f"{key} is deleted.\n", "")
        while (await at.backup.ask("vault", "list", "--json")).rows:
            continue
        assert at.subjects() == ["neighbour"]
        for name in at.backup.names:
            assert await at.backup.stop(name) == 0
