"""A partition changes its owner in verify while a mail of it comes in: the new owner reads the mail from its
first chunk on. What it cannot read whole is accepted with temperror."""

from pathlib import Path

import pytest

from tests.faults.reading import ANN, BOB, FORGED, HONEST, LOGS, REFUSED, ZONE, Alter, Backup, backup, index
from tests.helpers.client import Client
from tests.helpers.patience import until
from tests.helpers.primary import Primary
from tests.helpers.running import HOSTS, Running
from tests.helpers.zone import Zone
from tests.verify.sign import zone_text

HALF = 1_200_000  # octets: more than one chunk, less than two


async def sent(at: Backup, content: bytes, alter: Alter = lambda record: [record]) -> str:
    """The reply to a mail: one verify reads its first chunk, another (what `alter` makes of) all of them."""
    first = await at.verify()
    async with at.house.client() as client:
        await client.greet()
        await client.send(f"MAIL FROM:<{BOB}>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n".encode())
        assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
        await client.send(content[:HALF])
        await until(lambda: first.reader.read == [0])
        await at.verify(alter)
        await first.stop()
        await client.send(content[HALF:] + b".\r\n")
        return await client.reply()


@LOGS
async def test_an_honest_mail(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """Nothing but a signature over all of it speaks for it: half of it would be refused."""
    async with backup(tmp_path, kind, request) as at:
        assert (await sent(at, HONEST)).startswith("250 2.0.0")
        [fields] = await at.results()
        assert b"dkim=pass" in fields
        assert b"dmarc=pass" in fields


@LOGS
async def test_a_forged_mail(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """All of it was read by one: that it is forged is known for sure."""
    async with backup(tmp_path, kind, request) as at:
        assert (await sent(at, FORGED)).startswith(REFUSED)
        assert await at.results() == []


@LOGS
async def test_the_new_owner_has_not_all_of_it(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """Rule 7: then nothing is known for sure, and the forged mail is accepted."""
    async with backup(tmp_path, kind, request) as at:
        reply = await sent(at, FORGED, lambda record: [] if index(record) == 0 else [record])
        assert reply.startswith("250 2.0.0")
        [fields] = await at.results()
        assert b"dkim=temperror" in fields
        assert b"dmarc=temperror" in fields


async def test_its_process_is_killed(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """kill -9: the other process has the partition when the group has missed the first for its session."""
    async with (
        Zone(zone_text(ZONE)) as zone,
        Primary(address="127.0.0.2", known={ANN}) as primary,
        Running(tmp_path / "one", dns=zone.servers, dial_port=primary.port, kafka=broker) as one,
    ):
        assert (await one.ask("domain", "add", "office.example", "--enforce", "dmarc")).code == 0
        other = Running(
            tmp_path / "other",
            dns=zone.servers,
            dial_port=primary.port,
            kafka=broker,
            host=HOSTS[1],
            join=one,
        )
        other.names = ("verify",)
        async with other, Client(one.smtp_port) as client:
            await client.greet()
            assert (await client.mail(ANN, sender=BOB, content=FORGED)).startswith(REFUSED)
            await client.send(f"MAIL FROM:<{BOB}>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n".encode())
            assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
            await client.send(HONEST[:HALF])
            owner = await until(lambda: holder(one, other))
            await owner.kill("verify")
            await client.send(HONEST[HALF:] + b".\r\n")
            assert (await client.reply()).startswith("250 2.0.0")
        await primary.got(1)
    [mail] = primary.received
    assert b"dmarc=pass" in mail.content or b"dmarc=temperror" in mail.content


async def holder(*hosts: Running) -> Running | None:
    """Whose verify has a part of a mail in hand."""
    for host in hosts:
        if await host.metric("verify", "backupmx_assembly_bytes"):
            return host
    return None
