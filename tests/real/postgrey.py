"""A real postgrey, the greylisting that Postfix asks with check_policy_service.

async with Postgrey(folder, packages, delay_s=1) as postgrey: postgrey.port; postgrey.log()
"""

import os
import shutil
from pathlib import Path

from tests.real.daemon import Daemon
from tests.real.ports import free_port
from tests.real.room import Room, User

_POSTGREY = User("postgrey", 7529)


class Postgrey(Daemon):
    """`packages`: unpacked by tests/real/debian.py; `delay_s`: whole seconds that somebody new must wait."""

    def __init__(self, folder: Path, packages: Path, *, delay_s: int) -> None:
        self.port = free_port()
        words = ("postgrey", "--verbose", f"--inet=127.0.0.1:{self.port}", f"--delay={delay_s}")
        # It is bound by the time it gives up root.
        super().__init__(Room(folder, packages, (_POSTGREY,)), *words, up="Setting uid")
        for name in ("whitelist_clients", "whitelist_recipients"):
            shutil.copy(packages / "usr/share/postgrey" / name, self.room.etc / "postgrey")
        os.chown(self.room.var / "lib/postgrey", _POSTGREY.number, _POSTGREY.number)
