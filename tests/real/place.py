"""A backup for two domains on loopback, and what its senders' servers have to show for their mails."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trustme

from tests.helpers.mailing import content
from tests.helpers.primary import Primary
from tests.helpers.primary_session import Received
from tests.helpers.running import Running
from tests.helpers.zone import Zone
from tests.real.wiretap import Wiretap

ANN, BOB, KIM = "ann@office.example", "bob@office.example", "kim@shop.example"
NOBODY = "nobody@office.example"  # neither primary has it
BEHIND = "ann@gateway.example"  # behind a real Exim, which asks the primary at 127.0.0.2
LATE = ("late1.example", "late2.example")  # their MX name us, but nobody has told us yet
EVE = "eve@sender.example"
ZOE = "zoe@writer.example"  # her own server can be reached: it is the Postfix of REAL_ANN
# The primary of this one is a real Postfix, which takes mails up to so many octets.
REAL_ANN, REAL_NOBODY, REAL_SIZE = "ann@real.example", "nobody@real.example", 300_000

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    shop.example         MX 10 mail.office.example
                         MX 20 mx1.backup.example
    late1.example        MX 10 mail.office.example
                         MX 20 mx1.backup.example
    late2.example        MX 10 mail.office.example
                         MX 20 mx1.backup.example
    real.example         MX 10 mail.real.example
                         MX 20 mx1.backup.example
    local.example        MX 10 mail.local.example
                         MX 20 mx1.backup.example
    grey.example         MX 10 mail.grey.example
                         MX 20 mx1.backup.example
    wary.example         MX 10 mail.wary.example
                         MX 20 mx1.backup.example
    deaf.example         MX 10 mail.deaf.example
                         MX 20 mx1.backup.example
    exim.example         MX 10 mail.exim.example
                         MX 20 mx1.backup.example
    gateway.example      MX 10 mail.exim.example
                         MX 20 mx1.backup.example
    careful.example      MX 10 mail.exim.example
                         MX 20 mx1.backup.example
    took.example         MX 10 mail.took.example
                         MX 20 mx1.backup.example
    smtpd.example        MX 10 mail.smtpd.example
                         MX 20 mx1.backup.example
    writer.example       MX 10 mail.real.example
    writer.example       TXT "v=spf1 ip4:127.0.0.1 -all"
    mail.office.example  A 127.0.0.2
    mail.real.example    A 127.0.0.3
    mail.local.example   A 127.0.0.4
    mail.grey.example    A 127.0.0.5
    mail.wary.example    A 127.0.0.6
    mail.exim.example    A 127.0.0.7
    mail.deaf.example    A 127.0.0.8
    mail.took.example    A 127.0.0.9
    mail.smtpd.example   A 127.0.0.10
    mx1.backup.example   A 127.0.0.1
    sender.example       TXT "v=spf1 ip4:127.0.0.1 -all"
"""


class Place(NamedTuple):
    """`tap`: listens before the backup: senders connect to its port; `trust`: the authority that our
    host's certificate is from."""

    backup: Running
    office: Primary
    tap: Wiretap
    trust: bytes

    async def begin(self) -> None:
        """Another test: nothing was heard yet, and what one that failed has left is out of the way."""
        if not self.backup.runs("solo"):
            await self.backup.start("solo")
            await self.backup.ready()
        self.tap.forget()
        for id_ in self._waiting():
            await self.backup.ask("queue", "delete", id_, "--yes")  # unless it was handed over just now
        await self.handed_over()

    async def handed_over(self) -> None:
        """Return once nothing waits any more."""
        await self.backup.until(lambda: not self._waiting())

    async def arrived(self, token: str, count: int = 1, size: int = 2000) -> list[Received]:
        """The mails with this token at the primary: so many, all that we took is there, and its octets are
        those that were sent, below the fields that servers on the way put on top."""

        wanted = b"\r\n" + content(token, size)

        def with_token() -> list[Received]:
            return [mail for mail in self.office.received if mail.content.endswith(wanted)]

        await self.backup.until(lambda: len(with_token()) >= count)
        mails = with_token()
        await self.handed_over()
        assert len(mails) == len(with_token()) == count
        assert self.office.violations == []
        return mails

    def _waiting(self) -> list[str]:
        """The ids of mails with recipients that got their 250 and wait for theirs."""
        left = Counter[str]()
        for event in self.backup.events("Reception"):
            left[event["id"]] += event["recipient"].count("@")
        received = set(left)  # a notice of ours has no Reception
        for end in ("Delivery", "Bounce"):
            left.subtract(event["id"] for event in self.backup.events(end))
        deleted = {event["id"] for event in self.backup.events("Deleted")}
        return [id_ for id_, count in left.items() if count and id_ in received - deleted]


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    """With a primary to script, at 127.0.0.2; it knows ANN, BOB, KIM and ann@ the domains that come late."""
    async with AsyncExitStack() as stack:
        zone = await stack.enter_async_context(Zone(ZONE))
        known = {ANN, BOB, KIM, BEHIND, *(f"ann@{domain}" for domain in LATE)}
        office = await stack.enter_async_context(Primary(known=known, address="127.0.0.2"))
        authority = trustme.CA()
        settings = certificate(folder, authority)
        backup = await stack.enter_async_context(
            Running(
                folder / "backup",
                dns=zone.servers,
                dial_port=office.port,
                timing__probe_s="0.5",
                host__ipv4='["127.0.0.1"]',
                **settings,
            )
        )
        domains = ("office.example", "shop.example", "real.example")
        await asyncio.gather(*(add(backup, domain) for domain in domains))
        tap = await stack.enter_async_context(Wiretap(backup.smtp_port))
        yield Place(backup, office, tap, authority.cert_pem.bytes())


async def add(backup: Running, domain: str) -> None:
    """Make `domain` one that we are backup for."""
    said = await backup.ask("domain", "add", domain)
    assert said.code == 0, said.err


def certificate(folder: Path, authority: trustme.CA) -> dict[str, str]:
    """Settings with a certificate for mx1.backup.example."""
    issued = authority.issue_cert("mx1.backup.example")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return {"smtp__tls_certificate": str(chain), "smtp__tls_key": str(key)}
