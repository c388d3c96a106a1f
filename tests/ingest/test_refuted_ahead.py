"""What clients send ahead must cost what its octets cost (RFC 2920)."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from libs.mail.address import Mailbox
from services.ingest import server
from services.ingest.session import Session
from tests.helpers.client import Client
from tests.ingest.house import House
from tests.ingest.test_service import opened

AHEAD = 3000


async def test_thousands_of_recipients_ahead_stall_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thousands of recipients sent ahead each line is looked at once, and 100 are asked at a time; another
    session goes on meanwhile."""
    looked_at = 0

    def counting(state: Session, lines: Sequence[bytes]) -> tuple[Mailbox, ...]:
        nonlocal looked_at
        looked_at += len(lines)
        return ahead(state, lines)

    ahead = server.ahead
    monkeypatch.setattr(server, "ahead", counting)
    async with House(tmp_path, timing={"rcpt_deadline_s": 0.5}) as house:
        await opened(house)
        async with house.client() as flood, house.client() as other:
            await flood.greet()
            await other.greet()
            await flood.send(b"MAIL FROM:<a@sender.example>\r\n")
            await flood.reply()
            await flood.send(b"".join(b"RCPT TO:<u%d@office.example>\r\n" % n for n in range(AHEAD)))
            asked = 0
            while not asked:
                await other.send(b"NOOP\r\n")
                assert (await other.reply()).startswith("250")
                asked = len(house.asked)
            assert asked <= 101  # the one to be answered, and 100 ahead
            replies = await _replies(flood, 300)
            assert {reply[:3] for reply in replies} <= {"250", "451", "452"}, set(replies)
    assert 100 <= looked_at <= AHEAD, looked_at


async def _replies(client: Client, count: int) -> list[str]:
    return [await client.reply(60) for _ in range(count)]
