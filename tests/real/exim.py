"""A real Exim: a sender's server that relays through our port, or a primary.

async with Exim(folder, packages, sends(relay=backup.smtp_port)) as exim:
    exim.port; exim.log(); exim.notices()
"""

import os
from collections.abc import Collection
from pathlib import Path

from tests.real.daemon import Daemon
from tests.real.maildir import mails
from tests.real.ports import free_port
from tests.real.room import Room, User

_EXIM = User("Debian-exim", 7528)

_MAIN = """\
local_interfaces = {address}
daemon_smtp_ports = {port}
spool_directory = /var/spool/exim4
log_file_path = /var/log/exim4/%slog
log_selector = +smtp_confirmation +pipelining +tls_cipher +tls_certificate_verified +outgoing_port \\
  +smtp_connection
exim_user = Debian-exim
exim_group = Debian-exim
never_users =
host_lookup =
rfc1413_hosts =
chunking_advertise_hosts =
disable_ipv6 = true
"""

_SENDS = """\
primary_hostname = mail.sender.example
acl_smtp_rcpt = accept
acl_smtp_data = accept
tls_advertise_hosts =
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
remote_max_parallel = 1
{main}

begin routers
notices:
  driver = accept
  domains = sender.example
  transport = maildir
out:
  driver = manualroute
  route_list = * 127.0.0.1 byname
  self = send
  transport = out

begin transports
maildir:
  driver = appendfile
  directory = /var/mailboxes/eve
  maildir_format
  user = Debian-exim
  group = Debian-exim
out:
  driver = smtp
  port = {relay}
  allow_localhost
  {transport}

begin retry
* * F,1h,1s
"""

_RECEIVES = """\
primary_hostname = mail.{domain}
acl_smtp_rcpt = rcpt
acl_smtp_data = data
tls_advertise_hosts = *
tls_certificate = /etc/chain.pem

begin acl
rcpt:
  require
    verify = recipient
  accept
data:
  deny
    message = 5.2.1 mailbox disabled
    condition = ${{if inlisti{{late@{domain}}}{{<, $recipients}}}}
  accept

begin routers
mailboxes:
  driver = accept
  domains = {domain}
  local_parts = lsearch;/etc/mailboxes
  transport = mailboxes

begin transports
mailboxes:
  driver = appendfile
  directory = /var/mailboxes/$local_part_data
  maildir_format
  user = Debian-exim
  group = Debian-exim
"""


def receives(domain: str) -> str:
    """A primary with the mailboxes of Exim.keeps() and the certificate in /etc/chain.pem. It refuses what is
    for late@ after the final dot."""
    return _RECEIVES.format(domain=domain)


def sends(*, relay: int, main: str = "", transport: str = "") -> str:
    """A sender's server: what is not for sender.example goes to the port `relay`. `main`, `transport`:
    further settings of these parts."""
    return _SENDS.format(relay=relay, main=main, transport=transport)


class Exim(Daemon):
    """`packages`: unpacked by tests/real/debian.py; `config`: what it is for, as from sends()."""

    def __init__(
        self, folder: Path, packages: Path, config: str, *, address: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.port = port or free_port(address)
        room = Room(folder, packages, (_EXIM,))
        # A queue run each second, for the mails that wait for their next try.
        super().__init__(
            room, "exim4", "-bdf", "-q1s", up="daemon started", log=room.var / "log/exim4/mainlog"
        )
        main = _MAIN.format(address=address, port=self.port)
        (self.room.etc / "exim4/exim4.conf").write_text(main + config)
        for name in ("spool/exim4", "log/exim4", "mailboxes"):
            path = self.room.var / name
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, _EXIM.number, _EXIM.number)

    async def begin(self) -> None:
        """Another test: log and notices begin anew, and what one that failed left in the queue is gone."""
        for left in (self.room.var / "spool/exim4/input").glob("*-H"):
            await self.room.run("exim4", "-Mrm", left.name.removesuffix("-H"))
        self.forget()
        for path in (self.room.var / "mailboxes/eve/new").glob("*"):
            path.unlink()

    def notices(self) -> list[bytes]:
        """The mails for eve@sender.example."""
        return self.mailbox("eve")

    def mailbox(self, user: str) -> list[bytes]:
        """The mails of `user`, oldest first. A line ends with LF there."""
        return mails(self.room.var / "mailboxes" / user)

    def keeps(self, users: Collection[str]) -> None:
        """As a primary of receives(): it has these, and no others."""
        (self.room.etc / "mailboxes").write_text("".join(f"{user}: {user}\n" for user in users))
