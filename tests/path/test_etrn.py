"""A primary that is back asks for its mail (RFC 1985)."""

from pathlib import Path

from tests.faults.scene import scene
from tests.helpers.client import Client


async def test_what_waited_comes_at_once(tmp_path: Path) -> None:
    """With the next probe ten minutes away, ETRN from the primary's own address brings its mail now."""
    async with scene(tmp_path, timing__probe_s="600.0", timing__probe_late_s="600.0") as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.office.down()
        for number in range(3):
            assert (await at.mail(subject=f"during-{number}")).startswith("250 2.0.0")
        await at.health("down")
        await at.office.up()
        async with Client(at.backup.smtp_port, source="127.0.0.2") as client:
            await client.greet("mail.office.example")
            await client.send(b"ETRN office.example\r\n")
            assert (await client.reply()).startswith("253 2.0.0 Ok, ")  # what was published a second ago
        await at.office.got(4)
        await at.emptied()
        [event] = at.backup.events("Request")
        assert event["text"].startswith("flush by ETRN from 127.0.0.2: 3 mails wait")
