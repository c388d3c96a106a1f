"""Callouts at a real Exim: it knows its users, asks a server behind it, or calls back."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.real.asking import advised, learnt, primary, questions, rcpt, since
from tests.real.exim import Exim
from tests.real.place import BEHIND, Place, add

pytestmark = pytest.mark.asyncio(loop_scope="session")
BOTH = ["250 2.1.5", "550 5.1.1"]  # who exists, and who does not
DOMAINS = ("exim.example", "gateway.example", "careful.example")

CONFIG = """\
primary_hostname = mail.exim.example
domainlist ours = exim.example : gateway.example : careful.example
acl_smtp_rcpt = check_rcpt
acl_smtp_data = accept
tls_advertise_hosts =

begin acl
check_rcpt:
  deny
    message = relay not permitted
    domains = ! +ours
  require
    verify = sender
  deny
    domains = careful.example
    ! verify = sender/callout=20s
  deny
    domains = gateway.example
    ! verify = recipient/callout=20s
  require
    verify = recipient
  accept

begin routers
out:
  driver = dnslookup
  domains = ! +ours
  self = send
  transport = out
behind:
  driver = manualroute
  domains = gateway.example
  route_list = * 127.0.0.2 byname
  self = send
  transport = behind
mailboxes:
  driver = accept
  local_parts = ann
  transport = mailboxes

begin transports
out:
  driver = smtp
  port = {back}
  allow_localhost
  hosts_avoid_tls = *
behind:
  driver = smtp
  port = {behind}
  allow_localhost
mailboxes:
  driver = appendfile
  directory = /var/mailboxes/$local_part
  maildir_format
  user = Debian-exim
  group = Debian-exim

begin retry
* * F,1h,1s
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def _primary(
    tmp_path_factory: pytest.TempPathFactory, unpacked: Callable[[str], Path], _place: Place, resolver: str
) -> AsyncIterator[Exim]:
    config = CONFIG.format(back=_place.tap.port, behind=_place.office.port)
    folder = tmp_path_factory.mktemp("exim") / "room"
    server = Exim(folder, unpacked("exim"), config, address="127.0.0.7", port=_place.office.port)
    (server.room.etc / "resolv.conf").write_text(resolver)
    async with server:
        for domain in DOMAINS:
            await add(_place.backup, domain)
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def exim(_primary: Exim, at: Place) -> Exim:
    del at  # what it heard is forgotten, too
    await _primary.begin()
    return _primary


def sessions(exim: Exim) -> int:
    """How many connections were opened to it."""
    return exim.log().count(" SMTP connection from [127.0.0.1] (")


async def test_verify_recipient(at: Place, exim: Exim) -> None:
    """Unrouteable address, without an enhanced code: 550 5.1.1 here."""
    before = await questions(at)
    assert await rcpt(at, "ann@exim.example", "nobody@exim.example") == BOTH
    assert await since(at, before) == {"deliverable": 1, "undeliverable": 1}
    assert sessions(exim) == 1
    assert learnt(at, "ann@exim.example") == ["unknown -> deliverable: 250 Accepted"]
    assert learnt(at, "nobody@exim.example") == ["unknown -> undeliverable: 550 Unrouteable address"]
    assert (primary(at, "exim.example"), advised("", "550 Unrouteable address")) == ("callouts open", "")


async def test_verify_recipient_with_a_callout(at: Place, exim: Exim) -> None:
    """It asks the server behind it, and hands on what that one says."""
    before = await questions(at)
    nobody, office = "nobody@gateway.example", len(at.office.visits)
    assert await rcpt(at, BEHIND, nobody) == BOTH
    assert await since(at, before) == {"deliverable": 1, "undeliverable": 1}
    assert learnt(at, BEHIND) == ["unknown -> deliverable: 250 Accepted"]
    (denied,) = learnt(at, nobody)
    _, _, reply = denied.partition("unknown -> undeliverable: ")
    assert reply.startswith("550 Callout verification failed: 550 5.1.1 ")
    assert (primary(at, "gateway.example"), advised("", reply)) == ("callouts open", "")
    assert (sessions(exim), len(at.office.visits) - office) == (1, 3)  # one for a mailbox that nobody has


async def test_verify_sender_with_a_callout(at: Place, exim: Exim) -> None:
    """Its question for our postmaster is answered at once and asks nobody: one session each way."""
    before = await questions(at)
    office = len(at.office.visits)
    assert await rcpt(at, "ann@careful.example", "nobody@careful.example") == BOTH
    asked = b"".join(at.tap.sent)
    assert asked.count(b"MAIL FROM:<>") == asked.count(b"RCPT TO:<postmaster@mx1.backup.example>") == 1
    assert b"DATA" not in asked
    assert (sessions(exim), at.tap.sessions) == (1, 1)
    assert await since(at, before) == {"deliverable": 1, "undeliverable": 1}
    assert len(at.office.visits) == office
    assert primary(at, "careful.example") == "callouts open"
