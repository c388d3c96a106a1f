"""Smuggling: whatever stands between two transactions, the primary gets one mail or none, never a second one
that its sender did not declare to us (RFC 5321 sections 2.3.8 and 4.1.1.4).

The primary is a Postfix as old ones are: to it, a lone LF ends a line. What it believes to be two mails, when
it comes straight from the attacker, must not get there as two through us.
"""

import asyncio
import email
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.client import Client
from tests.helpers.patience import until
from tests.real.place import EVE, REAL_ANN, Place
from tests.real.postfix import Postfix

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENDINGS = {
    # What some server takes for <CR><LF>.<CR><LF>.
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "LF.CR": b"\n.\r",
    "CRLF.LF": b"\r\n.\n",
    "CRLF.CR": b"\r\n.\r",
    "CR.CR": b"\r.\r",
    "CR.LF": b"\r.\n",
    "CR.CRLF": b"\r.\r\n",
    "LFLF.LFLF": b"\n\n.\n\n",
    "CRCR.CRCR": b"\r\r.\r\r",
    "LFCR.LFCR": b"\n\r.\n\r",
    "CRCRLF.CRLF": b"\r\r\n.\r\n",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "LF.CRCRLF": b"\n.\r\r\n",
    "CRLF.LF.CRLF": b"\r\n.\n.\r\n",
    "LF.LF.LF": b"\n.\n.\n",
    # With dots that unstuffing and stuffing could turn into others.
    "LF..LF": b"\n..\n",
    "LF..CRLF": b"\n..\r\n",
    "CRLF..LF": b"\r\n..\n",
    "CRLF..CRLF": b"\r\n..\r\n",
    "CR..CR": b"\r..\r",
    "LF...LF": b"\n...\n",
    # Octets that a server might drop, or stop at.
    "NUL LF.LF": b"\0\n.\n",
    "LF NUL.LF": b"\n\0.\n",
    "LF.NUL LF": b"\n.\0\n",
    "LF.LF NUL": b"\n.\n\0",
    "CRLF NUL.CRLF": b"\r\n\0.\r\n",
    "CRLF.NUL CRLF": b"\r\n.\0\r\n",
    "CR NUL LF.CR NUL LF": b"\r\0\n.\r\0\n",
    "CRLF.CR NUL LF": b"\r\n.\r\0\n",
    "CR NUL LF.CRLF": b"\r\0\n.\r\n",
    "NUL.NUL": b"\0.\0",
    "CRLF.blank CRLF": b"\r\n. \r\n",
    "CRLF blank.CRLF": b"\r\n .\r\n",
    "LF.blank LF": b"\n. \n",
    "CRLF.tab CRLF": b"\r\n.\t\r\n",
    "VT.VT": b"\x0b.\x0b",
    "FF.FF": b"\x0c.\x0c",
    "CTRL-Z": b"\r\n\x1a\r\n",
    "NEL.NEL": b"\x85.\x85",
    "NEL.NEL in UTF-8": "\x85.\x85".encode(),
    "LS.LS": "\u2028.\u2028".encode(),
    "high LF": b"\x8d\x8a.\x8d\x8a",
}
# Postfix before its cure ends a mail at these: the test would see it if we passed one on.
BELIEVED = ("LF.LF", "LF.CRLF", "CRLF.LF")


class Attack(NamedTuple):
    """`cut`: the ending reaches us in two packets, cut here; 0: all in one."""

    name: str
    body: str
    cut: int

    @property
    def token(self) -> str:
        return f"{self.name.replace(' ', '-')}-{self.body}-{self.cut}"

    def content(self) -> tuple[bytes, bytes]:
        """Two packets, of which the first is empty where there is no cut; the end is a true one."""
        first = f"Subject: {self.token}\r\n\r\nhello".encode()
        second = (
            f"MAIL FROM:<{EVE}>\r\nRCPT TO:<{REAL_ANN}>\r\nDATA\r\n"
            f"Subject: smuggled by {self.token}\r\n\r\nhello\r\n.\r\nQUIT\r\n"
        ).encode()
        ending = ENDINGS[self.name]
        if not self.cut:
            return b"", first + ending + second
        return first + ending[: self.cut], ending[self.cut :] + second


def attacks() -> Iterator[Attack]:
    """Each ending, with both bodies, whole and cut behind each of its octets."""
    for name, ending in ENDINGS.items():
        for body in ("", "BODY=8BITMIME"):
            for cut in range(len(ending) + 1):
                yield Attack(name, body, cut)


async def run(attack: Attack, port: int, host: str = "127.0.0.1") -> list[str]:
    """What is said after the content's begin, up to the end of the session."""
    async with Client(port, host=host) as client:
        await client.greet()
        await client.send(f"MAIL FROM:<{EVE}> {attack.body}".rstrip().encode() + b"\r\n")
        assert (await client.reply()).startswith("250 ")
        await client.send(f"RCPT TO:<{REAL_ANN}>\r\nDATA\r\n".encode())
        assert (await client.reply()).startswith("250 ")
        assert (await client.reply()).startswith("354 ")
        begin, rest = attack.content()
        if begin:
            await client.send(begin)
            await read_by(client)
        await client.send(rest)
        said: list[str] = []
        while (line := await client.line()) is not None:
            said.append(line)
        return said


async def read_by(client: Client) -> None:
    """Return once the server has read what was sent: Linux shows how much waits at its end of the socket."""
    mine, server = client.ends
    ours = f" {_entry(server)} {_entry(mine)} "

    def waits() -> bool:
        entry = next((line for line in Path("/proc/net/tcp").read_text().splitlines() if ours in line), "")
        return bool(entry) and not entry.split()[4].endswith(":00000000")

    await until(lambda: not waits())


def _entry(end: tuple[str, int]) -> str:
    """An address and a port as /proc/net/tcp writes them."""
    address = int.from_bytes(socket.inet_aton(end[0]), "little")
    return f"{address:08X}:{end[1]:04X}"


def subjects(mails: list[bytes]) -> Counter[str]:
    return Counter(email.message_from_bytes(mail)["Subject"] for mail in mails)


@pytest.mark.parametrize("name", BELIEVED)
async def test_straight_to_the_primary_it_works(real: Postfix, name: str) -> None:
    """The trap is set: with nobody in between, this primary makes two mails of it."""
    attack = Attack(name, "", 0)
    await run(attack, real.port, real.address)
    await real.until(lambda: len(real.mailbox(REAL_ANN)) >= 2)
    assert subjects(real.mailbox(REAL_ANN)) == {attack.token: 1, f"smuggled by {attack.token}": 1}


async def test_through_us_it_does_not(at: Place, real: Postfix) -> None:
    """Of each attempt one mail arrives, where we said 250, or none."""
    async with Client(at.backup.smtp_port) as client:
        await client.greet()
        assert (await client.mail(REAL_ANN, content=b"Subject: first\r\n\r\n")).startswith("250 ")
    at_once = asyncio.Semaphore(20)

    async def tried(attack: Attack) -> tuple[Attack, list[str]]:
        async with at_once:
            return attack, await run(attack, at.backup.smtp_port)

    outcomes = await asyncio.gather(*(tried(attack) for attack in attacks()))
    taken = {"first": 1}
    for attack, said in outcomes:
        queued = sum(line.startswith("250 2.0.0 Ok: queued as ") for line in said)
        if queued:
            assert [line[:4] for line in said] == ["250 ", "221 "], (attack, said)
            taken[attack.token] = 1
        else:
            assert [line[:11] for line in said] == ["554 5.6.11 "], (attack, said)
    await at.handed_over()
    await real.until(lambda: len(real.mailbox(REAL_ANN)) >= len(taken))
    await real.emptied()
    assert subjects(real.mailbox(REAL_ANN)) == taken
    for name in BELIEVED:
        assert not any(token.startswith(f"{name}-") for token in taken)
