"""Postfix as the sender's server: it relays through our port what was submitted to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.real.place import ANN, BOB, EVE, KIM, LATE, NOBODY, Place, add
from tests.real.postfix import Postfix
from tests.real.submit import submit

pytestmark = pytest.mark.asyncio(loop_scope="session")
QUEUED = "status=sent (250 2.0.0 Ok: queued as "


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def _server(
    tmp_path_factory: pytest.TempPathFactory, unpacked: Callable[[str], Path], _place: Place
) -> AsyncIterator[Postfix]:
    """The server of sender.example, where notices to EVE can be read."""
    folder = tmp_path_factory.mktemp("postfix") / "room"
    async with Postfix(folder, unpacked("postfix"), [EVE], relay=_place.tap.port) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def postfix(_server: Postfix, at: Place) -> Postfix:
    del at  # what it heard is forgotten, too
    await _server.begin()
    return _server


async def test_a_mail_with_pipelining(at: Place, postfix: Postfix) -> None:
    """MAIL, RCPT, DATA come in one piece (RFC 2920); the mail arrives once, octet by octet."""
    await submit(postfix.port, ANN, BOB, token="pipelined")
    (mail,) = await at.arrived("pipelined")
    assert (mail.reverse_path, mail.params["BODY"]) == (EVE, "8BITMIME")
    assert {address for address, _ in mail.recipients} == {ANN, BOB}
    assert b"\twith ESMTP id " in mail.content
    assert [line[:4] for line in at.tap.group()] == [b"MAIL", b"RCPT", b"RCPT", b"DATA"]
    await postfix.until(lambda: postfix.log().count(QUEUED) == 2)


@pytest.mark.parametrize(("level", "says"), [("encrypt", "Trusted"), ("secure", "Verified")])
async def test_tls(tmp_path: Path, at: Place, unpacked: Callable[[str], Path], level: str, says: str) -> None:
    """STARTTLS for a sender that insists on it, and our certificate for one that checks the name; a mail of
    many TLS records."""
    server = Postfix(
        tmp_path / "room", unpacked("postfix"), [EVE], relay=at.tap.port,
        smtp_tls_security_level=level, smtp_tls_loglevel="1", smtp_tls_CAfile="/etc/trust.pem",
        smtp_tls_secure_cert_match="mx1.backup.example",
    )  # fmt: skip
    (server.room.etc / "trust.pem").write_bytes(at.trust)
    async with server:
        await submit(server.port, ANN, token=level, size=3_000_000)
        (mail,) = await at.arrived(level, size=3_000_000)
        assert f"{says} TLS connection established to 127.0.0.1" in server.log()
        assert b"\twith ESMTPS (TLSv1.3 " in mail.content
        assert not any(b"MAIL FROM:" in piece for piece in at.tap.sent)
        await server.until(lambda: QUEUED in server.log())


async def test_an_unknown_recipient(at: Place, postfix: Postfix) -> None:
    """Our 550 5.1.1 becomes its notice to the sender; the other recipient of the mail is served."""
    await submit(postfix.port, NOBODY, ANN, token="unknown")
    (mail,) = await at.arrived("unknown")
    assert [address for address, _ in mail.recipients] == [ANN]
    await postfix.until(lambda: postfix.mailbox(EVE))
    (notice,) = postfix.mailbox(EVE)
    assert b"Final-Recipient: rfc822; " + NOBODY.encode() in notice
    assert b"Status: 5.1.1" in notice
    assert b"Diagnostic-Code: smtp; 550 5.1.1 " in notice


async def test_dsn_parameters(at: Place, postfix: Postfix) -> None:
    """RET, ENVID, NOTIFY and ORCPT (RFC 3461) get from the sender to the primary as they were written."""
    orcpt = "rfc822;Ann+2BTag@Office.Example"
    await submit(
        postfix.port, ANN, token="dsn",
        options=["RET=HDRS", "ENVID=QQ+2B314+3Dx"], rcpt=["NOTIFY=DELAY,FAILURE", f"ORCPT={orcpt}"],
    )  # fmt: skip
    (mail,) = await at.arrived("dsn")
    assert (mail.params["RET"], mail.params["ENVID"]) == ("HDRS", "QQ+2B314+3Dx")
    ((_, given),) = mail.recipients
    assert set(given["NOTIFY"].split(",")) == {"DELAY", "FAILURE"}
    assert given["ORCPT"] == orcpt


async def test_never(at: Place, postfix: Postfix) -> None:
    """NOTIFY=NEVER (RFC 3461 section 4.1): a refused recipient is told to nobody, here by its own server."""
    await submit(postfix.port, NOBODY, token="never", rcpt=["NOTIFY=NEVER"])
    await postfix.until(lambda: "status=bounced" in postfix.log() and ": removed" in postfix.log())
    assert any(b" NOTIFY=NEVER" in line for line in at.tap.group())
    assert postfix.mailbox(EVE) == []


async def test_smtputf8(at: Place, postfix: Postfix) -> None:
    """RFC 6531: a mail that is declared SMTPUTF8 is declared so to the primary."""
    await submit(postfix.port, ANN, token="utf8", options=["SMTPUTF8"])
    (mail,) = await at.arrived("utf8")
    assert "SMTPUTF8" in mail.params


async def test_a_domain_that_comes_late(at: Place, postfix: Postfix) -> None:
    """451 4.3.5 to a domain that names us and is not registered yet: the mail waits at its sender, and its
    next try is taken."""
    await submit(postfix.port, f"ann@{LATE[0]}", token="late-postfix")
    await postfix.until(lambda: "status=deferred" in postfix.log())
    assert "said: 451 4.3.5 " in postfix.log()
    await add(at.backup, LATE[0])
    await at.arrived("late-postfix")
    await postfix.until(lambda: QUEUED in postfix.log())
    assert postfix.mailbox(EVE) == []


async def test_recipients_of_two_domains(at: Place, postfix: Postfix) -> None:
    """They come in one session and arrive once each."""
    await submit(postfix.port, ANN, KIM, BOB, token="two-domains")
    mails = await at.arrived("two-domains", 2)
    assert sorted(address for mail in mails for address, _ in mail.recipients) == [ANN, BOB, KIM]
    await postfix.until(lambda: postfix.log().count(QUEUED) == 3)


async def test_many_mails_at_once(at: Place, postfix: Postfix) -> None:
    """As many connections as one server likes to open: each mail arrives once."""
    tokens = [f"many{number}" for number in range(40)]
    await asyncio.gather(*(submit(postfix.port, ANN, token=token) for token in tokens))
    for token in tokens:
        await at.arrived(token)
    await postfix.until(lambda: postfix.log().count(QUEUED) == len(tokens))


async def test_a_restart(at: Place, postfix: Postfix) -> None:
    """SIGTERM while mail pours in: Postfix hears 421 or nobody, keeps what got no 250, and comes again; each
    mail arrives once."""
    taken = len(at.backup.events("Reception"))
    tokens = [f"restart{number}" for number in range(60)]
    submitted = asyncio.gather(*(submit(postfix.port, ANN, token=token) for token in tokens))
    await at.backup.until(lambda: len(at.backup.events("Reception")) >= taken + 5)
    assert await at.backup.stop("solo") == 0
    assert len(at.backup.events("Reception")) < taken + len(tokens)
    await at.backup.start("solo")
    await at.backup.ready()
    await submitted
    for token in tokens:
        await at.arrived(token)
    await postfix.until(lambda: postfix.log().count(QUEUED) == len(tokens))
    assert postfix.mailbox(EVE) == []
