"""Exim as the sender's server: recipients of several domains that go to one host share a transaction."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.real.exim import Exim, sends
from tests.real.place import ANN, BOB, EVE, KIM, LATE, NOBODY, Place, add
from tests.real.submit import submit

pytestmark = pytest.mark.asyncio(loop_scope="session")
QUEUED = 'C="250 2.0.0 Ok: queued as '


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def _server(
    tmp_path_factory: pytest.TempPathFactory, unpacked: Callable[[str], Path], _place: Place
) -> AsyncIterator[Exim]:
    folder = tmp_path_factory.mktemp("exim") / "room"
    clear = "hosts_avoid_tls = *"
    async with Exim(folder, unpacked("exim"), sends(relay=_place.tap.port, transport=clear)) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def exim(_server: Exim, at: Place) -> Exim:
    del at  # what it heard is forgotten, too
    await _server.begin()
    return _server


async def test_a_mail_with_pipelining(at: Place, exim: Exim) -> None:
    """The commands come in one piece (RFC 2920); the mail arrives once, octet by octet."""
    await submit(exim.port, ANN, BOB, token="exim-pipelined")
    (mail,) = await at.arrived("exim-pipelined")
    assert mail.reverse_path == EVE
    assert {address for address, _ in mail.recipients} == {ANN, BOB}
    assert [line[:4] for line in at.tap.group()] == [b"MAIL", b"RCPT", b"RCPT", b"DATA"]
    await exim.until(lambda: exim.log().count(QUEUED) == 2)


async def test_recipients_of_two_domains(at: Place, exim: Exim) -> None:
    """The second domain gets 452 4.5.3 (RFC 5321 section 4.5.3.1.10) and comes again in a transaction of its
    own; each recipient is served once."""
    await submit(exim.port, ANN, KIM, BOB, token="exim-two-domains")
    mails = await at.arrived("exim-two-domains", 2)
    domains = {line.partition(b"@")[2] for line in at.tap.group() if line.startswith(b"RCPT")}
    assert len(domains) == 2
    assert b"\r\n452 4.5.3 " in at.tap.said
    assert sorted(address for mail in mails for address, _ in mail.recipients) == [ANN, BOB, KIM]
    await exim.until(lambda: " Completed\n" in exim.log())
    assert exim.log().count(QUEUED) == 3
    assert exim.notices() == []


async def test_tls(tmp_path: Path, at: Place, unpacked: Callable[[str], Path]) -> None:
    """STARTTLS through GnuTLS, with our certificate checked; a mail of many TLS records."""
    wanted = (
        "hosts_require_tls = *", "tls_verify_hosts = *", "tls_verify_certificates = /etc/trust.pem",
        "tls_verify_cert_hostnames =",
    )  # fmt: skip
    config = sends(relay=at.tap.port, transport="\n  ".join(wanted))
    server = Exim(tmp_path / "room", unpacked("exim"), config)
    (server.room.etc / "trust.pem").write_bytes(at.trust)
    async with server:
        await submit(server.port, ANN, token="exim-tls", size=3_000_000)
        (mail,) = await at.arrived("exim-tls", size=3_000_000)
        assert b"\twith ESMTPS (TLSv1.3 " in mail.content
        await server.until(lambda: QUEUED in server.log())
        assert " CV=yes " in server.log()


async def test_an_unknown_recipient(at: Place, exim: Exim) -> None:
    """Our 550 5.1.1 becomes its notice to the sender; the other recipient of the mail is served."""
    await submit(exim.port, NOBODY, ANN, token="exim-unknown")
    (mail,) = await at.arrived("exim-unknown")
    assert [address for address, _ in mail.recipients] == [ANN]
    await exim.until(exim.notices)
    (notice,) = exim.notices()
    assert b"Final-Recipient: rfc822;" + NOBODY.encode() in notice
    assert b"550 5.1.1 " in notice


async def test_dsn_parameters(at: Place, exim: Exim) -> None:
    """RET, ENVID, NOTIFY and ORCPT (RFC 3461) get from the sender to the primary as they were written."""
    orcpt = "rfc822;Ann+2BTag@Office.Example"
    await submit(
        exim.port, ANN, token="exim-dsn",
        options=["RET=HDRS", "ENVID=QQ+2B314+3Dx"], rcpt=["NOTIFY=FAILURE,DELAY", f"ORCPT={orcpt}"],
    )  # fmt: skip
    (mail,) = await at.arrived("exim-dsn")
    assert (mail.params["RET"], mail.params["ENVID"]) == ("HDRS", "QQ+2B314+3Dx")
    ((_, given),) = mail.recipients
    assert set(given["NOTIFY"].split(",")) == {"DELAY", "FAILURE"}
    assert given["ORCPT"] == orcpt


async def test_a_domain_that_comes_late(at: Place, exim: Exim) -> None:
    """451 4.3.5 to a domain that names us and is not registered yet: the mail waits at its sender, and its
    next try is taken."""
    recipient = f"ann@{LATE[1]}"
    await submit(exim.port, recipient, token="late-exim")
    await exim.until(lambda: f"== {recipient} R=out T=out defer" in exim.log())
    assert b"\r\n451 4.3.5 " in at.tap.said
    await add(at.backup, LATE[1])
    await at.arrived("late-exim")
    await exim.until(lambda: QUEUED in exim.log())
    assert exim.notices() == []
