"""Callouts at real Postfixes: one that knows its users, one that greylists, one that calls back."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.helpers.client import Client
from tests.helpers.mailing import content
from tests.real.asking import advised, learnt, primary, questions, rcpt, since
from tests.real.place import Place, add
from tests.real.ports import free_port
from tests.real.postfix import Postfix
from tests.real.postgrey import Postgrey

pytestmark = pytest.mark.asyncio(loop_scope="session")
BOTH = ["250 2.1.5", "550 5.1.1"]  # who exists, and who does not


@pytest_asyncio.fixture(loop_scope="session")
async def local(tmp_path: Path, unpacked: Callable[[str], Path], at: Place) -> AsyncIterator[Postfix]:
    """The users of a machine: local_recipient_maps."""
    ann = "ann@local.example"
    async with Postfix(
        tmp_path / "room", unpacked("postfix"), [ann], address="127.0.0.4", port=at.office.port,
        mydestination="local.example", local_recipient_maps=f"inline:{{ {{{ann} = x}} }}",
        virtual_mailbox_domains="", local_transport="virtual",
    ) as postfix:  # fmt: skip
        await add(at.backup, "local.example")
        yield postfix


@pytest_asyncio.fixture(loop_scope="session")
async def postgrey(tmp_path: Path, unpacked: Callable[[str], Path]) -> AsyncIterator[Postgrey]:
    async with Postgrey(tmp_path / "postgrey", unpacked("postgrey"), delay_s=1) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def greylists(
    tmp_path: Path, unpacked: Callable[[str], Path], at: Place, postgrey: Postgrey
) -> AsyncIterator[Postfix]:
    async with Postfix(
        tmp_path / "room", unpacked("postfix"), ["ann@grey.example"], address="127.0.0.5",
        port=at.office.port,
        smtpd_recipient_restrictions=f"check_policy_service inet:127.0.0.1:{postgrey.port}",
    ) as postfix:  # fmt: skip
        await add(at.backup, "grey.example")
        yield postfix


@asynccontextmanager
async def calling_back(
    folder: Path, packages: Path, at: Place, resolver: str, domain: str, *, address: str, us: int
) -> AsyncIterator[Postfix]:
    """It asks the MX of a sender's domain, for ours at the port `us`, whether the sender exists, before it
    answers RCPT for `domain`, which we know."""
    host = "mx1.backup.example"
    server = Postfix(
        folder, packages, [f"ann@{domain}"], address=address, port=at.office.port, disable_dns_lookups="no",
        smtpd_sender_restrictions="reject_unverified_sender",
        transport_maps=f"inline:{{ {{{host} = smtp:{host}:{us}}} }}",
    )  # fmt: skip
    (server.room.etc / "resolv.conf").write_text(resolver)
    async with server:
        await add(at.backup, domain)
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def calls_back(
    tmp_path: Path, unpacked: Callable[[str], Path], at: Place, resolver: str
) -> AsyncIterator[Postfix]:
    room, packages = tmp_path / "room", unpacked("postfix")
    domain, us = "wary.example", at.tap.port
    async with calling_back(room, packages, at, resolver, domain, address="127.0.0.6", us=us) as postfix:
        yield postfix


@pytest_asyncio.fixture(loop_scope="session")
async def cannot_call_back(
    tmp_path: Path, unpacked: Callable[[str], Path], at: Place, resolver: str
) -> AsyncIterator[Postfix]:
    """A firewall is between it and us: nobody answers its callouts."""
    room, packages = tmp_path / "room", unpacked("postfix")
    domain, us = "deaf.example", free_port()
    async with calling_back(room, packages, at, resolver, domain, address="127.0.0.8", us=us) as postfix:
        yield postfix


def refusals(postfix: Postfix) -> list[str]:
    """Its replies to RCPT that refuse."""
    return re.findall(r"reject: RCPT from \S+: (.*?); from=", postfix.log())


def sessions(postfix: Postfix) -> int:
    """How many connections were opened to it."""
    return postfix.log().count(": connect from ")


async def test_local_recipient_maps(at: Place, local: Postfix) -> None:
    """User unknown in local recipient table: 550 5.1.1 here and there; one session for both."""
    before = await questions(at)
    assert await rcpt(at, "ann@local.example", "nobody@local.example") == BOTH
    assert "User unknown in local recipient table" in local.log()
    assert await since(at, before) == {"deliverable": 1, "undeliverable": 1}
    assert learnt(at, "ann@local.example") == ["unknown -> deliverable: 250 2.1.5 Ok"]
    (denied,) = learnt(at, "nobody@local.example")
    assert denied.startswith("unknown -> undeliverable: 550 5.1.1 <nobody@local.example>: ")
    assert primary(at, "local.example") == "callouts open"
    assert {advised("", reply) for reply in refusals(local)} == {""}
    assert sessions(local) == 1
    assert "DATA" not in local.log()


async def test_greylisting(at: Place, greylists: Postfix, postgrey: Postgrey) -> None:
    """It greylists before it looks whom for: nothing is known, both are taken on suspicion. The delivery,
    once it gets through, teaches who exists."""
    ann, nobody = "ann@grey.example", "nobody@grey.example"
    before = await questions(at)
    async with Client(at.backup.smtp_port) as client:
        await client.greet()
        sent = await client.mail(ann, content=content("grey"))
        assert sent.startswith("250 2.0.0 Ok: queued as ")
    assert await rcpt(at, nobody) == ["250 2.1.5"]
    assert await since(at, before) == {"greylisted": 2}
    assert learnt(at, ann) == learnt(at, nobody) == []
    said = primary(at, "grey.example")
    assert said.startswith(
        "callouts open: Your mail server greylists 127.0.0.1 (mx1.backup.example): add `127.0.0.1`, a line "
        "each, to /etc/postgrey/whitelist_clients.local "
    )
    assert {advised("", reply) for reply in refusals(greylists)} == {"greylist at postgrey"}
    assert "sender=postmaster@mx1.backup.example, recipient=ann@grey.example" in postgrey.log()
    while not learnt(at, ann):
        assert (await at.backup.ask("queue", "flush", "grey.example")).code == 0
    assert learnt(at, ann)[0].startswith("unknown -> deliverable: 250 2.0.0 Ok: queued as ")
    assert learnt(at, nobody) == []
    await greylists.until(lambda: greylists.mailbox(ann))
    (mail,) = greylists.mailbox(ann)
    assert b"X-Greylist: delayed " in mail
    await at.handed_over()


async def test_a_primary_that_calls_back(at: Place, calls_back: Postfix) -> None:
    """Its question for our postmaster is answered at once and asks nobody: one session each way, and both
    questions have their answers."""
    before = await questions(at)
    office = len(at.office.visits)
    assert await rcpt(at, "ann@wary.example", "nobody@wary.example") == BOTH
    asked = b"".join(at.tap.sent)
    assert asked.count(b"RCPT TO:<postmaster@mx1.backup.example>") == 1
    assert b"\r\n250 2.1.5 " in at.tap.said
    assert b"DATA" not in asked
    assert (sessions(calls_back), at.tap.sessions) == (1, 1)
    assert await since(at, before) == {"deliverable": 1, "undeliverable": 1}
    assert len(at.office.visits) == office
    assert primary(at, "wary.example") == "callouts open"


async def test_a_primary_that_cannot_call_back(at: Place, cannot_call_back: Postfix) -> None:
    """It refuses our callouts' sender, whomever we ask about: both are taken on suspicion, nothing is learnt
    of them, and its callouts are blocked; the owner is told to let our postmaster pass."""
    before = await questions(at)
    ann, nobody = "ann@deaf.example", "nobody@deaf.example"
    assert await rcpt(at, ann, nobody) == ["250 2.1.5", "250 2.1.5"]
    assert learnt(at, ann) == learnt(at, nobody) == []
    said = primary(at, "deaf.example")
    assert said.startswith("callouts blocked: 450 4.1.7 <postmaster@mx1.backup.example>: ")
    assert "refuses the sender of our questions" in said
    assert {advised("", reply) for reply in refusals(cannot_call_back)} == {"sender at postfix"}
    assert sum((await since(at, before)).values()) == 2
