"""`python -m demo.first_day`: write docs/first-day.md, a newcomer's first day with real processes.

The office's DNS and mail server are those of the tests; every command and every line below it is real.
"""

import asyncio
import re
import tempfile
from pathlib import Path
from textwrap import fill

from tests.helpers import executed
from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

PAGE = Path(__file__).parent.parent / "docs/first-day.md"
NAME, ANN = "office.example", "ann@office.example"
NOT_YET = """
    office.example       MX 10 mail.office.example
    mail.office.example  A 127.0.0.2
    sender.example       MX 10 mail.sender.example
                         TXT "v=spf1 ip4:127.0.0.1 -all"
    mail.sender.example  A 127.0.0.3
    mx1.backup.example   A 127.0.0.1
    mx2.backup.example   A 127.0.0.1
"""
NAMED = """
    office.example       MX 20 mx1.backup.example
                         MX 30 mx2.backup.example
"""
HEAD = """\
# The first day

What a newcomer types, and what he sees: `make first-day` writes this page anew, from real processes. The
office has a mail server of its own, `mail.office.example`; our hosts are `mx1.backup.example` and
`mx2.backup.example`. Your own first try needs no Kafka and no root: `make run` writes a configuration and
starts everything in one process.
"""
# What is typed, in order: a paragraph, and the command below it ("": something happens instead).
STEPS = (
    (
        "A domain is added by its name and nothing else. It is pending: nobody can have us take "
        "another's mail.",
        f"domain add {NAME}",
    ),
    (
        "What is missing is said by the doctor, with what to write into DNS. Exit code 1 says that "
        "something is wrong.",
        f"domain doctor {NAME}",
    ),
    (
        "The owner adds the two MX records. A pending domain is looked up each minute (here each second).",
        "",
    ),
    (
        "",
        "domain list",
    ),
    (
        "Mail comes from outside to our host. Its recipient is new to us, so the office's server is "
        "asked whether it exists, and as it is up the mail is handed on at once.",
        "",
    ),
    (
        "",
        f"domain recipients list {NAME}",
    ),
    (
        "The office's line goes down. Mail for Ann is taken all the same, since it is known that she "
        "exists; mail for nobody@office.example, who does not, is refused while the sender still "
        "listens.",
        "",
    ),
    (
        "",
        "domain list",
    ),
    (
        "",
        "queue list",
    ),
    (
        "The line is up again. Nobody tells us: within 15 s a probe finds out, and what waited is "
        "handed over.",
        "",
    ),
    (
        "The outage, and what waited in it:",
        f"domain timeline {NAME}",
    ),
    (
        "A sender asks what became of his mail. Its id was in our reply to him, and is in the "
        "Received field that Ann sees:",
        "trace {id}",
    ),
)


class Day:
    """`happens`: what goes on between the commands, in order."""

    def __init__(self, running: Running, zone: Zone, office: Primary) -> None:
        self.running, self.zone, self.office = running, zone, office
        self.id = ""
        self.happens = iter((self._named, self._first_mail, self._outage, self._back))

    async def _named(self) -> list[str]:
        self.zone.set(NOT_YET + NAMED)
        await self.running.until(lambda: self.running.events("Domain", text="active"), within=90)
        return [
            "office.example.  MX  20  mx1.backup.example.",
            "office.example.  MX  30  mx2.backup.example.",
        ]

    async def _send(self, recipient: str, subject: str) -> list[str]:
        async with Client(self.running.smtp_port) as client:
            await client.greet("mail.sender.example")
            reply = await client.mail(recipient, content=f"Subject: {subject}\r\n\r\nHello\r\n".encode())
        return [f"> RCPT TO:<{recipient}>, and a mail with the subject {subject!r}", f"< {reply}"]

    async def _first_mail(self) -> list[str]:
        said = await self._send(ANN, "before the outage")
        await self.office.got(1)
        return said

    async def _outage(self) -> list[str]:
        said = await self._send("nobody@office.example", "to nobody, while the office is up")
        await self.office.down()
        said += await self._send(ANN, "during the outage")
        self.id = self.running.events("Reception")[-1]["id"]
        await self.running.until(lambda: self.running.events("Primary"))
        return said + await self._send("nobody@office.example", "to nobody, during the outage")

    async def _back(self) -> list[str]:
        await self.office.up()
        await self.office.got(2, within=60)
        await self.running.until(lambda: self.running.events("Delivery", id=self.id))
        return ["(the office has both mails, each once)"]

    async def text(self) -> str:
        parts = [HEAD]
        for paragraph, typed in STEPS:
            if paragraph:
                parts.append(fill(paragraph, 116) + "\n")
            if typed:
                words = typed.format(id=self.id).split()
                said = await self.running.ask(*words)
                lines = [f"$ backupmx {' '.join(words)}", *(said.out + said.err).splitlines()]
            else:
                lines = await next(self.happens)()
            parts.append("".join(f"    {line.rstrip()}".rstrip() + "\n" for line in lines))
        return "\n".join(parts)


async def page() -> str:
    with tempfile.TemporaryDirectory(prefix="backupmx-first-day-") as folder:
        async with (
            Zone(NOT_YET) as zone,
            Primary(known={ANN}, address="127.0.0.2", name="mail.office.example") as office,
            Running(
                Path(folder),
                dns=zone.servers,
                dial_port=office.port,
                activation="dns",
                begin=executed.begin,
                timing__probe_s="15.0",
                timing__pending_check_s="1.0",
            ) as running,
        ):
            return re.sub(rf"\b{office.port}\b", "25", await Day(running, zone, office).text())


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(page()), "utf-8")
