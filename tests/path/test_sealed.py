"""With a key, what is handed over is sealed: the primary's next hop can know what we found."""

from pathlib import Path

import dkim

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone
from tests.verify import sign

ZONE = """
office.example      MX 10 mail.office.example
office.example      MX 20 mx1.backup.example
mail.office.example A 127.0.0.2
mx1.backup.example  A 127.0.0.9
sender.example      MX 10 mail.sender.example
sender.example      TXT "v=spf1 ip4:127.0.0.0/8 -all"
mail.sender.example A 127.0.0.3
r._domainkey.relay.example TXT {rsa2048}
"""
FORGED = b"Authentication-Results: mx1.backup.example; dmarc=pass header.from=bank.example\r\n"


def valid(content: bytes) -> bool:
    record = (sign.KEYS / "rsa2048.txt").read_bytes().strip()
    return bool(dkim.arc_verify(content, dnsfunc=lambda *_, **__: record)[0] == dkim.CV_Pass)


async def test_what_is_handed_over_is_sealed(tmp_path: Path) -> None:
    """By SQLite and real sockets: a small mail, one that goes through the pool, and one that was sealed
    before; what was forged is gone, and the seal holds as dkimpy sees it."""
    large = sign.MESSAGE + b"a line of sixty octets, or nearly as many as that, and so on\r\n" * 10_000
    sealed = sign.made(["arc rsa2048 d=relay.example s=r"])
    async with (
        Zone(sign.zone_text(ZONE)) as zone,
        Primary(address="127.0.0.2", known={"ann@office.example"}) as primary,
        Running(
            tmp_path,
            dns=zone.servers,
            dial_port=primary.port,
            arc__domain="backup.example",
            arc__selector="arc",
            arc__key=str(sign.KEYS / "rsa2048.pem"),
        ) as running,
    ):
        assert (await running.ask("domain", "add", "office.example")).code == 0
        async with Client(running.smtp_port) as client:
            await client.greet()
            for number, content in enumerate((FORGED + sign.MESSAGE, large, sealed), 1):
                assert (await client.mail("ann@office.example", content=content)).startswith("250 2.0.0")
                await primary.got(number)
    small, big, again = (mail.content for mail in primary.received)
    assert valid(small)
    assert b"bank.example" not in small
    assert b"ARC-Authentication-Results: i=1; mx1.backup.example;" in small
    assert valid(big)
    assert valid(again)
    assert b"ARC-Authentication-Results: i=2; mx1.backup.example;" in again
