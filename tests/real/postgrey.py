"""A real postgrey, the greylisting that Postfix asks with check_policy_service.

async with Postgrey(folder, packages, delay_s=1) as postgrey: postgrey.port; postgrey.log()
"""

import os
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.real.ports import free_port
from tests.real.room import Room, User
from tests.real.waiting import until

_POSTGREY = User("postgrey", 7529)


class Postgrey:
    """`packages`: unpacked by tests/real/debian.py; `delay_s`: whole seconds that somebody new must wait."""

    def __init__(self, folder: Path, packages: Path, *, delay_s: int) -> None:
        self.port, self._delay_s = free_port(), delay_s
        self.room = Room(folder, packages, (_POSTGREY,))
        self._stack = AsyncExitStack()
        for name in ("whitelist_clients", "whitelist_recipients"):
            shutil.copy(packages / "usr/share/postgrey" / name, self.room.etc / "postgrey")
        os.chown(self.room.var / "lib/postgrey", _POSTGREY.number, _POSTGREY.number)

    async def __aenter__(self) -> Self:
        words = ("postgrey", "--verbose", f"--inet=127.0.0.1:{self.port}", f"--delay={self._delay_s}")
        try:
            await self._stack.enter_async_context(self.room.running(*words))
            await self.until(lambda: "Setting uid" in self.log())  # it is bound by then
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def log(self) -> str:
        """What it says of itself."""
        return self.room.output.read_text("utf-8", "replace")

    async def until(self, predicate: Callable[[], object], within: float = 30.0) -> None:
        """Return once `predicate()` is true."""
        await until(predicate, within, self.log)
