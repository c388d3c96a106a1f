"""A mail that loops is held: a person releases it, or deletes it, while the services run."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.client import Client
from tests.helpers.patience import PATIENCE_S
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
    sender.example       TXT "v=spf1 ip4:127.0.0.1 -all"
"""
TRACE = b"""\
Received: from x (y [192.0.2.7]) by mx1.backup.example (backupmx) with ESMTP id a\r
 for <ann@office.example>; Tue, 3 Nov 2026 10:00:00 +0000\r
"""


async def listed(running: Running, names: list[str]) -> list[Any]:
    """The queue, once its mails are in these queues."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            rows = (await running.ask("queue", "list", "--json")).rows
            if [row["queue_name"] for row in rows] == names:
                return rows


@pytest.mark.parametrize("log", ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))])
async def test_release_and_delete(tmp_path: Path, log: str, request: pytest.FixtureRequest) -> None:
    """Released, it goes to the primary and is not held again; deleted, it is gone, after a question."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={"ann@office.example"}) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, activation="dns", kafka=kafka) as running,
    ):
        await running.ask("domain", "add", "office.example")
        async with Client(running.smtp_port) as client:
            await client.greet()
            for subject in ("one", "two"):
                content = TRACE * 3 + f"Subject: {subject}\r\n\r\nround\r\n".encode()
                assert (await client.mail("ann@office.example", content=content)).startswith("250")
        one, two = (row["queue_id"] for row in await listed(running, ["held", "held"]))

        said = await running.ask("queue", "release", one, "--json")
        assert (said.code, said.rows[0]["queue_id"], said.rows[0]["domain"]) == (0, one, "office.example")
        await primary.got(1)
        await running.until(lambda: running.events("Delivery", id=one))
        await listed(running, ["held"])
        types = [event["type"] for event in (await running.ask("trace", one, "--json")).rows]
        assert types == ["Reception", "Held", "Released", "Delivery"]
        said = await running.ask("queue", "release", one)
        assert said == (1, "", f"backupmx: there is no mail {one} in the queue\n")

        said = await running.ask("queue", "delete", two)
        assert (said.code, said.out) == (1, "")
        assert "Delete mail" in said.err
        assert await running.ask("queue", "delete", two, "--yes") == (0, f"{two} is deleted.\n", "")
        await listed(running, [])
        assert len(primary.received) == 1
