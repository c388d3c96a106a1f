"""The running service on the embedded log: a session becomes a committed mail."""

from pathlib import Path

from libs.mail.records import Domain
from tests.ingest.house import House

OFFICE = Domain("office.example", 1.0, active_since=2.0)


async def test_a_mail_becomes_a_queue_record(tmp_path: Path) -> None:
    """A mail that got 250 is in the queue, its content octet for octet as sent, with our fields on top."""
    async with House(tmp_path) as house:
        await house.install(OFFICE)
        await house.start()
        async with house.client() as client:
            await client.greet()
            content = b"Subject: hi\r\n\r\n.dot\r\n..\r\n\xe4\r\n"
            reply = await client.mail("ann@office.example", content=content)
        [queued] = await house.queued()
        assert reply == f"250 2.0.0 Ok: queued as {queued.mail.id}"
        assert queued.content == content
