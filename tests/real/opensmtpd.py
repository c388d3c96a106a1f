"""A real OpenSMTPD: a primary with mailboxes.

async with OpenSMTPD(folder, packages, domain="smtpd.example", certificate=pem, relay=25) as server:
    server.keeps("ann", "bob"); server.mailbox("ann"); server.log()
"""

import os
from collections.abc import Collection
from pathlib import Path

from tests.real.daemon import Daemon
from tests.real.maildir import mails
from tests.real.ports import free_port
from tests.real.room import Room, User

_OWN, _QUEUE, _MAILBOXES = User("opensmtpd", 7529), User("opensmtpq", 7530), User("mailboxes", 7531)

# A user of a table of its own: 550 for one that is not in it. With `virtual` that would be 524 5.2.4, which
# it says of a loop of aliases too.
_CONFIG = """\
table users file:/etc/users
pki mail cert "/etc/chain.pem"
pki mail key "/etc/chain.pem"
smtp max-message-size 50M
listen on {address} port {port} hostname mail.{domain} tls pki mail
action "late" mda "exit 77" userbase <users>
action "mailboxes" maildir "/var/mailboxes/%{{user.username}}" userbase <users>
action "out" relay host "smtp://{relay}"
match from any for rcpt-to "late@{domain}" action "late"
match from any for domain "{domain}" action "mailboxes"
match from local for any action "out"
"""


class OpenSMTPD(Daemon):
    """`packages`: unpacked by tests/real/debian.py; `certificate`: its chain and key, PEM; `relay`: host:port
    that gets its notices. late@ is accepted, and its mail fails afterwards."""

    def __init__(
        self,
        folder: Path,
        packages: Path,
        *,
        domain: str,
        certificate: bytes,
        relay: str,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.port = port or free_port(address)
        room = Room(folder, packages, (_OWN, _QUEUE, _MAILBOXES))
        super().__init__(room, "smtpd", "-d", "-f", "/etc/smtpd.conf", up=" starting")
        config = _CONFIG.format(address=address, port=self.port, domain=domain, relay=relay)
        (room.etc / "smtpd.conf").write_text(config)
        chain = room.etc / "chain.pem"
        chain.write_bytes(certificate)
        chain.chmod(0o600)
        (room.var / "run").mkdir()
        (room.var / "mailboxes").mkdir()
        os.chown(room.var / "mailboxes", _MAILBOXES.number, _MAILBOXES.number)

    def keeps(self, users: Collection[str]) -> None:
        """It has these from its next start on, and no others."""
        number = _MAILBOXES.number
        lines = (f"{user} {number}:{number}:/var/mailboxes/{user}\n" for user in users)
        (self.room.etc / "users").write_text("".join(lines))

    def mailbox(self, user: str) -> list[bytes]:
        """The mails of `user`, oldest first. A line ends with LF there."""
        return mails(self.room.var / "mailboxes" / user)
