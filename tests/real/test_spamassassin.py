"""SpamAssassin behind a primary that gets mail from us: who is the sender to it, and whose word it believes.

Its configuration is the paste-ready one of docs/domain-owner.md, read from there.
"""

import re
from collections.abc import Callable
from pathlib import Path

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone
from tests.real.ports import free_port
from tests.real.room import Room
from tests.verify import sign

GUIDE = Path(__file__).parent.parent.parent / "docs" / "domain-owner.md"
SENDER, US = "192.0.2.77", "198.51.100.1"  # the client as a proxy names it, and our published address
KEY = (sign.KEYS / "ed25519.txt").read_text().strip()
ZONE = f"""
office.example                MX 10 mail.office.example
office.example                MX 20 mx1.backup.example
mail.office.example           A 127.0.0.2
mx1.backup.example            A 127.0.0.9
sender.example                MX 10 mail.sender.example
sender.example                TXT "v=spf1 ip4:{SENDER} -all"
_dmarc.sender.example         TXT "v=DMARC1; p=reject"
ed._domainkey.sender.example  TXT "{KEY}"
mail.sender.example           A 127.0.0.3
"""
MAIL = sign.made(["sign ed25519 d=sender.example s=ed"])
TRACE = (
    "Received: from {name} ({name} [{address}])\r\n\tby mail.office.example (Postfix) with ESMTP id 4X1\r\n"
    "\tfor <ann@office.example>; Fri, 15 Jan 2027 08:00:00 +0000 (UTC)\r\n"
)
FORGED = b"Authentication-Results: mx1.backup.example; spf=pass smtp.mailfrom=sender.example; dmarc=pass\r\n"


def paste_ready() -> str:
    """The block of the guide, with the address that is ours here."""
    (block,) = re.findall(r"```spamassassin\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert "192.0.2.10" in block
    return str(block.replace("192.0.2.10", US).replace(r"192\.0\.2\.10", re.escape(US)))


async def handed_over(folder: Path) -> bytes:
    """The mail as the primary gets it from us, with the field that the primary puts on top."""
    port = free_port()
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={"ann@office.example"}) as primary,
        Running(
            folder,
            dns=zone.servers,
            dial_port=primary.port,
            smtp__proxy_listen=f'["127.0.0.1:{port}"]',
            smtp__proxy_networks='["127.0.0.1/32"]',
        ) as running,
    ):
        assert (await running.ask("domain", "add", "office.example")).code == 0
        async with Client(port) as client:
            await client.send(f"PROXY TCP4 {SENDER} 127.0.0.1 40000 25\r\n".encode())
            await client.greet()
            said = await client.mail("ann@office.example", sender="bob@sender.example", content=FORGED + MAIL)
            assert said.startswith("250 2.0.0")
        await primary.got(1)
        return received(primary.received[0].content, "mx1.backup.example", US)


def received(content: bytes, name: str, address: str) -> bytes:
    path = b"Return-Path: <bob@sender.example>\r\n"
    return path + TRACE.format(name=name, address=address).encode() + content


async def hits(folder: Path, unpacked: Path, settings: str, message: bytes) -> set[str]:
    """The rules that a message meets."""
    room = Room(folder, unpacked)
    async with Zone(ZONE) as zone:
        address, port = zone.servers[0]
        (room.etc / "spamassassin" / "local.cf").write_text(
            f"dns_server [{address}]:{port}\ndns_available yes\nskip_rbl_checks 1\nskip_uribl_checks 1\n"
            f"use_bayes 0\nreport_safe 0\nadd_header all Hits _TESTS(,)_\n{settings}"
        )
        said = await room.run("spamassassin", "-p", "/dev/null", given=message, within=120)
    assert said.code == 0, said.err
    (found,) = re.findall(r"^X-Spam-Hits: ((?:.|\n[ \t])*)$", said.out.replace("\r", ""), re.MULTILINE)
    return set(re.sub(r"\s", "", found).split(","))


async def test_it_looks_at_the_real_sender(tmp_path: Path, unpacked: Callable[[str], Path]) -> None:
    """With the settings of the guide SPF is that of the client that spoke to us, and what we found is
    believed; without them SPF would be that of our own address, which is no sender of anybody."""
    program = unpacked("spamassassin")
    message = await handed_over(tmp_path / "backup")
    guided = await hits(tmp_path / "guided", program, paste_ready(), message)
    assert {"SPF_PASS", "BACKUPMX_SPF_PASS", "BACKUPMX_DKIM_PASS", "BACKUPMX_DMARC_PASS"} <= guided
    plain = await hits(tmp_path / "plain", program, "", message)
    assert not {"SPF_PASS", "BACKUPMX_SPF_PASS"} & plain
    assert "SPF_FAIL" in plain


async def test_it_believes_nobody_else_in_our_name(tmp_path: Path, unpacked: Callable[[str], Path]) -> None:
    """A mail that came to the primary directly, with a field that claims to be ours."""
    program = unpacked("spamassassin")
    message = received(FORGED + MAIL, "evil.example", "203.0.113.9")
    found = await hits(tmp_path / "room", program, paste_ready(), message)
    assert "SPF_FAIL" in found
    assert not [rule for rule in found if rule.startswith("BACKUPMX_")]
