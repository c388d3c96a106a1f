"""A Postfix in front of us, which says whom it had each mail from: for SPF that is the client."""

from collections.abc import Callable
from pathlib import Path

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone
from tests.real.postfix import Postfix

ANN = "ann@office.example"
ZONE = """
office.example                MX 10 mail.office.example
office.example                MX 20 mx1.backup.example
mail.office.example           A 127.0.0.2
mx1.backup.example            A 127.0.0.9
sender.example                MX 10 mail.sender.example
sender.example                TXT "v=spf1 ip4:192.0.2.77 -all"
mail.sender.example           A 192.0.2.77
mail.sender.example           TXT "v=spf1 a -all"
"""
SAID = (
    'spf=pass reason="for 192.0.2.77 as named by the trusted relay 127.0.0.1" smtp.mailfrom=sender.example; '
    'spf=pass reason="for 192.0.2.77 as named by the trusted relay 127.0.0.1" smtp.helo=mail.sender.example;'
)


async def test_a_filter_in_front(tmp_path: Path, unpacked: Callable[[str], Path]) -> None:
    """XFORWARD as Postfix sends it: in our field stands the result for the client that spoke to Postfix, in
    Received the connection as it was."""
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={ANN}) as primary,
        Running(
            tmp_path / "backup",
            dns=zone.servers,
            dial_port=primary.port,
            smtp__trusted_relays='["127.0.0.1/32"]',
        ) as running,
        Postfix(
            tmp_path / "front",
            unpacked("postfix"),
            ["eve@sender.example"],
            relay=running.smtp_port,
            relay_domains="office.example",
            smtp_send_xforward_command="yes",
            smtpd_authorized_xclient_hosts="127.0.0.1",
        ) as front,
    ):
        assert (await running.ask("domain", "add", "office.example")).code == 0
        async with Client(front.port) as client:  # who speaks to Postfix, as far as it knows
            await client.greet()
            await client.send(b"XCLIENT NAME=mail.sender.example ADDR=192.0.2.77\r\n")
            assert (await client.reply()).startswith("220 ")
            await client.send(b"EHLO mail.sender.example\r\n")
            await client.reply()
            assert (await client.mail(ANN, sender="bob@sender.example")).startswith("250 ")
        await primary.got(1)
        content = primary.received[0].content.decode().replace("\r\n\t", " ")
    assert SAID in content
    assert content.startswith(
        "Received: from mail.sender.example ([127.0.0.1]) by mx1.backup.example with ESMTP"
    )
