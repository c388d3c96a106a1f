"""The primary checks the sender of our callout with a callout of its own, before it answers."""

from pathlib import Path

from tests.faults.scene import ANN, BOB, EVE, scene
from tests.helpers.client import Client


async def test_the_primary_calls_back(tmp_path: Path) -> None:
    """Our own postmaster is accepted from <> and from another server's callout, without asking anybody: one
    session each way, and both have their answer."""
    async with scene(tmp_path) as at:
        heard: list[str] = []

        async def back(sender: str) -> None:
            if not sender.startswith("postmaster@"):
                return
            for from_ in ("", "postmaster@mail.office.example"):
                async with Client(at.backup.smtp_port) as client:
                    await client.greet()
                    await client.send(f"MAIL FROM:<{from_}>\r\nRCPT TO:<{sender}>\r\n".encode())
                    assert (await client.reply()).startswith("250")
                    heard.append(await client.reply())

        at.office.calls_back = back
        assert (await at.rcpt(ANN, EVE)).startswith("250")
        assert (await at.rcpt(BOB, EVE)).startswith("250")
        assert heard
        assert all(reply.startswith("250") for reply in heard)
        assert at.office.most_at_once == 1
        sessions = [visit for visit in at.office.visits if any(ANN in line for line in visit.commands)]
        assert len(sessions) == 1
        senders = {line for visit in at.office.visits for line in visit.commands if line.startswith("MAIL")}
        assert senders == {"MAIL FROM:<postmaster@mx1.backup.example>"}
