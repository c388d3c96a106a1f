"""A backup for office.example whose DNS, primary and senders' own server can be broken."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
                         MX 30 mx2.backup.example
    sender.example       MX 10 mail.sender.example
                         TXT "v=spf1 ip4:127.0.0.1 -all"
    mail.office.example  A 127.0.0.2
    mail.sender.example  A 127.0.0.4
"""
ANN, BOB, EVE = "ann@office.example", "bob@office.example", "eve@sender.example"


class Scene(NamedTuple):
    """`office`: the primary of the relay domain; `sender`: the server that gets notices to EVE."""

    backup: Running
    office: Primary
    sender: Primary
    zone: Zone

    async def mail(self, *recipients: str, subject: str = "hi", sender: str = EVE) -> str:
        """Send one mail in a session of its own; the reply that decides it."""
        async with Client(self.backup.smtp_port) as client:
            await client.greet()
            return await client.mail(
                *recipients or (ANN,), sender=sender, content=f"Subject: {subject}\r\n\r\nhello\r\n".encode()
            )

    async def rcpt(self, recipient: str, sender: str = EVE) -> str:
        """The reply to RCPT, in a session of its own."""
        async with Client(self.backup.smtp_port) as client:
            await client.greet()
            await client.send(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\n".encode())
            assert (await client.reply()).startswith("250")
            return await client.reply()

    async def queue(self) -> list[Any]:
        """The rows of `queue list`."""
        said = await self.backup.ask("queue", "list", "--json")
        assert said.code == 0, said.err
        return said.rows

    async def again(self) -> None:
        """Wait for a failed try, and have what waits tried now instead of after its backoff."""
        await self.backup.until(lambda: self.backup.events("TransientFailure"))
        said = await self.backup.ask("queue", "flush", "office.example")
        assert said.code == 0, said.err

    async def delivered(self, count: int) -> None:
        """Have what waits tried now, again and again, until the primary has `count` mails and nothing waits;
        nobody was told anything, and no mail came more often than it was sent."""
        for _ in range(100):
            said = await self.backup.ask("queue", "flush", "office.example")
            assert said.code == 0, said.err
            if len(self.office.received) >= count and not await self.queue():
                break
        else:
            raise AssertionError(f"{self.subjects()}, still waiting: {await self.queue()}")
        assert not self.backup.events("Bounce")
        assert not self.backup.events("Parked")
        assert not self.sender.received

    async def quiet(self) -> None:
        """Return once no connection to the primary is kept any more."""
        await self.office.until(lambda: not self.office.open_visits)

    async def emptied(self) -> None:
        """Return once nothing waits any more."""
        for _ in range(100):
            if not await self.queue():
                return
        raise AssertionError(f"still waiting: {await self.queue()}")

    async def health(self, wanted: str) -> None:
        """Return once deliver has said that the primary is `wanted`."""
        await self.backup.until(lambda: (said := self._healths()) and said[-1].endswith(f"-> {wanted}"))

    def _healths(self) -> list[str]:
        return [
            str(event["text"]).partition(":")[0]
            for event in self.backup.events("Primary")
            if "->" in event["text"]
        ]

    def subjects(self) -> list[str]:
        """Of what the primary received, in order."""
        return [
            mail.content.partition(b"\nSubject: ")[2].partition(b"\r\n")[0].decode()
            for mail in self.office.received
        ]


@asynccontextmanager
async def scene(folder: Path, **settings: Any) -> AsyncIterator[Scene]:
    """All started, the domain added. Probes come every half second."""
    async with AsyncExitStack() as stack:
        zone = await stack.enter_async_context(Zone(ZONE))
        office = await stack.enter_async_context(Primary(known={ANN, BOB}, address="127.0.0.2"))
        sender = await stack.enter_async_context(
            Primary(known={EVE}, address="127.0.0.4", port=office.port, name="mail.sender.example")
        )
        settings = {"timing__probe_s": "0.5"} | settings
        backup = await stack.enter_async_context(
            Running(folder, dns=zone.servers, dial_port=office.port, **settings)
        )
        said = await backup.ask("domain", "add", "office.example")
        assert said.code == 0, said.err
        yield Scene(backup, office, sender, zone)
        assert not office.violations
        assert not sender.violations
