"""A real Postfix as the primary; tests/helpers/primary.py, which plays one elsewhere, gives the same answers.

What is tried against both is what callouts and deliveries dial with: libs/smtp/client.py.
"""

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest
import pytest_asyncio

from libs.mail.reply import Foreign
from libs.mail.speaks import Speaks, speaks
from libs.runtime.clock import SystemClock
from libs.runtime.config import DialPart, HostPart
from libs.smtp.client import Connection, Dialer, Envelope, Stage, Target, To
from services.verify.finding import Deliverable, Undeliverable, classify
from tests.helpers.client import Client
from tests.helpers.mailing import content
from tests.helpers.patience import until
from tests.helpers.primary import Primary, server_context
from tests.real.place import EVE, REAL_ANN, REAL_NOBODY, REAL_SIZE, Place
from tests.real.postfix import Postfix

pytestmark = pytest.mark.asyncio(loop_scope="session")

CAPABILITIES = ("PIPELINING", f"SIZE {REAL_SIZE}", "8BITMIME", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES")
CONTENT = b"Subject: x\r\n\r\n.dot\r\n..\r\n\xe4\r\n"


class Server(NamedTuple):
    """What is dialled. `contents`: what it took, with LF at the ends of lines and its own fields on top."""

    address: str
    port: int
    contents: Callable[[], list[bytes]]

    async def took(self, count: int) -> None:
        """Return once it has so many."""
        await until(lambda: len(self.contents()) >= count)

    async def connect(self) -> Connection:
        dial = DialPart(port=self.port, allow=("127.0.0.0/8",))
        dialer = Dialer(dial, HostPart(name="mx1.backup.example"), SystemClock())
        return await dialer.connect(Target("mail.real.example", self.address))


@pytest_asyncio.fixture(loop_scope="session")
async def fake() -> AsyncIterator[Server]:
    async with Primary(
        known={REAL_ANN}, capabilities=CAPABILITIES, tls=server_context("mail.real.example")
    ) as primary:

        def contents() -> list[bytes]:
            return [mail.content.replace(b"\r\n", b"\n") for mail in primary.received]

        yield Server(primary.address, primary.port, contents)
        assert primary.violations == []


@pytest.fixture
def postfix(real: Postfix) -> Server:
    return Server(real.address, real.port, lambda: real.mailbox(REAL_ANN))


@pytest.fixture(params=["fake", "postfix"])
def server(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)  # the fake is tried on every machine
    return server


def envelope(*recipients: To, size: int = len(CONTENT), smtputf8: bool = False, envid: str = "") -> Envelope:
    ret = "HDRS" if envid else ""
    return Envelope(EVE, recipients, size, eightbit=True, smtputf8=smtputf8, ret=ret, envid=envid)


def kind(reply: Foreign | None) -> str:
    return f"{reply.code} {reply.enhanced}" if reply else ""


async def test_what_it_offers(server: Server) -> None:
    """The capabilities that deliveries use, read after STARTTLS."""
    connection = await server.connect()
    offered = connection.capabilities
    for line in CAPABILITIES:
        keyword, _, parameter = line.partition(" ")
        assert offered.get(keyword) == parameter
    assert connection.tls.startswith("TLSv1.3 ")
    await connection.quit()


async def test_a_callout(server: Server) -> None:
    """One exists, one does not (550 5.1.1), in one session that never says DATA."""
    connection = await server.connect()
    answers = await connection.verify("postmaster@mx1.backup.example", [REAL_ANN, REAL_NOBODY])
    assert [(stage, kind(reply)) for stage, reply in answers] == [
        (Stage.RCPT, "250 2.1.5"),
        (Stage.RCPT, "550 5.1.1"),
    ]
    there, absent = (classify(stage, reply) for stage, reply in answers)
    assert isinstance(there, Deliverable)
    assert isinstance(absent, Undeliverable)
    assert connection.usable
    await connection.quit()


async def test_a_mail(server: Server) -> None:
    """Pipelined, with DSN parameters and octets over 127; one recipient is refused; twice on a connection."""
    connection = await server.connect()
    to = (To(REAL_ANN, ("FAILURE", "DELAY"), "rfc822;Ann@Real.Example"), To(REAL_NOBODY, ("NEVER",)))
    for number in (1, 2):
        sent = await connection.send(envelope(*to, envid=f"id+{number}"), CONTENT)
        assert kind(sent.mail) == "250 2.1.0"
        assert [kind(reply) for reply in sent.recipients] == ["250 2.1.5", "550 5.1.1"]
        assert sent.data is not None
        assert (sent.data.code, kind(sent.dot)) == (354, "250 2.0.0")
    await connection.quit()
    await server.took(2)
    assert all(each.endswith(CONTENT.replace(b"\r\n", b"\n")) for each in server.contents())


async def test_nobody_is_there(server: Server) -> None:
    """DATA with no recipient left is refused too (RFC 2920 section 3.1), and the next mail is taken."""
    connection = await server.connect()
    sent = await connection.send(envelope(To(REAL_NOBODY)), CONTENT)
    assert [kind(reply) for reply in sent.recipients] == ["550 5.1.1"]
    assert sent.data is None
    assert connection.usable
    sent = await connection.send(envelope(To(REAL_ANN)), CONTENT)
    assert kind(sent.dot) == "250 2.0.0"
    await connection.quit()
    await server.took(1)


async def test_too_large_as_declared(server: Server) -> None:
    """RFC 1870 section 6.1: 552 5.3.4 to MAIL; it is about this mail, not about us."""
    connection = await server.connect()
    sent = await connection.send(envelope(To(REAL_ANN), size=REAL_SIZE + 1), CONTENT)
    assert (kind(sent.mail), sent.dot) == ("552 5.3.4", None)
    assert speaks(Stage.MAIL, sent.mail) is Speaks.OTHER_PERMANENT
    await connection.quit()


async def test_too_large_as_sent(server: Server) -> None:
    """RFC 1870 section 6.3: 552 5.3.4 after the final dot."""
    connection = await server.connect()
    sent = await connection.send(envelope(To(REAL_ANN), size=0), content("large", REAL_SIZE + 10_000))
    assert kind(sent.mail) == "250 2.1.0"
    assert kind(sent.dot) == "552 5.3.4"
    assert sent.dot is not None
    assert speaks(Stage.DOT, sent.dot) is Speaks.OTHER_PERMANENT
    await connection.quit()


async def test_smtputf8(server: Server) -> None:
    """RFC 6531: an address in UTF-8 is a mailbox that is not there, not a syntax error."""
    connection = await server.connect()
    sent = await connection.send(envelope(To(REAL_ANN), To("jürgen@real.example"), smtputf8=True), CONTENT)
    assert [kind(reply) for reply in sent.recipients] == ["250 2.1.5", "550 5.1.1"]
    assert kind(sent.dot) == "250 2.0.0"
    await connection.quit()
    await server.took(1)


# --- the whole way, from a sender through us ---


async def test_through_us(at: Place, real: Postfix) -> None:
    """RCPT is answered as Postfix answers; the mail gets there over TLS, octet by octet; its DSN
    parameters are understood."""
    async with Client(at.backup.smtp_port) as client:
        await client.greet()
        await client.send(f"MAIL FROM:<{EVE}> BODY=8BITMIME RET=HDRS ENVID=Id+2B1\r\n".encode())
        assert (await client.reply()).startswith("250 2.1.0 ")
        await client.send(f"RCPT TO:<{REAL_NOBODY}>\r\n".encode())
        assert (await client.reply()).startswith("550 5.1.1 ")
        await client.send(f"RCPT TO:<{REAL_ANN}> NOTIFY=SUCCESS ORCPT=rfc822;Ann@Real.Example\r\n".encode())
        assert (await client.reply()).startswith("250 2.1.5 ")
        await client.send(b"DATA\r\n")
        assert (await client.reply()).startswith("354 ")
        await client.send(CONTENT.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        assert (await client.reply()).startswith("250 2.0.0 Ok: queued as ")
    await real.until(lambda: real.mailbox(REAL_ANN))
    (mail,) = real.mailbox(REAL_ANN)
    assert mail.endswith(b"\n" + CONTENT.replace(b"\r\n", b"\n"))
    assert b" with ESMTPS id " in mail
    await real.until(lambda: real.mailbox(EVE))
    (notice,) = real.mailbox(EVE)
    for field in (b"Original-Recipient: rfc822;Ann@Real.Example", b"Original-Envelope-Id: Id+1"):
        assert field in notice
    await at.handed_over()


async def test_its_size_is_known(at: Place, real: Postfix) -> None:
    """What the primary's EHLO said of SIZE is answered to the sender at RCPT: 552 5.3.4."""
    async with Client(at.backup.smtp_port) as client:
        await client.greet()
        assert (await client.mail(REAL_ANN)).startswith("250 ")
    await at.handed_over()
    await real.until(lambda: real.mailbox(REAL_ANN))
    async with Client(at.backup.smtp_port) as client:
        await client.greet()
        said = await client.mail(REAL_ANN, parameters=f"SIZE={REAL_SIZE + 1}")
        assert said.startswith("552 5.3.4 "), said


async def test_an_outage(at: Place, real: Postfix) -> None:
    """Postfix is killed; mail for it is taken; when it is back the mail is there, once."""
    async with Client(at.backup.smtp_port) as client:
        await client.greet()
        assert (await client.mail(REAL_ANN)).startswith("250 ")
        await at.handed_over()
        heard = len(at.backup.events("Primary"))
        await real.stop()
        try:
            sent = await client.mail(REAL_ANN, content=content("outage"))
            assert sent.startswith("250 2.0.0 Ok: queued as ")
            await at.backup.until(
                lambda: any("-> down" in event["text"] for event in at.backup.events("Primary")[heard:])
            )
        finally:
            await real.start()
    await at.handed_over()
    expected = content("outage").replace(b"\r\n", b"\n")
    await real.until(lambda: len(real.mailbox(REAL_ANN)) >= 2)
    await real.emptied()
    assert [mail.endswith(expected) for mail in real.mailbox(REAL_ANN)] == [False, True]
