"""The service over a real log, with a real DNS server and a real primary."""

from pathlib import Path

from libs.mail.records import EventType, State
from tests.deliver.house import CONTENT, HOST, ZONE, house, until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone


async def test_up(tmp_path: Path) -> None:
    """A mail for a primary that is up is handed over at once, its octets unchanged below our fields."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        async with home.delivering():
            id_ = await home.queue()
            await home.ended([id_])
        (got,) = primary.received
        assert got.content == b"Received: by mx1.backup.example\r\n" + CONTENT
        assert (got.reverse_path, got.recipients[0][0]) == ("eve@sender.example", "ann@office.example")
        assert primary.violations == []
        (event,) = home.events(EventType.DELIVERY)
        assert (event.id, event.recipient, event.peer_address) == (id_, "ann@office.example", "127.0.0.1")


async def test_outage(tmp_path: Path) -> None:
    """Mail waits while the primary is away, and each is handed over once when it is back."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await primary.down()
        async with home.delivering():
            ids = [await home.queue(content=b"Subject: %d\r\n\r\nx\r\n" % n) for n in range(20)]
            await until(lambda: home.events(EventType.PRIMARY))
            state = await home.state()
            assert all(state[id_] is not None and state[id_].state is State.QUEUED for id_ in ids)  # type: ignore[union-attr]
            assert not primary.received
            await primary.up()
            await home.ended(ids)
        assert sorted(mail.content for mail in primary.received) == sorted(
            b"Received: by mx1.backup.example\r\nSubject: %d\r\n\r\nx\r\n" % n for n in range(20)
        )
        probes = [
            visit.commands
            for visit in primary.visits
            if visit.commands[1:2] == [f"MAIL FROM:<postmaster@{HOST}>"]
        ]
        assert probes
        assert probes[0][2] == "RCPT TO:<ann@office.example>"
        assert home.events(EventType.PRIMARY)[0].text.startswith("up -> down")
        assert primary.violations == []
