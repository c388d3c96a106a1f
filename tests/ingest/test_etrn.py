"""ETRN: how often, and what the log's trouble looks like."""

from pathlib import Path

from libs.log.contract import NotStored
from libs.mail import replies
from libs.mail.codec import decode_request
from libs.mail.records import Domain, Flush
from services.ingest.flushes import CLIENT_FLUSHES, FLUSH_OWN_S, FLUSH_S, Flushes
from services.ingest.limits import HOUR_S
from tests.ingest.house import House


def test_a_domain_is_flushed_so_often() -> None:
    """Anybody may have a domain flushed every five minutes, its primary every 15 s."""
    flushes = Flushes()
    assert flushes.due("office.example", 10.0, own=False)
    flushes.began("office.example", 10.0)
    assert not flushes.due("office.example", 10.0 + FLUSH_OWN_S - 1, own=True)
    assert flushes.due("office.example", 10.0 + FLUSH_OWN_S, own=True)
    assert not flushes.due("office.example", 10.0 + FLUSH_S - 1, own=False)
    assert flushes.due("office.example", 10.0 + FLUSH_S, own=False)
    assert flushes.due("other.example", 11.0, own=False)


def test_a_client_asks_so_often() -> None:
    """The budget of a client network is that of an hour; others have their own."""
    flushes = Flushes()
    assert all(flushes.client("192.0.2.7", 5.0) for _ in range(CLIENT_FLUSHES))
    assert not flushes.client("192.0.2.7", 6.0)
    assert flushes.client("192.0.2.8", 6.0)
    assert flushes.client("192.0.2.7", 6.0 + HOUR_S)


async def test_a_request_is_written(tmp_path: Path) -> None:
    """The request names who asked; one that the log does not take is 458, and the next try writes it."""
    async with House(tmp_path) as house:
        await house.install(Domain("office.example", 1.0, active_since=2.0))
        await house.start()
        house.log.fail["requests"].append(NotStored("away"))
        async with house.client() as client:
            await client.greet()
            for reply in (replies.CANNOT_FLUSH, replies.FLUSH_BEGUN, replies.FLUSH_BEGUN):
                await client.send(b"ETRN office.example\r\n")
                assert await client.reply() == reply.wire().decode().rstrip()
        [record] = await house.records("requests")
        request = decode_request(record.value or b"")
        assert request == Flush(request.request_id, "office.example", "ETRN from 127.0.0.1")
        assert record.partition == house.partition("office.example")


async def test_domains_cannot_be_tried_out(tmp_path: Path) -> None:
    """After a client's budget the answer is the same for every name, and nothing is written."""
    async with House(tmp_path) as house:
        await house.install(Domain("office.example", 1.0, active_since=2.0))
        await house.start()
        async with house.client() as client:
            await client.greet()
            for number in range(CLIENT_FLUSHES):
                await client.send(f"ETRN n{number}.example\r\n".encode())
                assert (await client.reply()).startswith("459 4.7.1")
            for name in ("office.example", "other.example"):
                await client.send(f"ETRN {name}\r\n".encode())
                assert (await client.reply()).startswith("458 4.7.1")
        assert await house.records("requests") == []
