"""What was sent as content is never read as commands."""

from pathlib import Path

from tests.ingest.house import House
from tests.ingest.test_service import ANN, opened


async def test_an_exception_of_ours_in_the_middle_of_a_content(tmp_path: Path) -> None:
    """The rest of a content that we stopped to read is no dialogue: one 451, and the connection is closed."""
    async with House(tmp_path) as house:
        await opened(house)
        house.log.fail["content"].append(RuntimeError("a bug"))
        async with house.client() as client:
            await client.greet()
            for command in (b"MAIL FROM:<a@sender.example>", f"RCPT TO:<{ANN}>".encode(), b"DATA"):
                await client.send(command + b"\r\n")
                reply = await client.reply()
            assert reply.startswith("354")
            await client.send(b"Subject: x\r\n\r\n" + b"NOOP\r\n" * 500_000 + b".\r\n")
            assert await client.reply() == "451 4.3.0 Local error, try again later"
            assert await client.line() is None
        assert house.metrics.session_errors._value.get() == 1
        assert house.held() == 0
        assert (await house.queued()) == []
