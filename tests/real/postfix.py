"""A real Postfix: a sender's server that relays through our port, or a primary with mailboxes.

async with Postfix(folder, packages, domain="sender.example", relay=backup.smtp_port) as postfix:
    postfix.port; postfix.log(); postfix.mailbox(EVE)
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.real.daemon import Daemon
from tests.real.maildir import mails
from tests.real.ports import free_port
from tests.real.room import Room, User


class Owner(NamedTuple):
    user: User
    group: User


_POSTFIX, _POSTDROP, _MAILBOXES = User("postfix", 7525), User("postdrop", 7526), User("mailboxes", 7527)

_MAIN = """\
compatibility_level = 3.6
queue_directory = /var/spool/postfix
data_directory = /var/lib/postfix
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = /etc/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = /var/log/mail.log
myhostname = {name}
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
local_header_rewrite_clients =
virtual_mailbox_domains = {domains}
virtual_mailbox_base = /var/mailboxes
virtual_mailbox_maps = inline:{{ {mailboxes} }}
virtual_uid_maps = static:7527
virtual_gid_maps = static:7527
default_transport = {transport}
relay_transport = {transport}
disable_dns_lookups = yes
smtputf8_enable = yes
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
# As old ones are: a lone LF ends a line, and commands may come ahead. Newer ones say no by default.
smtpd_forbid_bare_newline = no
smtpd_forbid_unauth_pipelining = no
{settings}
"""

_MASTER = """\
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_QUEUES = ("active", "deferred", "hold", "incoming", "maildrop")
_OWN = Owner(_POSTFIX, User("root", 0))
_DROP = Owner(_POSTFIX, _POSTDROP)
# What `postfix check` would make, at a tenth of its time: relative to the spool, owner, mode.
_FOLDERS = (
    *(
        (name, _OWN, 0o700)
        for name in "active bounce corrupt defer deferred flush hold incoming private saved trace".split()
    ),
    ("maildrop", _DROP, 0o730),
    ("public", _DROP, 0o710),
    ("pid", Owner(User("root", 0), User("root", 0)), 0o755),
    ("../../lib/postfix", _OWN, 0o700),
    ("../../mailboxes", Owner(_MAILBOXES, _MAILBOXES), 0o700),
)


class Postfix(Daemon):
    """`packages`: unpacked by tests/real/debian.py; `mailboxes`: the addresses that it
    has, and all of their domains; `relay`: the port that gets other mail; without, that is refused.
    `settings`: of main.cf."""

    def __init__(
        self,
        folder: Path,
        packages: Path,
        mailboxes: Sequence[str],
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        relay: int | None = None,
        **settings: str,
    ) -> None:
        self.address, self.port = address, port or free_port(address)
        room = Room(folder, packages, (_POSTFIX, _POSTDROP, _MAILBOXES))
        master = ("/usr/lib/postfix/sbin/master", "-d")
        super().__init__(room, *master, up="daemon started", log=room.var / "log/mail.log")
        etc = self.room.etc / "postfix"
        shared = packages / "usr/share/postfix"
        for file in ("dynamicmaps.cf", "makedefs.out"):
            shutil.copy(shared / file, etc)
        transport = "error:5.7.1 not relayed" if relay is None else f"smtp:[127.0.0.1]:{relay}"
        domains = sorted({address.rpartition("@")[2] for address in mailboxes})
        main = _MAIN.format(
            name=f"mail.{domains[0]}",
            domains=" ".join(domains),
            mailboxes=", ".join(f"{{ {each} = {each}/ }}" for each in mailboxes),
            transport=transport,
            settings="\n".join(f"{key} = {value}" for key, value in settings.items()),
        )
        (etc / "main.cf").write_text(main)
        (etc / "master.cf").write_text(_MASTER.format(port=f"{address}:{self.port}"))
        self._folders()

    def _folders(self) -> None:
        spool = self.room.var / "spool/postfix"
        os.chown(spool, 0, 0)
        for name, owner, mode in _FOLDERS:
            path = spool / name
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, owner.user.number, owner.group.number)
            path.chmod(mode)

    async def begin(self) -> None:
        """Another test: log and mailboxes begin anew; what one that failed left in the queue is gone."""
        spool = self.room.var / "spool/postfix"
        if any(path.is_file() for queue in _QUEUES for path in (spool / queue).rglob("*")):
            await self.room.run("postsuper", "-d", "ALL")
        self.forget()
        for path in (self.room.var / "mailboxes").glob("*/new/*"):
            path.unlink()

    def mailbox(self, address: str) -> list[bytes]:
        """The mails in the maildir of `address`, oldest first. A line ends with LF there."""
        return mails(self.room.var / "mailboxes" / address)

    async def emptied(self) -> None:
        """Return once nothing waits in its own queue."""
        while "Mail queue is empty" not in (said := await self.room.run("postqueue", "-p")).out:
            assert said.code == 0, said
