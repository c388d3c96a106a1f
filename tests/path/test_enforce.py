"""The setting `enforce` of a relay domain through all services, over real sockets and both logs."""

from pathlib import Path

import pytest

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ENFORCE = ("off", "dmarc", "spf")  # each the setting of a relay domain of this name
ZONE = """
off.example               MX 10 mail.office.example
off.example               MX 20 mx1.backup.example
dmarc.example             MX 10 mail.office.example
dmarc.example             MX 20 mx1.backup.example
spf.example               MX 10 mail.office.example
spf.example               MX 20 mx1.backup.example
mail.office.example       A 127.0.0.2
mx1.backup.example        A 127.0.0.9
good.example              MX 10 mail.good.example
good.example              TXT "v=spf1 ip4:127.0.0.0/8 -all"
_dmarc.good.example       TXT "v=DMARC1; p=reject"
bad.example               MX 10 mail.good.example
bad.example               TXT "v=spf1 ip4:192.0.2.1 -all"
strict.example            MX 10 mail.good.example
_dmarc.strict.example     TXT "v=DMARC1; p=reject"
trouble.example           !servfail
_dmarc.trouble.example    !servfail
mail.good.example         A 127.0.0.3
"""
TAKEN = "250 2.0.0"
DMARC, SPF = "550 5.7.1 Rejected by the DMARC policy", "550 5.7.23 SPF validation failed"
# domain of MAIL FROM and From -> what is said with enforce off, dmarc and spf
SAID = {
    "good.example": (TAKEN, TAKEN, TAKEN),
    "strict.example": (TAKEN, DMARC, DMARC),
    "bad.example": (TAKEN, TAKEN, SPF),
    "trouble.example": (TAKEN, TAKEN, TAKEN),
}


@pytest.mark.parametrize("log", ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))])
async def test_what_a_domain_wants_refused_is_refused(
    tmp_path: Path, log: str, request: pytest.FixtureRequest
) -> None:
    """At the final dot, in the session; trouble of DNS is no reason, and what is taken is handed over with
    what was found."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={f"ann@{name}.example" for name in ENFORCE}) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, kafka=kafka) as running,
    ):
        for name in ENFORCE:
            assert (await running.ask("domain", "add", f"{name}.example", "--enforce", name)).code == 0
        async with Client(running.smtp_port) as client:
            await client.greet()
            for at, name in enumerate(ENFORCE):
                for domain, said in SAID.items():
                    content = f"From: Eve <eve@{domain}>\r\nSubject: hi\r\n\r\nhello\r\n".encode()
                    reply = await client.mail(f"ann@{name}.example", sender=f"eve@{domain}", content=content)
                    assert reply.startswith(said[at]), (name, domain)
        await primary.got(sum(each == TAKEN for said in SAID.values() for each in said))
    found = {mail.reverse_path: mail.content for mail in primary.received}
    assert b"spf=pass" in found["eve@good.example"]
    assert b"dmarc=pass header.from=good.example policy.dmarc=reject" in found["eve@good.example"]
    assert b"dmarc=fail header.from=strict.example policy.dmarc=reject" in found["eve@strict.example"]
    assert b"spf=temperror" in found["eve@trouble.example"]
    assert b"dmarc=temperror" in found["eve@trouble.example"]
