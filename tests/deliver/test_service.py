"""The service over a real log, with a real DNS server and a real primary."""

import email
import email.message
from pathlib import Path
from typing import Any, cast

import pytest

from libs.mail.codec import decode
from libs.mail.event import EventType
from libs.mail.knowledge import PrimaryState
from libs.mail.records import Kind, State
from tests.deliver.house import CONTENT, HOST, ZONE, house
from tests.helpers.patience import until
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


async def test_partial_refusal(tmp_path: Path) -> None:
    """A refused recipient is reported to the authenticated sender, the accepted one gets its mail once."""
    known = {"ann@office.example", "eve@sender.example"}
    async with (
        Zone(ZONE) as zone,
        Primary(known=known) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        async with home.delivering():
            id_ = await home.queue("ann@office.example", "bob@office.example", envid="envelope 7")
            await until(lambda: len(primary.received) == 2)
            await home.ended([id_])
            await until(lambda: len(home.events(EventType.DELIVERY)) == 2)
        mail, notice = primary.received
        assert [name for name, _ in mail.recipients] == ["ann@office.example"]
        assert (notice.reverse_path, notice.recipients[0][0]) == ("", "eve@sender.example")
        report = email.message_from_bytes(notice.content)
        assert report.get_content_type() == "multipart/report"
        human, status, original = cast(list[email.message.Message], report.get_payload())
        assert "bob@office.example" in human.get_payload()
        fields = status.get_payload()
        assert fields[0]["Original-Envelope-Id"] == "envelope 7"  # type: ignore[index]
        assert [part["Final-Recipient"] for part in fields[1:]] == ["rfc822; bob@office.example"]  # type: ignore[index,union-attr]
        assert fields[1]["Status"] == "5.1.1"  # type: ignore[index]
        assert "Subject: hi" in original.get_payload()
        assert b"two" not in notice.content
        (bounce,) = home.events(EventType.BOUNCE)
        assert (bounce.recipient, bounce.text) == ("bob@office.example", "no_mailbox")
        assert set((await home.state()).values()) == {None}
        assert primary.violations == []


@pytest.mark.parametrize(
    ("fields", "state", "event"),
    [
        ({"may_notify": False}, State.PARKED, EventType.PARKED),
        ({"reverse_path": ""}, None, EventType.DROPPED),
        ({"kind": Kind.OPERATOR}, State.PARKED, EventType.PARKED),
    ],
)
async def test_nobody_is_told(
    tmp_path: Path, fields: dict[str, Any], state: State | None, event: EventType
) -> None:
    """Rule 12: without an authenticated return path a failed mail is parked; a DSN about a DSN is dropped."""
    async with (
        Zone(ZONE) as zone,
        Primary(known={"ann@office.example"}) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        async with home.delivering():
            id_ = await home.queue("ann@office.example", "bob@office.example", **fields)
            await until(lambda: home.events(event))
            assert home.events(event)[0].recipient == "bob@office.example"

            async def settled() -> bool:
                progress = (await home.state())[id_]
                return (progress and progress.state) == state

            await until(settled)
        assert len(primary.received) == 1
        assert len(await home.state()) == 1


async def test_brake(tmp_path: Path) -> None:
    """Rule 9: after an outage a refused confirmed recipient does not bounce; the brake is published."""
    async with (
        Zone(ZONE) as zone,
        Primary(known=set()) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        await primary.down()
        async with home.delivering():
            id_ = await home.queue("ann@office.example")
            await until(lambda: home.events(EventType.PRIMARY))
            await primary.up()
            await until(lambda: any("brake" in event.text for event in home.events(EventType.PRIMARY)))

            async def deferred() -> bool:
                progress = (await home.state())[id_]
                return progress is not None and progress.state is State.DEFERRED

            await until(deferred)

            async def published() -> bool:
                found = [
                    decode(record.value or b"", PrimaryState)
                    async for record in home.records("primaries", "office.example")
                ]
                return (
                    bool(found) and found[-1].braked and 0 < home.clock.wall() - found[-1].braked_since < 60
                )

            await until(published)
        assert not home.events(EventType.BOUNCE)
        assert not primary.received


async def test_what_waited_is_counted(tmp_path: Path) -> None:
    """After an outage `primaries` says how many mails waited for its end, and how many of them were handed
    over; what comes later is neither, and the next owner goes on with these numbers."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        primary.say("RCPT", "450 4.2.0 mailbox busy", to="bob@office.example")

        async def published(waited: int, handed: int) -> None:
            async def so() -> bool:
                found = [
                    decode(record.value or b"", PrimaryState)
                    async for record in home.records("primaries", "office.example")
                ]
                return bool(found) and (found[-1].waited, found[-1].handed) == (waited, handed)

            await until(so)

        await primary.down()
        async with home.delivering():
            ids = [await home.queue(name) for name in ("ann@office.example", "eva@office.example")]
            await home.queue("bob@office.example")
            await until(lambda: home.events(EventType.PRIMARY))
            await primary.up()
            await home.ended(ids)
            await published(3, 2)
            await home.ended([await home.queue("ann@office.example")])
        async with home.delivering():
            await home.ended([await home.queue("eva@office.example")])
            await published(3, 2)


async def test_refused_by_policy(tmp_path: Path) -> None:
    """Two reverse-paths refused by policy in a row: the primary is refusing, nothing fails, all waits."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        primary.say("MAIL", "550 5.7.1 your host is blocked using a list")
        async with home.delivering():
            for name in ("a", "b", "c"):
                await home.queue(reverse_path=f"{name}@sender.example")
            await until(lambda: any("refusing" in event.text for event in home.events(EventType.PRIMARY)))
            labels = {"domain": "office.example"}
            sample = home.metrics.registry.get_sample_value
            await until(lambda: sample("backupmx_primary_refusing", labels) == 1)
        assert not home.events(EventType.BOUNCE)
        assert None not in (await home.state()).values()


async def test_deferred(tmp_path: Path) -> None:
    """A 4yz for one mail defers that mail alone; a flush brings it back at once."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        primary.say("RCPT", "450 4.2.0 mailbox busy", to="bob@office.example", times=1)
        async with home.delivering():
            slow = await home.queue("ann@office.example", "bob@office.example")
            await until(lambda: home.events(EventType.TRANSIENT_FAILURE))
            await home.ended([await home.queue("ann@office.example")])
            progress = (await home.state())[slow]
            assert progress is not None
            assert (progress.state, progress.done, progress.attempts) == (State.DEFERRED, (0,), 1)
            assert 250 < progress.next_attempt - home.clock.wall() < 340
            await home.flush("request-1")
            await home.ended([slow])
            await until(lambda: home.events(EventType.REQUEST))
        assert [[name for name, _ in mail.recipients] for mail in primary.received] == [
            ["ann@office.example"],
            ["ann@office.example"],
            ["bob@office.example"],
        ]
        assert home.events(EventType.REQUEST)[0].request_id == "request-1"


async def test_poison(tmp_path: Path) -> None:
    """A mail that makes the primary drop the connection is deferred and does not hold up the others."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        primary.say("DOT", "!drop", times=1)
        async with home.delivering():
            poison = await home.queue("ann@office.example")
            await until(lambda: home.events(EventType.TRANSIENT_FAILURE))
            others = [await home.queue("ann@office.example") for _ in range(5)]
            await home.ended(others)
        progress = (await home.state())[poison]
        assert progress is not None
        assert progress.state is State.DEFERRED


async def test_strip_and_chunks(tmp_path: Path) -> None:
    """A content of many chunks arrives in order without the octet ranges that are not relayed."""
    content = (
        b"Authentication-Results: mx1.backup.example; spf=pass\r\nSubject: x\r\n\r\n" + b".line\r\n" * 5000
    )
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        async with home.delivering():
            end = content.index(b"Subject")
            await home.ended([await home.queue(content=content, chunk=1000, strip=((0, 5), (5, end)))])
        (mail,) = primary.received
        assert mail.content == b"Received: by mx1.backup.example\r\n" + content[end:]
        assert int(mail.params["SIZE"]) == len(mail.content)
