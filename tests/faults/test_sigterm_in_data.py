"""SIGTERM in the middle of a DATA: the mail in hand may finish, none begins, the process ends with 0."""

import asyncio
import signal
from pathlib import Path

from tests.helpers.client import Client
from tests.helpers.mailing import content, stuffed
from tests.helpers.patience import PATIENCE_S
from tests.path.storm import place


async def begin(client: Client) -> None:
    """A transaction up to 354."""
    await client.greet()
    await client.send(b"MAIL FROM:<eve@sender.example>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\n")
    assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "354"]


async def test_a_mail_in_hand_is_finished(tmp_path: Path) -> None:
    """Draining: the session in DATA gets its 250, and the mail is handed over by the next process."""
    data = stuffed(content("sigterm", 5000))
    async with place(tmp_path) as at:
        async with Client(at.backup.smtp_port) as client, Client(at.backup.smtp_port) as idle:
            await begin(client)
            await idle.greet()
            await client.send(data[:3000])
            at.backup.send("solo", signal.SIGTERM)
            assert (await idle.reply()).startswith("421 ")  # who has nothing in hand is told to go
            await client.send(data[3000:])
            assert (await client.reply()).startswith("250 2.0.0")
        assert await at.backup.ended("solo") == 0
        await at.backup.start("solo")
        await at.backup.ready("solo")
        await at.office.got(1)
        assert at.office.received[0].content.endswith(content("sigterm", 5000))


async def test_kill_9_in_data_leaves_no_half_mail(tmp_path: Path) -> None:
    """What got no 250 was never promised: half a content is handed to nobody."""
    data = stuffed(content("half", 5_000_000))
    async with place(tmp_path) as at:
        async with Client(at.backup.smtp_port) as client:
            await begin(client)
            await client.send(data[:4_000_000])
            await asyncio.wait_for(at.backup.kill("solo"), PATIENCE_S)
        await at.backup.start("solo")
        await at.backup.ready("solo")
        async with Client(at.backup.smtp_port) as client:
            await client.greet()
            whole = content("whole", 5_000_000)
            assert (await client.mail("ann@office.example", content=whole)).startswith("250 2.0.0")
        await at.office.got(1)
        assert at.office.received[0].content.endswith(whole)
        said = await at.backup.ask("queue", "list", "--json")
        assert not said.rows
        assert len(at.office.received) == 1
