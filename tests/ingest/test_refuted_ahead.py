"""What clients send ahead must cost what its octets cost (RFC 2920)."""

import asyncio
import time
from pathlib import Path

from tests.helpers.client import Client
from tests.ingest.house import House
from tests.ingest.test_service import opened


async def test_thousands_of_recipients_ahead_stall_nobody(tmp_path: Path) -> None:
    """3,000 unknown recipients sent ahead delay no other session: 100 are asked at a time."""
    async with House(tmp_path, timing={"rcpt_deadline_s": 0.5}) as house:
        await opened(house)
        async with house.client() as flood, house.client() as other:
            await flood.greet()
            await other.greet()
            await flood.send(b"MAIL FROM:<a@sender.example>\r\n")
            await flood.reply()
            await flood.send(b"".join(b"RCPT TO:<u%d@office.example>\r\n" % n for n in range(3000)))
            answers = asyncio.create_task(_replies(flood, 300))
            slowest, asked = 0.0, 0
            while not answers.done():
                began = time.process_time()  # not of the machine: others work on it, too
                await other.send(b"NOOP\r\n")
                assert (await other.reply()).startswith("250")
                slowest = max(slowest, time.process_time() - began)
                asked = asked or len(house.asked)
            assert 0 < asked <= 101  # the one to be answered, and 100 ahead
            assert slowest < 0.5, slowest
            replies = await answers
            assert {reply[:3] for reply in replies} <= {"250", "451", "452"}, set(replies)


async def _replies(client: Client, count: int) -> list[str]:
    return [await client.reply(60) for _ in range(count)]
