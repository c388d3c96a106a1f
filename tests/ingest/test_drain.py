"""The end of ingest: who may go on, for how long, and that nothing with a final dot is cut."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.patience import until
from tests.ingest.house import House
from tests.ingest.test_service import ANN, opened

LAST: dict[str, float] = {}


async def refused(house: House) -> None:
    """Return once nobody can connect any more. Not by trying: a connection that Python's own loop accepts in
    the moment in which the door is shut is lost to it until the garbage is collected."""
    end = f":{house.port:04X}"

    def listening() -> bool:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        return any(row[1].endswith(end) and row[3] == "0A" for row in rows)

    await until(lambda: not listening())
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", house.port)


def still(count: Callable[[], float], within: float) -> bool:
    """Has `count` begun, and not changed for `within` seconds? To be asked again and again."""
    now = count()
    if now != LAST.get("count"):
        LAST.update(count=now, at=time.monotonic())
    return now > 0 and time.monotonic() - LAST["at"] > within


async def test_who_waits_and_who_is_in_data(tmp_path: Path) -> None:
    """At the end an idle session gets 421, a mail in DATA is still taken, nobody new is let in."""
    async with House(tmp_path) as house:
        await opened(house)
        async with house.client() as idle, house.client() as busy:
            await idle.greet()
            await busy.greet()
            await busy.data(ANN)
            await busy.send(b"hello")
            stopping = asyncio.create_task(house.stop())
            await idle.talk("S: 421 4.3.2 ...\nS.")
            await refused(house)
            assert not stopping.done()
            await busy.send(b"\r\n.\r\n")
            assert (await busy.reply()).startswith("250 2.0.0")
            await busy.talk("S: 421 4.3.2 ...\nS.")
            await stopping
        assert len(await house.queued()) == 1


async def test_sessions_go_on_for_a_while(tmp_path: Path) -> None:
    """Within drain_s a session that was there before sends its mails as ever; the end comes with its QUIT."""
    async with House(tmp_path, smtp={"drain_s": 60.0}) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            stopping = asyncio.create_task(house.stop())
            await refused(house)
            for _ in range(2):
                assert (await client.mail(ANN)).startswith("250 2.0.0")
            assert not stopping.done()
            await client.talk("C: QUIT\nS: 221 ...\nS.")
            await stopping
        assert len(await house.queued()) == 2


async def test_a_while_ends(tmp_path: Path) -> None:
    """After drain_s the session hears 421 where it waits for a command, also within a transaction."""
    async with House(tmp_path, smtp={"drain_s": 0.3}) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            await client.send(b"MAIL FROM:<eve@sender.example>\r\n")
            assert (await client.reply()).startswith("250 ")
            began = time.monotonic()
            stopping = asyncio.create_task(house.stop())
            await client.talk("S: 421 4.3.2 ...\nS.")
            assert time.monotonic() - began >= 0.3
            await stopping


async def test_a_content_that_does_not_end(tmp_path: Path) -> None:
    """A content that is not whole after drain_data_s is 421, and nothing of it is queued."""
    async with House(tmp_path, smtp={"drain_data_s": 0.3}) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            await client.data(ANN)
            await client.send(b"hello\r\n")
            stopping = asyncio.create_task(house.stop())
            await client.talk("S: 421 4.3.2 ...\nS.")
            await stopping
        assert await house.queued() == []
        assert house.held() == 0


@pytest.mark.parametrize("topic", ["content", "queue"])
async def test_a_commit_is_not_cut(tmp_path: Path, topic: str) -> None:
    """A mail whose final dot was read is committed and answered, however slow the log, and then comes 421."""
    async with House(tmp_path, smtp={"drain_data_s": 0.0}, timing={"acknowledgement_s": 30.0}) as house:
        await opened(house)
        house.log.hold[topic] = asyncio.Event()
        async with house.client() as client:
            await client.greet()
            await client.data(ANN)
            await client.send(b"hello\r\n.\r\n")
            await until(lambda: any(name == topic for name, _ in house.log.appended))
            stopping = asyncio.create_task(house.stop())
            await refused(house)
            with pytest.raises(TimeoutError):
                await client.reply(within=0.5)
            house.log.hold[topic].set()
            assert (await client.reply()).startswith("250 2.0.0")
            await client.talk("S: 421 4.3.2 ...\nS.")
            await stopping
        assert len(await house.queued()) == 1


async def test_a_client_that_sends_ahead_and_reads_late_gets_every_reply(tmp_path: Path) -> None:
    """More commands than we read ahead, more replies than the system takes: whoever reads at last has all."""
    count = 120_000
    async with House(tmp_path) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            client._writer.transport.pause_reading()
            client._writer.write(b"HELP\r\n" * count)
            sample, labels = house.metrics.registry.get_sample_value, {"command": "HELP", "class": "2xx"}
            await until(lambda: sample("backupmx_replies_total", labels))
            await until(lambda: still(lambda: sample("backupmx_replies_total", labels), 0.3))
            assert sample("backupmx_replies_total", labels) < count
            client._writer.transport.resume_reading()
            for _ in range(count):
                await client.reply()


async def test_a_client_that_reads_nothing_holds_up_nobody(tmp_path: Path) -> None:
    """At the end nobody waits for a client that does not read our replies."""
    async with House(tmp_path, smtp={"drain_data_s": 0.0}) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            client._writer.transport.pause_reading()
            client._writer.write(b"HELP\r\n" * 2_000_000)
            sample, labels = house.metrics.registry.get_sample_value, {"command": "HELP", "class": "2xx"}
            await until(lambda: sample("backupmx_replies_total", labels))
            await until(lambda: still(lambda: sample("backupmx_replies_total", labels), 0.3))
            await house.stop()
            client.abort()
