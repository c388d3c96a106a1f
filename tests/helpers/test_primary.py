"""The scriptable mail server, driven by clients that are not ours: Python's smtplib, and bytes by hand."""

import asyncio
import smtplib
import ssl

import pytest

from tests.helpers.patience import until
from tests.helpers.primary import Primary, server_context

CONTENT = b"Subject: dots\r\n\r\n.one\r\n..two\r\n.\r\nend\r\n"


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def submit(port: int, *recipients: str, tls: bool = False) -> dict[str, tuple[int, bytes]]:
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=10) as client:
        if tls:
            client.starttls(context=unverified())
        return client.sendmail(
            "eve@sender.example", list(recipients), CONTENT, mail_options=["BODY=8BITMIME"]
        )


@pytest.mark.parametrize("tls", [False, True])
async def test_smtplib_delivers(tls: bool) -> None:
    """A mail of Python's smtplib arrives octet by octet, refused recipients apart, with and without TLS."""
    context = server_context("mx.office.example") if tls else None
    async with Primary(known={"ann@office.example"}, tls=context) as primary:
        refused = await asyncio.to_thread(
            submit, primary.port, "ann@office.example", "bob@office.example", tls=tls
        )
        assert refused["bob@office.example"][0] == 550
        (mail,) = primary.received
        assert mail.content == CONTENT
        assert mail.reverse_path == "eve@sender.example"
        assert [address for address, _ in mail.recipients] == ["ann@office.example"]
        assert (mail.params["BODY"], mail.tls, primary.violations) == ("8BITMIME", tls, [])


async def test_script() -> None:
    """Replies can be set for a stage, for one recipient, for a number of times."""
    async with Primary() as primary:
        primary.say("RCPT", "451 4.7.1 later", to="bob@office.example", times=1)
        refused = await asyncio.to_thread(submit, primary.port, "ann@office.example", "bob@office.example")
        assert refused == {"bob@office.example": (451, b"4.7.1 later")}
        assert not await asyncio.to_thread(submit, primary.port, "ann@office.example", "bob@office.example")
        primary.say("DOT", "!drop")
        with pytest.raises(smtplib.SMTPServerDisconnected):
            await asyncio.to_thread(submit, primary.port, "ann@office.example")
        primary.say("DOT", "!accept-drop")
        with pytest.raises(smtplib.SMTPServerDisconnected):
            await asyncio.to_thread(submit, primary.port, "ann@office.example")
        assert len(primary.received) == 3
        with pytest.raises(ValueError, match="RCTP"):
            primary.say("RCTP", "250 ok")


async def test_size() -> None:
    """RFC 1870 sections 6.1 and 6.3: what is too large is refused as declared, and as sent."""
    async with Primary(capabilities=("PIPELINING", "SIZE 30", "8BITMIME")) as primary:
        with pytest.raises(smtplib.SMTPSenderRefused, match=r"5\.3\.4"):  # smtplib declares it
            await asyncio.to_thread(submit, primary.port, "ann@office.example")
        primary.capabilities = ("PIPELINING", "SIZE", "8BITMIME")
        assert not await asyncio.to_thread(submit, primary.port, "ann@office.example")
        reader, writer = await asyncio.open_connection("127.0.0.1", primary.port)
        primary.capabilities = ("SIZE 30",)
        for said in (HELLO, b"MAIL FROM:<>\r\n", b"RCPT TO:<ann@office.example>\r\n", b"DATA\r\n"):
            writer.write(said)
            assert (await reader.readline())[:1] == b"2"
        assert (await reader.readline()).startswith(b"354 ")
        writer.write(b"Subject: over thirty octets\r\n\r\nx\r\n.\r\n")
        assert (await reader.readline()).startswith(b"552 5.3.4 ")
        writer.close()
        await writer.wait_closed()
        assert len(primary.received) == 1


async def test_down_and_up() -> None:
    """While it is down connections are refused and open ones are reset; it comes back on the same port."""
    async with Primary() as primary:
        reader, writer = await asyncio.open_connection("127.0.0.1", primary.port)
        assert (await reader.readline()).startswith(b"220")
        await primary.down()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", primary.port)
        await primary.up()
        assert not await asyncio.to_thread(submit, primary.port, "ann@office.example")
        assert (primary.most_at_once, primary.open_visits) == (1, 0)


async def talk(primary: Primary, *groups: bytes) -> list[bytes]:
    """Write each group after the reply to the one before; the first word of each reply line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", primary.port)
    await reader.readline()
    for group in groups:
        writer.write(group)
        await reader.readuntil(b"\r\n")
    writer.write_eof()
    rest = await reader.read()
    writer.close()
    await writer.wait_closed()
    return [line[:3] for line in rest.split(b"\r\n") if line]


HELLO = b"HELO client.example\r\n"


@pytest.mark.parametrize(
    ("capabilities", "groups", "violation"),
    [
        ((), [b"MAIL FROM:<a@b.example>\r\n"], "out of order"),
        ((), [HELLO, b"RCPT TO:<a@b.example>\r\n"], "RCPT before MAIL"),
        ((), [HELLO, b"MAIL FROM:<a@b.example>\r\nRSET\r\n"], "pipelining was not offered"),
        (("PIPELINING",), [HELLO, b"NOOP\r\nRSET\r\n"], "before its reply"),
        ((), [HELLO, b"MAIL FROM:<a@b.example> SIZE=10\r\n"], "was not offered"),
        ((), [HELLO, b"MAIL FROM: <a@b.example>\r\n"], "wrong syntax"),
        ((), [HELLO, b"NOOP\n"], "bare line end"),
        ((), [HELLO, "MAIL FROM:<ö@b.example>\r\n".encode()], "without SMTPUTF8"),
        ((), [b"STARTTLS\r\n"], "not offered"),
    ],
)
async def test_a_wrong_client_shows(
    capabilities: tuple[str, ...], groups: list[bytes], violation: str
) -> None:
    """What breaks RFC 5321 or RFC 2920 is written down, so that a faulty client cannot pass a test."""
    async with Primary(capabilities=capabilities) as primary:
        await talk(primary, *groups)
        assert any(violation in found for found in primary.violations), primary.violations


async def test_a_right_pipelining_client_is_left_alone() -> None:
    """MAIL, RCPT and DATA in one write, the content after 354, is no violation (RFC 2920 section 3.1)."""
    async with Primary() as primary:
        reader, writer = await asyncio.open_connection("127.0.0.1", primary.port)
        writer.write(b"EHLO client.example\r\n")
        assert (await reader.readline()).startswith(b"220 ")
        while not (await reader.readline()).startswith(b"250 "):
            pass
        writer.write(b"MAIL FROM:<>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\n")
        for code in (b"250", b"250", b"354"):
            assert (await reader.readline()).startswith(code)
        writer.write(b"..\r\n.\r\nQUIT\r\n")
        assert [line[:3] for line in (await reader.read()).split(b"\r\n")] == [b"250", b"221", b""]
        writer.close()
        await writer.wait_closed()
        assert primary.received[0].content == b".\r\n"
        assert primary.violations == []


async def test_slow_and_until() -> None:
    """`slow` delays replies, `until` returns at the change, and times out where there is none."""
    async with Primary() as primary:
        primary.slow(0.05, "RCPT")
        loop = asyncio.get_running_loop()
        began = loop.time()
        delivered = asyncio.create_task(asyncio.to_thread(submit, primary.port, "ann@office.example"))
        await primary.got(1)
        assert loop.time() - began >= 0.05
        await delivered
        with pytest.raises(TimeoutError):
            await primary.got(2, within=0.01)


async def test_going_down_when_a_client_has_just_gone() -> None:
    """A session that is busy with a reply does not know yet that its connection is closed: it ends too."""
    async with Primary() as primary:
        primary.slow(3600.0, "EHLO")
        reader, writer = await asyncio.open_connection("127.0.0.1", primary.port)
        await reader.readline()
        writer.write(b"EHLO client.example\r\n")
        (session,) = primary._sessions
        writer.transport.abort()
        await until(lambda: session._transport.get_extra_info("socket").fileno() < 0)
        await primary.down()
        assert not primary.open_visits
