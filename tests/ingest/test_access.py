"""Whom the operator blocked or allowed: the index, and the table it comes from."""

import asyncio
import ipaddress
import math
from collections import Counter
from pathlib import Path

import pytest

from libs import topics
from libs.mail.address import mailbox
from libs.mail.codec import Undecodable, decode, encode
from libs.mail.event import Event, EventType
from libs.mail.records import Access, Domain, Permission
from services.ingest.access import NO_RULES, Listed, Rules
from services.ingest.connections import peer_at
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.ingest.house import House
from tests.ingest.test_service import ANN, opened

EVE = "eve@sender.example"
BLOCK, ALLOW = Permission.BLOCK, Permission.ALLOW
OFFICE = Domain("office.example", 1.0, active_since=2.0)


def rules(**said: Permission) -> Rules:
    return Rules(Listed(Access(subject, permission), math.inf) for subject, permission in said.items())


def test_the_smallest_network_counts() -> None:
    """Of all networks that hold an address, IPv4 and IPv6 apart."""
    at = rules(
        **{
            "192.0.2.0/24": BLOCK,
            "192.0.2.128/25": ALLOW,
            "192.0.2.200": BLOCK,
            "2001:db8::/32": BLOCK,
            "2001:db8:5::/48": ALLOW,
        }
    )
    addresses = [
        "192.0.2.1",
        "192.0.2.129",
        "192.0.2.200",
        "192.0.3.1",
        "2001:db8::1",
        "2001:db8:5::1",
        "::1",
    ]
    said = [at.client(ipaddress.ip_address(each)) for each in addresses]
    assert said == [BLOCK, ALLOW, BLOCK, None, BLOCK, ALLOW, None]
    assert peer_at("::ffff:192.0.2.1", (), at).blocked
    exempt = [ipaddress.ip_network("192.0.2.0/24")]
    peers = [peer_at(each, exempt, at) for each in ("192.0.2.1", "192.0.2.129")]
    assert [(each.exempt, each.blocked) for each in peers] == [(False, True), (True, False)]


def test_an_address_comes_before_its_domain() -> None:
    """ASCII letters of a local part are compared in lower case; a domain covers itself only."""
    at = rules(**{"@sender.example": BLOCK, "ann@sender.example": ALLOW, "eve@other.example": BLOCK})
    senders = ["x@sender.example", "Ann@sender.example", "x@sub.sender.example", "EVE@Other.Example"]
    assert [at.blocks(mailbox(each)) for each in senders] == [True, False, False, True]
    assert not NO_RULES.blocks(mailbox("x@sender.example"))


def test_a_rule_that_is_over_is_none() -> None:
    """And the index says when the next one is."""
    listed = [Listed(Access("192.0.2.1", BLOCK, 10.0), 100.0), Listed(Access("192.0.2.2", BLOCK, 9.0), 200.0)]
    one, two = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.2")
    assert Rules(listed, 99.0).ends == 100.0
    at = Rules(listed, 100.0)
    assert (at.client(one), at.client(two), at.ends) == (None, BLOCK, 200.0)


def test_older_versions_step_over_it() -> None:
    """A record of `access` is no Domain to a version that knows only domains, and no key looks like one."""
    with pytest.raises(Undecodable):
        decode(encode(Access("192.0.2.1", BLOCK, 5.0, "root")), Domain)
    keys = [
        b"office.example",
        topics.INSTALLATION_KEY,
        topics.ACCESS_KEY + b"192.0.2.1",
        b"access:@a.example",
    ]
    assert [topics.is_relay_domain(key) for key in keys] == [True, False, False, False]


async def test_rules_are_no_relay_domains(tmp_path: Path) -> None:
    """Rule 7: with a domain missing the table is not whole, however many rules there are."""
    async with House(tmp_path) as house:
        for number in range(5):
            await house.permit(Access(f"192.0.2.{number}", BLOCK))
        await house.install(OFFICE, count=2)
        await house.start()
        async with house.client() as client:
            await client.greet()
            await client.talk(
                "C: MAIL FROM:<eve@sender.example>\nS: 250 ...\n"
                "C: RCPT TO:<ann@missing.example>\nS: 451 4.3.2 ..."
            )


async def said(house: House) -> str:
    async with house.client() as client:
        return (await client.reply())[:3]


async def becomes(house: House, code: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await said(house) != code:
            pass


async def test_rules_come_and_go_while_ingest_runs(tmp_path: Path) -> None:
    """Blocked, removed, blocked for a moment by the log's clock; what cannot be read is stepped over."""
    async with House(tmp_path) as house:
        await house.install(OFFICE)
        await house.start()
        key = topics.ACCESS_KEY + b"127.0.0.1"

        assert await said(house) == "220"
        await house.permit(Access("127.0.0.1", BLOCK))
        await becomes(house, "554")
        await house.log.append("domains", 0, key, b"\xff", within=PATIENCE_S)
        await until(lambda: house.metrics.quarantined.labels("domains")._value.get())
        assert await said(house) == "554"
        await house.log.append("domains", 0, key, None, within=PATIENCE_S)
        await becomes(house, "220")
        house.deps.events.emit(Event(type=EventType.TICK))  # as every process does: it brings the log's time
        await house.permit(Access("127.0.0.1", BLOCK, lasts_s=8.0))
        await becomes(house, "554")
        await becomes(house, "220")


async def test_stale_rules_block_nobody(tmp_path: Path) -> None:
    """Rule 7: a block is a permanent no; when the table was not read to its end lately there is none."""
    clock = Clock()
    async with House(tmp_path, clock=clock) as house:
        await house.permit(Access("127.0.0.1", BLOCK))
        await house.install(OFFICE)
        await house.start()
        await becomes(house, "554")
        house.log.silent = True
        clock.advance(11)
        await becomes(house, "220")
        house.log.silent = False
        await becomes(house, "554")


async def test_a_session_keeps_what_it_began_with(tmp_path: Path) -> None:
    """A block that comes in the middle of a session lets the mail under way through. A sender is blocked from
    the next MAIL on, a client from its next connection on."""
    async with House(tmp_path) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            await client.talk(f"C: MAIL FROM:<{EVE}>\nS: 250 ...\nC: RCPT TO:<{ANN}>\nS: 250 2.1.5 ...")
            for subject in (EVE, "127.0.0.1"):
                await house.permit(Access(subject, BLOCK))
            await becomes(house, "554")
            await client.talk(f"C: RCPT TO:<{ANN}>\nS: 250 2.1.5 ...\nC: DATA\nS: 354 ...")
            await client.talk("C| Subject: hi\nC:\nC| hello\nC: .\nS: 250 2.0.0 ...")
            assert (await client.mail(ANN, sender=EVE)).startswith("550 5.7.1")
            assert (await client.mail(ANN, sender="kim@sender.example")).startswith("250 2.0.0")
        assert len(await house.queued()) == 2


async def test_rules_that_change_all_the_time(tmp_path: Path) -> None:
    """Sessions in flight while sender and client are blocked and allowed again, in turn: each reply is one of
    the two answers, what got 250 is queued, and nothing is raised."""
    async with House(tmp_path) as house:
        await opened(house)
        heard: Counter[str] = Counter()

        async def send() -> None:
            while min(heard["554"], heard["550"], heard["250"]) < 20:
                async with house.client() as client:
                    heard[greeting := (await client.reply())[:3]] += 1
                    assert greeting in ("220", "554")
                    if greeting == "554":
                        continue
                    await client.send(b"EHLO client.sender.example\r\n")
                    assert (await client.reply()).startswith("250")
                    for _ in range(5):
                        heard[(said := await client.mail(ANN, sender=EVE))[:3]] += 1
                        assert said.startswith(("250 2.0.0", "550 5.7.1"))

        async def change() -> None:
            while True:
                for subject in (EVE, "127.0.0.1"):
                    for permission in (BLOCK, ALLOW):
                        await house.permit(Access(subject, permission))
                        await asyncio.sleep(0.05)  # some sessions see it, some do not

        changing = asyncio.create_task(change())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(send() for _ in range(8)))
        changing.cancel()
        await asyncio.wait({changing})
        assert changing.cancelled()
        assert len(await house.queued()) == heard["250"]
        assert house.metrics.session_errors._value.get() == 0
