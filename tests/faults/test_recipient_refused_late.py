"""The primary refuses one of two recipients when the mail comes: its sender is told about that one only."""

import email
from email import policy
from pathlib import Path

from tests.faults.scene import ANN, BOB, EVE, scene
from tests.helpers.client import Client


async def test_a_recipient_is_refused_late(tmp_path: Path) -> None:
    """RFC 3464: one report, to the return path that SPF authenticated, for the failed recipient alone."""
    async with scene(tmp_path) as at:
        async with Client(at.backup.smtp_port) as client:
            await client.greet()
            await client.send(f"MAIL FROM:<{EVE}>\r\nRCPT TO:<{ANN}>\r\nRCPT TO:<{BOB}>\r\n".encode())
            assert [(await client.reply())[:3] for _ in range(3)] == ["250"] * 3
            at.office.say("RCPT", "550 5.1.1 no such user here", to=BOB)  # gone since the callout
            await client.send(b"DATA\r\n")
            assert (await client.reply()).startswith("354")
            await client.send(b"Subject: both\r\n\r\nhello\r\n.\r\n")
            assert (await client.reply()).startswith("250 2.0.0")
        await at.office.got(1)
        await at.sender.got(1)
        await at.emptied()
        (mail,), (notice,) = at.office.received, at.sender.received
        assert [mailbox for mailbox, _ in mail.recipients] == [ANN]
        assert notice.reverse_path == ""
        assert [mailbox for mailbox, _ in notice.recipients] == [EVE]
        report = email.message_from_bytes(notice.content, policy=policy.default)
        assert report.get_content_type() == "multipart/report"
        assert report.get_param("report-type") == "delivery-status"
        (status,) = (part for part in report.walk() if part.get_content_type() == "message/delivery-status")
        _, *failed = status.iter_parts()  # the fields of the message, then a group for each recipient
        assert [group["Final-Recipient"] for group in failed] == [f"rfc822; {BOB}"]
        assert [(group["Action"], group["Status"]) for group in failed] == [("failed", "5.1.1")]


async def test_no_backscatter(tmp_path: Path) -> None:
    """Rule 12: without an authenticated return path nobody is told; the mail is parked."""
    async with scene(tmp_path) as at:
        at.zone.set("office.example MX 10 mail.office.example\nmail.office.example A 127.0.0.2")
        async with Client(at.backup.smtp_port) as client:
            await client.greet()
            await client.send(f"MAIL FROM:<forged@nowhere.example>\r\nRCPT TO:<{BOB}>\r\n".encode())
            assert [(await client.reply())[:3] for _ in range(2)] == ["250"] * 2
            at.office.say("RCPT", "550 5.1.1 no such user here", to=BOB)
            await client.send(b"DATA\r\n")
            assert (await client.reply()).startswith("354")
            await client.send(b"Subject: forged\r\n\r\nhello\r\n.\r\n")
            assert (await client.reply()).startswith("250 2.0.0")
        await at.backup.until(lambda: any(event["recipient"] == BOB for event in at.backup.events("Parked")))
        assert [row["queue_name"] for row in await at.queue()] == ["parked"]
        assert not at.sender.received
