"""The setting `auth.received_spf` through all services: where the field stands at the primary."""

from pathlib import Path

import pytest

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
office.example            MX 10 mail.office.example
office.example            MX 20 mx1.backup.example
mail.office.example       A 127.0.0.2
mx1.backup.example        A 127.0.0.9
good.example              MX 10 mail.good.example
good.example              TXT "v=spf1 ip4:127.0.0.0/8 -all"
mail.good.example         A 127.0.0.3
"""
OTHERS = b"Received-SPF: fail (somebody else said so) client-ip=192.0.2.9;\r\n"


@pytest.mark.parametrize("wanted", [False, True])
async def test_received_spf(tmp_path: Path, wanted: bool) -> None:
    """RFC 7208 section 9.1: above the Received of the same server and so above all others, which stay as they
    are; not without the setting."""
    settings = {"auth__received_spf": "true"} if wanted else {}
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={"ann@office.example"}) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, **settings) as running,
    ):
        assert (await running.ask("domain", "add", "office.example")).code == 0
        async with Client(running.smtp_port) as client:
            await client.greet()
            content = OTHERS + b"Subject: hi\r\n\r\nhello\r\n"
            said = await client.mail("ann@office.example", sender="bob@good.example", content=content)
            assert said.startswith("250 ")
        await primary.got(1)
        got = primary.received[0].content
    first = got.replace(b"\r\n\t", b" ").split(b"\r\n")[:2]
    names = [line.split(b":")[0] for line in first]
    assert names == ([b"Received-SPF", b"Received"] if wanted else [b"Received", b"Authentication-Results"])
    assert (b'mechanism="ip4:127.0.0.0/8";' in first[0]) is wanted
    assert got.endswith(content)
