"""Exim and OpenSMTPD as primaries that go away and come back: each mail that we took gets there once, its
octets as they were sent below the fields that we and they put on top."""

import re
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest
import pytest_asyncio
import trustme

from tests.helpers.client import Client
from tests.helpers.mailing import content
from tests.real.asking import rcpt
from tests.real.exim import Exim, receives
from tests.real.opensmtpd import OpenSMTPD
from tests.real.place import ZOE, Place, add
from tests.real.postfix import Postfix

pytestmark = pytest.mark.asyncio(loop_scope="session")
USERS = ("ann", "bob", "late", "gone")
LONG = b"Subject: long\r\n\r\n" + b"x" * 990 + b"\r\n" + b"\xe4" * 3000 + b"\r\n.\r\n..\r\n"
MAILS = (content("small"), content("large", 1_000_000), LONG)
OVER_TLS = re.compile(rb"TLSv?1\.3")


class Server(Protocol):
    """Exim, or OpenSMTPD."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def keeps(self, users: Collection[str]) -> None: ...
    def mailbox(self, user: str) -> list[bytes]: ...
    def log(self) -> str: ...


class Tried(NamedTuple):
    """`tells`: who tells the sender of what fails after the final dot: we, or the server that took it."""

    server: Server
    domain: str
    tells: str

    def of(self, user: str) -> str:
        return f"{user}@{self.domain}"

    def count(self, user: str, sent: bytes) -> int:
        """How often `user` has this."""
        wanted = b"\n" + sent.replace(b"\r\n", b"\n")
        return sum(mail.endswith(wanted) for mail in self.server.mailbox(user))


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["exim", "opensmtpd"])
async def _primary(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    unpacked: Callable[[str], Path],
    _place: Place,
    _real: Postfix,
) -> AsyncIterator[Tried]:
    packages = unpacked(request.param)
    folder, port = tmp_path_factory.mktemp(request.param) / "room", _place.office.port
    domain = {"exim": "took.example", "opensmtpd": "smtpd.example"}[request.param]
    pem = trustme.CA().issue_cert(f"mail.{domain}").private_key_and_cert_chain_pem.bytes()
    server: Exim | OpenSMTPD
    if request.param == "exim":
        server = Exim(folder, packages, receives(domain), address="127.0.0.9", port=port)
        (server.room.etc / "chain.pem").write_bytes(pem)
    else:
        relay = f"{_real.address}:{_real.port}"
        server = OpenSMTPD(
            folder, packages, domain=domain, certificate=pem, relay=relay, address="127.0.0.10", port=port
        )
    server.keeps(USERS)
    async with server:
        await add(_place.backup, domain)
        yield Tried(server, domain, "mx1.backup.example" if request.param == "exim" else f"mail.{domain}")


@pytest.fixture
def tried(_primary: Tried, real: Postfix) -> Tried:
    del real  # its mailboxes are empty
    return _primary


async def take(at: Place, tried: Tried, *users: str, sent: bytes) -> None:
    """We accept a mail of ZOE for all of them."""
    async with Client(at.backup.smtp_port) as client:
        await client.greet()
        said = await client.mail(*(tried.of(user) for user in users), sender=ZOE, content=sent)
        assert said.startswith("250 2.0.0 Ok: queued as "), said


async def away(at: Place, tried: Tried) -> None:
    """It is stopped, and we have noticed."""
    heard = len(at.backup.events("Primary", domain=tried.domain))
    await tried.server.stop()

    def noticed() -> bool:
        news = at.backup.events("Primary", domain=tried.domain)[heard:]
        return any("-> down" in event["text"] for event in news)

    await take(at, tried, "ann", sent=content("first of the outage"))
    await at.backup.until(noticed)


async def notice(real: Postfix) -> bytes:
    """The one that ZOE gets."""
    await real.until(lambda: real.mailbox(ZOE))
    (told,) = real.mailbox(ZOE)
    return told


async def test_in_session(at: Place, tried: Tried) -> None:
    """Its word on a recipient is ours, in one session, and the mail gets to those that it has: over TLS,
    or in clear where its own TLS fails, as that of OpenSMTPD 6.8 does here with openssl s_client too."""
    nobody = f"nobody@{tried.domain}"
    assert await rcpt(at, tried.of("ann"), nobody) == ["250 2.1.5", "550 5.1.1"]
    sent = content("while it is there")
    await take(at, tried, "ann", "nobody", "bob", sent=sent)
    await at.backup.until(lambda: tried.count("ann", sent) and tried.count("bob", sent))
    await at.handed_over()
    (mail,) = tried.server.mailbox("bob")
    over_tls = OVER_TLS.search(mail.partition(b"by mx1.backup.example")[0])
    assert over_tls or "io-error: error:" in tried.server.log()


async def test_an_outage(at: Place, tried: Tried, real: Postfix) -> None:
    """8-bit, long lines, dots and a megabyte, each for two people, are taken while it is away; one that it
    does not have is still refused. All are handed over once when it is back."""
    await rcpt(at, *map(tried.of, ("ann", "bob", "nobody")))
    await away(at, tried)
    try:
        for sent in MAILS:
            await take(at, tried, "ann", "nobody", "bob", sent=sent)
        assert await rcpt(at, tried.of("nobody")) == ["550 5.1.1"]
    finally:
        await tried.server.start()
    await at.handed_over()
    for sent in MAILS:
        for user in ("ann", "bob"):
            await at.backup.until(lambda user=user, sent=sent: tried.count(user, sent))
            assert tried.count(user, sent) == 1
    assert real.mailbox(ZOE) == []


async def test_a_recipient_vanishes(at: Place, tried: Tried, real: Postfix) -> None:
    """Whom it had before the outage and refuses afterwards may be back any time (rule 9): his mail waits.
    Once a person says that its list is right, the sender is told, at his own server."""
    assert await rcpt(at, tried.of("gone")) == ["250 2.1.5"]
    await away(at, tried)
    try:
        sent = content("vanished")
        await take(at, tried, "gone", "bob", sent=sent)
        tried.server.keeps([user for user in USERS if user != "gone"])
    finally:
        await tried.server.start()
    await at.backup.until(lambda: tried.count("bob", sent))
    await at.backup.until(lambda: at.backup.events("TransientFailure", recipient=tried.of("gone")))
    assert real.mailbox(ZOE) == []
    said = await at.backup.ask("domain", "release", tried.domain)
    assert said.code == 0, said.err
    told = await notice(real)
    assert b"Reporting-MTA: dns; mx1.backup.example" in told
    for field in (
        f"Final-Recipient: rfc822; {tried.of('gone')}",
        "Action: failed",
        "Diagnostic-Code: smtp; 550",
    ):
        assert field.encode() in told
    assert tried.count("bob", sent) == 1


async def test_refused_later(at: Place, tried: Tried, real: Postfix) -> None:
    """A mailbox that is accepted at RCPT and refused afterwards: its sender is told once, the other
    recipient of the mail has it once. The last test here: callouts at such a primary say nothing any more."""
    released = await at.backup.ask(
        "domain", "release", tried.domain
    )  # its word is final after an outage, too
    assert released.code == 0, released.err
    sent = content("refused later")
    await take(at, tried, "late", "bob", sent=sent)
    told = await notice(real)
    assert tried.of("late").encode() in told
    assert b"Reporting-MTA: dns; " + tried.tells.encode() in told
    await at.backup.until(lambda: tried.count("bob", sent))
    await at.handed_over()
    assert (tried.count("bob", sent), tried.count("late", sent)) == (1, 0)
