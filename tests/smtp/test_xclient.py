"""XCLIENT: the primary is told whose mail it gets, where it takes that."""

import pytest

from libs.smtp.client import Fault, Stage
from libs.smtp.commands import Visitor, greeting_for, xclient_command
from tests.helpers.primary import CAPABILITIES, Primary
from tests.smtp.test_client import ANN, CONTENT, connected, envelope

OFFER = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
EVE, BOB = Visitor("192.0.2.7", "mail.sender.example"), Visitor("2001:db8::7", "[IPv6:2001:db8::7]")
OURS = "mx1.backup.example"


@pytest.mark.parametrize(
    ("visitor", "offered", "command"),
    [
        (
            EVE,
            "NAME ADDR PROTO HELO",
            "NAME=[UNAVAILABLE] ADDR=192.0.2.7 PROTO=ESMTP HELO=mail.sender.example",
        ),
        (EVE, "addr helo", "ADDR=192.0.2.7 HELO=mail.sender.example"),
        (EVE, "HELO ADDR", "ADDR=192.0.2.7 HELO=mail.sender.example"),
        (EVE, "NAME PROTO HELO", ""),
        (EVE, "", ""),
        (BOB, "ADDR HELO", "ADDR=IPV6:2001:db8::7 HELO=[IPv6:2001:db8::7]"),
        (Visitor("192.0.2.7", "a+b=c"), "ADDR HELO", "ADDR=192.0.2.7 HELO=a+2Bb+3Dc"),
        (Visitor("192.0.2.7", ""), "ADDR HELO", "ADDR=192.0.2.7 HELO=[UNAVAILABLE]"),
        (Visitor("192.0.2.7", "a b"), "ADDR HELO", "ADDR=192.0.2.7 HELO=[UNAVAILABLE]"),
        (Visitor("192.0.2.7", "m\xfcller.example"), "ADDR HELO", "ADDR=192.0.2.7 HELO=[UNAVAILABLE]"),
    ],
)
def test_the_command(visitor: Visitor, offered: str, command: str) -> None:
    """What is offered and no more, values in xtext, IPv6 with its mark."""
    said = xclient_command(visitor, {"XCLIENT": offered})
    assert said == (f"XCLIENT {command}\r\n".encode() if command else b"")
    assert xclient_command(visitor, {}) == b""


def test_the_greeting() -> None:
    """As the client said it; ours where his would not be a word."""
    assert greeting_for(EVE, OURS) == b"EHLO mail.sender.example\r\n"
    assert greeting_for(Visitor("192.0.2.7", "a b\r\nQUIT"), OURS) == b"EHLO mx1.backup.example\r\n"


async def test_a_mail_has_its_client() -> None:
    """Mails of one client go over one connection, and none of anybody else's: Postfix hears no second
    XCLIENT, and tests/real asks a real one."""
    async with Primary(capabilities=(*CAPABILITIES, OFFER)) as primary:
        connection = await connected(primary)
        assert all(connection.takes(visitor) for visitor in (None, EVE, BOB))
        for _ in range(2):
            await connection.introduce(EVE, OURS)
            assert (await connection.send(envelope(ANN), CONTENT)).dot is not None
        assert [connection.takes(visitor) for visitor in (None, EVE, BOB)] == [False, True, False]
        await connection.quit()
        assert [(mail.xclient["ADDR"], mail.helo) for mail in primary.received] == [
            ("192.0.2.7", "mail.sender.example")
        ] * 2
        assert primary.violations == []


async def test_after_a_refused_transaction() -> None:
    """XCLIENT within a transaction is an error: what is open is left first."""
    async with Primary(capabilities=(*CAPABILITIES, OFFER)) as primary:
        connection = await connected(primary)
        primary.say("RCPT", "550 5.1.1 no", times=1)
        await connection.send(envelope(ANN), CONTENT)
        await connection.introduce(EVE, OURS)
        assert (await connection.send(envelope(ANN), CONTENT)).dot is not None
        connection.abort()
        assert primary.violations == []


async def test_capabilities_are_those_of_the_new_session() -> None:
    """What is offered to the one need not be offered to the other."""
    async with Primary(capabilities=(*CAPABILITIES, OFFER)) as primary:
        connection = await connected(primary)
        primary.capabilities = (OFFER, "8BITMIME")
        await connection.introduce(EVE, OURS)
        assert set(connection.capabilities) == {"8BITMIME"}
        assert (await connection.send(envelope(ANN, size=7), CONTENT)).dot is not None
        connection.abort()
        assert primary.violations == []


async def test_not_offered() -> None:
    async with Primary() as primary:
        connection = await connected(primary)
        await connection.introduce(EVE, OURS)
        assert connection.visitor is None
        assert (await connection.send(envelope(ANN), CONTENT)).dot is not None
        connection.abort()
        assert primary.received[0].helo == OURS


async def test_not_understood() -> None:
    """Offered, and then not known in this form: the mail goes under our own name."""
    async with Primary(capabilities=(*CAPABILITIES, OFFER)) as primary:
        connection = await connected(primary)
        primary.say("XCLIENT", "501 5.5.4 Bad ADDR syntax")
        await connection.introduce(BOB, OURS)
        assert connection.visitor is None
        assert (await connection.send(envelope(ANN), CONTENT)).dot is not None
        await connection.quit()
        assert (primary.received[0].helo, primary.received[0].xclient) == (OURS, {})
        assert primary.violations == []


@pytest.mark.parametrize(
    ("stage", "reply", "fault"),
    [
        ("XCLIENT", "550 5.7.0 insufficient authorization", (Stage.BANNER, "rejected")),
        ("XCLIENT", "554 5.7.1 that client is blocked", (Stage.BANNER, "rejected")),
        ("XCLIENT", "250 ok", (Stage.BANNER, "rejected")),
        ("XCLIENT", "!drop", (Stage.BANNER, "closed")),
        ("EHLO", "550 5.7.1 not you", (Stage.EHLO, "rejected")),
        ("EHLO", "!drop", (Stage.EHLO, "closed")),
    ],
)
async def test_faults(stage: str, reply: str, fault: tuple[Stage, str]) -> None:
    """The connection is gone: in whose name it would go on nobody knows."""
    async with Primary(capabilities=(*CAPABILITIES, OFFER)) as primary:
        connection = await connected(primary)
        primary.say(stage, reply)
        with pytest.raises(Fault) as caught:
            await connection.introduce(EVE, OURS)
        assert (caught.value.stage, caught.value.reason) == fault
        await primary.until(lambda: not primary.open_visits)
