"""A real Postfix is told whose mail it gets (XCLIENT_README), as tests/helpers/primary.py is elsewhere."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from libs.runtime.clock import SystemClock
from libs.runtime.config import DialPart, HostPart
from libs.smtp.client import Connection, Dialer, Envelope, Target, To
from libs.smtp.commands import Visitor
from tests.helpers.patience import until
from tests.real.place import EVE, REAL_ANN
from tests.real.postfix import Postfix

pytestmark = pytest.mark.asyncio(loop_scope="session")

OURS = "mx1.backup.example"
CONTENT = b"Subject: x\r\n\r\nhello\r\n"
FRIEND, NEW = Visitor("192.0.2.7", "mail.sender.example"), Visitor("2001:db8::7", "six.sender.example")
FOE = Visitor("192.0.2.66", "foe.example")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def primary(
    tmp_path_factory: pytest.TempPathFactory, unpacked: Callable[[str], Path]
) -> AsyncIterator[Postfix]:
    async with Postfix(
        tmp_path_factory.mktemp("xclient") / "room",
        unpacked("postfix"),
        [REAL_ANN],
        smtpd_authorized_xclient_hosts="127.0.0.0/8",
        smtpd_recipient_restrictions=(
            "check_client_access inline:{192.0.2.66=REJECT}, permit_mynetworks, reject_unauth_destination"
        ),
    ) as postfix:
        yield postfix


async def connected(primary: Postfix) -> Connection:
    dial = DialPart(port=primary.port, allow=("127.0.0.0/8",))
    dialer = Dialer(dial, HostPart(name=OURS), SystemClock())
    return await dialer.connect(Target("mail.real.example", primary.address))


async def test_it_believes_us(primary: Postfix) -> None:
    """Its Received says whose each mail is. It hears XCLIENT once: then we are somebody whom it knows not. It
    has no IPv6 here and does not understand such addresses: that mail goes under our own."""
    envelope = Envelope(EVE, (To(REAL_ANN),), len(CONTENT))
    for visitor in (FRIEND, NEW):
        connection = await connected(primary)
        for _ in range(2):
            await connection.introduce(visitor, OURS)
            sent = await connection.send(envelope, CONTENT)
            assert sent.dot is not None
            assert sent.dot.code == 250
        taken = [connection.takes(each) for each in (None, visitor, FOE)]
        assert taken == ([False, True, False] if visitor is FRIEND else [True, True, True])
        await connection.quit()
    await until(lambda: len(primary.mailbox(REAL_ANN)) == 4)
    received = b"".join(primary.mailbox(REAL_ANN))
    assert received.count(b"from mail.sender.example (unknown [192.0.2.7])") == 2
    assert received.count(b"from mx1.backup.example (") == 2


async def test_it_judges_the_client_and_not_us(primary: Postfix) -> None:
    """Who is blocked there is blocked behind us, too."""
    connection = await connected(primary)
    await connection.introduce(FOE, OURS)
    sent = await connection.send(Envelope(EVE, (To(REAL_ANN),), len(CONTENT)), CONTENT)
    assert [(reply.code, reply.enhanced) for reply in sent.recipients] == [(554, "5.7.1")]
    await connection.quit()


async def test_it_relays_nothing_for_strangers(primary: Postfix) -> None:
    """Our own address may be in its mynetworks: for whom we speak is not."""
    connection = await connected(primary)
    elsewhere = Envelope(EVE, (To("kim@elsewhere.example"),), len(CONTENT))
    await connection.introduce(FRIEND, OURS)
    sent = await connection.send(elsewhere, CONTENT)
    assert [(reply.code, reply.enhanced) for reply in sent.recipients] == [(454, "4.7.1")]
    await connection.quit()
