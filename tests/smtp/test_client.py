"""Dialling a real socket: sessions, callouts and transactions with a primary that notes what is wrong."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from libs.runtime.clock import SystemClock
from libs.runtime.config import DialPart, HostPart
from libs.smtp.client import Connection, Dialer, Envelope, Fault, Stage, Target, Timeouts, To
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.primary import CAPABILITIES, Primary, server_context

ANN, BOB = "ann@office.example", "bob@office.example"
PATIENT = Timeouts(*[PATIENCE_S] * len(Timeouts._fields))
CONTENT = b"Subject: x\r\n\r\n.dot\r\n..\r\n\xe4\r\n"


def dialer(primary: Primary, **timeouts: float) -> Dialer:
    host = HostPart(name="mx1.backup.example", ipv4=("127.0.0.9",))
    dial = DialPart(port=primary.port, allow=("127.0.0.0/8", "::1/128"))
    return Dialer(dial, host, SystemClock(), PATIENT._replace(**timeouts))


def target(primary: Primary) -> Target:
    return Target(primary.name, primary.address)


async def connected(primary: Primary) -> Connection:
    return await dialer(primary).connect(target(primary))


def envelope(*recipients: str, **more: object) -> Envelope:
    return Envelope("eve@sender.example", tuple(To(recipient) for recipient in recipients), **more)  # type: ignore[arg-type]


NO_PIPELINING = tuple(line for line in CAPABILITIES if line != "PIPELINING")


@pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING, ()])
async def test_a_mail_arrives_unchanged(capabilities: tuple[str, ...]) -> None:
    """The primary gets the content octet by octet, with or without pipelining, from our address."""
    async with Primary(capabilities=capabilities, known={ANN}) as primary:
        connection = await connected(primary)
        for _ in range(2):
            sent = await connection.send(envelope(ANN, BOB, size=len(CONTENT), eightbit=True), CONTENT)
            assert sent.mail.code == 250
            assert [reply.code for reply in sent.recipients] == [250, 550]
            assert sent.dot is not None
            assert sent.dot.code == 250
        await connection.quit()
        await primary.until(lambda: not primary.open_visits)
        assert [mail.content for mail in primary.received] == [CONTENT, CONTENT]
        assert primary.received[0].reverse_path == "eve@sender.example"
        assert [address for address, _ in primary.received[0].recipients] == [ANN]
        assert primary.received[0].helo == "mx1.backup.example"
        assert (primary.visits[0].client, connection.source_address) == ("127.0.0.9", "127.0.0.9")
        assert primary.violations == []


async def test_all_in_one_write() -> None:
    """With PIPELINING, MAIL, RCPT and DATA take one round trip, not one each (RFC 2920)."""
    async with Primary() as primary:
        connection = await connected(primary)
        answers = await connection.verify("postmaster@mx1.backup.example", [ANN, BOB])
        assert [(stage, reply.code) for stage, reply in answers] == [(Stage.RCPT, 250), (Stage.RCPT, 250)]
        commands = primary.visits[0].commands
        assert commands[1:4] == [
            "MAIL FROM:<postmaster@mx1.backup.example>",
            f"RCPT TO:<{ANN}>",
            f"RCPT TO:<{BOB}>",
        ]
        primary.say("MAIL", "!silent")
        [session] = primary._sessions
        waiting = asyncio.create_task(connection.verify("postmaster@mx1.backup.example", [ANN, BOB]))
        await until(lambda: session._buffer.count(b"RCPT TO:") == 2)  # none waited for the reply to MAIL
        waiting.cancel()
        await asyncio.wait({waiting})
        connection.abort()


async def test_quit_waits_its_turn() -> None:
    """Without PIPELINING the reply to RSET is heard before QUIT is said (RFC 5321 section 4.3.1)."""
    async with Primary(capabilities=NO_PIPELINING) as primary:
        primary.slow(0.1, "RSET")
        connection = await connected(primary)
        await connection.verify("postmaster@mx1.backup.example", [ANN])
        await connection.quit()
        await primary.until(lambda: not primary.open_visits)
        assert primary.visits[0].commands[-2:] == ["RSET", "QUIT"]
        assert primary.violations == []


async def test_everybody_refused_and_data_wanted_all_the_same() -> None:
    """A 354 after every RCPT failed gets a lone dot; nobody receives an empty mail (RFC 2920 section 3.1)."""
    async with Primary(known=set(), data_without_recipients=True) as primary:
        connection = await connected(primary)
        sent = await connection.send(envelope(ANN, BOB), CONTENT)
        assert ([reply.code for reply in sent.recipients], sent.data, sent.dot) == ([550, 550], None, None)
        primary.known = {ANN}
        sent = await connection.send(envelope(ANN), CONTENT)
        assert sent.dot is not None
        assert [mail.content for mail in primary.received] == [CONTENT]
        assert primary.violations == []
        connection.abort()


@pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING])
@pytest.mark.parametrize(
    ("stage", "reply"), [("MAIL", "550 5.7.1 no"), ("RCPT", "550 5.1.1 no"), ("DATA", "451 4.3.0 no")]
)
async def test_a_refused_transaction_leaves_the_session_clean(
    capabilities: tuple[str, ...], stage: str, reply: str
) -> None:
    """After MAIL, RCPT or DATA was refused the next mail goes over the same connection."""
    async with Primary(capabilities=capabilities) as primary:
        connection = await connected(primary)
        primary.say(stage, reply, times=1)
        sent = await connection.send(envelope(ANN), CONTENT)
        assert sent.dot is None
        said = {"MAIL": sent.mail, "RCPT": (*sent.recipients, None)[0], "DATA": sent.data}[stage]
        assert said is not None
        assert said.line() == reply
        sent = await connection.send(envelope(ANN), CONTENT)
        assert sent.dot is not None
        assert sent.dot.code == 250
        assert len(primary.visits) == 1
        assert primary.violations == []
        connection.abort()


async def test_callouts_share_a_session() -> None:
    """Callouts come one after the other over one connection and never reach DATA."""
    async with Primary(known={ANN}) as primary:
        connection = await connected(primary)
        for _ in range(3):
            answers = await connection.verify("postmaster@mx1.backup.example", [ANN, BOB])
            assert [reply.code for _, reply in answers] == [250, 550]
        primary.say("MAIL", "550 5.7.1 who are you", times=1)
        answers = await connection.verify("postmaster@mx1.backup.example", [ANN, BOB])
        assert [(stage, reply.code) for stage, reply in answers] == [(Stage.MAIL, 550)] * 2
        assert connection.usable
        await connection.quit()
        assert "DATA" not in primary.visits[0].commands
        assert (len(primary.visits), primary.violations) == (1, [])


@pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING])
async def test_a_callout_keeps_what_it_heard(capabilities: tuple[str, ...]) -> None:
    """When the connection breaks between two RCPTs the first answer is not lost."""
    async with Primary(capabilities=capabilities) as primary:
        connection = await connected(primary)
        primary.say("RCPT", "!drop", to=BOB)
        with pytest.raises(Fault) as caught:
            await connection.verify("postmaster@mx1.backup.example", [ANN, BOB])
        assert (caught.value.stage, caught.value.reason) == (Stage.RCPT, "closed")
        assert [reply.code for _, reply in caught.value.answers] == [250]


DSN = To(ANN, ("SUCCESS", "FAILURE"), "rfc822;ann+x=1@office.example")


async def test_dsn_parameters_are_handed_on_where_offered() -> None:
    """ENVID, RET, NOTIFY and ORCPT go along, encoded as xtext (RFC 3461 section 4)."""
    async with Primary() as primary:
        connection = await connected(primary)
        await connection.send(
            Envelope("", (DSN,), size=9, eightbit=True, ret="HDRS", envid="QQ 1=2+3"), CONTENT
        )
        connection.abort()
        mail = primary.received[0]
        assert mail.reverse_path == ""
        assert mail.params == {"SIZE": "9", "BODY": "8BITMIME", "RET": "HDRS", "ENVID": "QQ+201+3D2+2B3"}
        assert mail.recipients[0][1] == {
            "NOTIFY": "SUCCESS,FAILURE", "ORCPT": "rfc822;ann+2Bx+3D1@office.example"
        }  # fmt: skip


async def test_nothing_is_said_that_was_not_offered() -> None:
    """To a server without extensions MAIL and RCPT carry no parameter; the mail is sent as it is."""
    async with Primary(capabilities=()) as primary:
        connection = await connected(primary)
        await connection.send(Envelope("", (DSN,), size=9, eightbit=True, ret="HDRS", envid="x"), CONTENT)
        connection.abort()
        assert (primary.received[0].params, primary.received[0].recipients[0][1]) == ({}, {})
        assert primary.violations == []


async def test_smtputf8_is_needed_or_refused() -> None:
    """An address in UTF-8 is sent where SMTPUTF8 is offered; else nothing is written, the session lives."""
    async with Primary() as primary:
        connection = await connected(primary)
        await connection.send(envelope("jürgen@office.example"), CONTENT)
        connection.abort()
        assert primary.received[0].recipients[0][0] == "jürgen@office.example"
        assert "SMTPUTF8" in primary.received[0].params
    async with Primary(capabilities=("PIPELINING",)) as primary:
        connection = await connected(primary)
        with pytest.raises(Fault, match="smtputf8"):
            await connection.send(envelope("jürgen@office.example"), CONTENT)
        with pytest.raises(Fault, match="syntax"):
            await connection.send(envelope("a\r\nRSET@office.example"), CONTENT)
        assert (await connection.send(envelope(ANN), CONTENT)).dot is not None
        connection.abort()


async def test_tls_where_it_is_offered() -> None:
    """STARTTLS is used without asking who signed the certificate, and EHLO is said again."""
    async with Primary(tls=server_context("other.example")) as primary:
        connection = await connected(primary)
        assert connection.tls.startswith("TLSv1.")
        await connection.send(envelope(ANN), CONTENT)
        await connection.quit()
        assert primary.received[0].tls
        assert primary.violations == []


@pytest.mark.parametrize("how", ["refused", "broken", "dropped"])
async def test_in_clear_where_starttls_fails(how: str) -> None:
    """A server that offers STARTTLS and cannot do it gets the mail in clear on a new connection."""
    context = None if how == "broken" else server_context("mx.office.example")
    async with Primary(tls=context, tls_broken=how == "broken") as primary:
        if how != "broken":
            primary.say("STARTTLS", "454 4.7.0 no" if how == "refused" else "!drop")
        connection = await connected(primary)
        assert connection.tls == ""
        assert (await connection.send(envelope(ANN), CONTENT)).dot is not None
        assert len(primary.visits) == 2
        await connection.quit()


async def test_helo_for_old_servers() -> None:
    """EHLO that is not known is followed by HELO (RFC 5321 section 3.2); another 5yz is a refusal."""
    async with Primary() as primary:
        primary.say("EHLO", "502 5.5.1 what")
        connection = await connected(primary)
        assert connection.capabilities == {}
        connection.abort()
        primary.say("EHLO", "550 5.7.1 go away")
        with pytest.raises(Fault) as caught:
            await connected(primary)
        assert (caught.value.stage, caught.value.reason) == (Stage.EHLO, "rejected")
        assert caught.value.reply is not None
        assert caught.value.reply.code == 550


@pytest.mark.parametrize(
    ("stage", "reply", "fault"),
    [
        ("BANNER", "554 5.7.1 blocked", (Stage.BANNER, "rejected")),
        ("BANNER", "421 4.3.2 busy", (Stage.BANNER, "rejected")),
        ("BANNER", "!drop", (Stage.BANNER, "closed")),
        ("BANNER", "!silent", (Stage.BANNER, "timeout")),
        ("BANNER", "SSH-2.0-OpenSSH", (Stage.BANNER, "malformed")),
        ("EHLO", "!silent", (Stage.EHLO, "timeout")),
        ("MAIL", "!silent", (Stage.MAIL, "timeout")),
        ("RCPT", "!drop", (Stage.RCPT, "closed")),
        ("DATA", "!drop", (Stage.DATA, "closed")),
        ("DOT", "!drop", (Stage.DOT, "closed")),
        ("DOT", "!silent", (Stage.DOT, "timeout")),
        ("DOT", "!accept-drop", (Stage.DOT, "closed")),
    ],
)
async def test_every_fault_says_where(stage: str, reply: str, fault: tuple[Stage, str]) -> None:
    """A lost or silent session names its stage and reason, and what was known by then."""
    async with Primary() as primary:
        primary.say(stage, reply)
        quick = {f"{stage.lower()}_s": 0.3} if fault[1] == "timeout" else {}
        dialling = dialer(primary, **quick)
        with pytest.raises(Fault) as caught:
            await (await dialling.connect(target(primary))).send(envelope(ANN), CONTENT)
        assert (caught.value.stage, caught.value.reason) == fault
        if stage == "DOT":
            assert caught.value.known is not None
            assert [reply.code for reply in caught.value.known.recipients] == [250]
        await primary.until(lambda: not primary.open_visits)


async def test_nobody_there() -> None:
    """A refused connection, an address that is not ours to dial from, and one that is never dialled."""
    async with Primary() as primary:
        await primary.down()
        with pytest.raises(Fault, match="CONNECT: refused"):
            await connected(primary)
        elsewhere = Dialer(
            DialPart(port=primary.port, allow=("127.0.0.0/8",)),
            HostPart(name="mx1.backup.example", ipv4=("192.0.2.1",)),
            SystemClock(),
            PATIENT,
        )
        with pytest.raises(Fault, match="CONNECT: source"):
            await elsewhere.connect(target(primary))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:8.8.8.8", "169.254.169.254", "mx.example"]
)
async def test_forbidden_addresses_are_never_dialled(address: str) -> None:
    """What is dialled is checked at the last moment, whoever asks (no socket is opened)."""
    host = HostPart(name="mx1.backup.example")
    with pytest.raises(Fault, match="CONNECT: forbidden"):
        await Dialer(DialPart(), host, SystemClock(), PATIENT).connect(Target("mx.example", address))


async def test_ourselves_are_never_dialled() -> None:
    """Our own published address is forbidden even inside an allowed network."""
    async with Primary(address="127.0.0.9") as primary:
        with pytest.raises(Fault, match="CONNECT: forbidden"):
            await connected(primary)
        assert primary.visits == []


async def unusable(connection: Connection) -> None:
    """Return once the server's last words have arrived."""
    async with asyncio.timeout(PATIENCE_S):
        while connection.usable:  # noqa: ASYNC110 octets come from the network, nobody signals
            await asyncio.sleep(0.001)


async def pieces(data: bytes, seed: int) -> AsyncIterator[bytes]:
    cut = random.Random(seed)
    while data:
        size = cut.choice([1, 1, 2, 3, 50])
        yield data[:size]
        data = data[size:]


@pytest.mark.parametrize("seed", range(20))
async def test_chunks_of_any_cut(seed: int) -> None:
    """However a content is cut, the primary unstuffs the same octets, CR LF added at its end."""
    words = [b".", b"..", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"x", b"\r\n\r\n", b"\xff", b"\n", b"\r"]
    data = b"".join(random.Random(seed).choices(words, k=60))
    async with Primary() as primary:
        connection = await connected(primary)
        await connection.send(envelope(ANN), pieces(data, seed))
        connection.abort()
        assert primary.received[0].content == (data if data.endswith(b"\r\n") else data + b"\r\n")


async def test_a_large_content_flows() -> None:
    """20 MB in chunks go through a slow-reading transport with the octets unchanged."""
    data = random.Random(1).randbytes(1_000_000).replace(b"\n", b"n").replace(b"\r", b"r") + b"\r\n"

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield data

    async with Primary() as primary:
        connection = await connected(primary)
        await connection.send(envelope(ANN), chunks())
        connection.abort()
        assert primary.received[0].content == data * 20


async def test_the_last_word_before_the_dot() -> None:
    """When `may_finish` says no the final dot is never sent, and the primary has no mail."""
    async with Primary() as primary:
        connection = await connected(primary)
        with pytest.raises(Fault) as caught:
            await connection.send(envelope(ANN), CONTENT, lambda: False)
        assert (caught.value.stage, caught.value.reason) == (Stage.CONTENT, "withheld")
        await primary.until(lambda: not primary.open_visits)
        assert primary.received == []


async def test_a_broken_source_of_content_ends_the_connection() -> None:
    """An error while reading the content must not end in a shorter mail."""

    async def chunks() -> AsyncIterator[bytes]:
        yield CONTENT
        raise LookupError("the log is away")

    async with Primary() as primary:
        connection = await connected(primary)
        with pytest.raises(LookupError):
            await connection.send(envelope(ANN), chunks())
        await primary.until(lambda: not primary.open_visits)
        assert primary.received == []


async def test_a_server_that_says_goodbye_between_mails() -> None:
    """421 on an idle session is not taken for the reply to the next command."""
    async with Primary() as primary:
        connection = await connected(primary)
        await connection.send(envelope(ANN), CONTENT)
        primary.hint("421 4.4.2 idle too long")
        await primary.until(lambda: not primary.open_visits)
        await unusable(connection)
        with pytest.raises(Fault) as caught:
            await connection.send(envelope(ANN), CONTENT)
        assert caught.value.reason == "closed"
        assert caught.value.reply is not None
        assert caught.value.reply.code == 421
        assert len(primary.received) == 1


async def test_an_early_reply_is_no_acceptance() -> None:
    """A 250 that comes before the final dot was sent is not taken for the reply to it."""

    async def chunks() -> AsyncIterator[bytes]:
        yield CONTENT
        primary.hint("250 2.0.0 sure", close=False)
        await unusable(connection)
        yield CONTENT

    async with Primary() as primary:
        connection = await connected(primary)
        with pytest.raises(Fault) as caught:
            await connection.send(envelope(ANN), chunks())
        assert caught.value.stage is Stage.CONTENT
        assert primary.received == []
        await primary.until(lambda: not primary.open_visits)
