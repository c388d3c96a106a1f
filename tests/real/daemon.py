"""A server in a room of its own: started until it says that it is up, what it says read, stopped."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.helpers.patience import PATIENCE_S, until
from tests.real.room import Room


class Daemon:
    """`command`: stays in the foreground; `up`: what its log holds once it serves; `log`: that file, where it
    does not write to its outputs."""

    def __init__(self, room: Room, *command: str, up: str, log: Path | None = None) -> None:
        self.room = room
        self._command, self._up, self._log = command, up, log or room.output
        self._forgotten = 0
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Run (again)."""
        self._forgotten += len(self.log())
        try:
            await self._stack.enter_async_context(self.room.running(*self._command))
            await self.until(lambda: self._up in self.log())
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """It is gone at once, its connections are reset."""
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def log(self) -> str:
        """What it says of itself, since it was forgotten."""
        return self._log.read_text("utf-8", "replace")[self._forgotten :] if self._log.exists() else ""

    def forget(self) -> None:
        """The log begins anew."""
        self._forgotten += len(self.log())

    async def until(self, predicate: Callable[[], object], within: float = PATIENCE_S) -> None:
        """Return once `predicate()` is true; a failure tells what it said last."""
        await until(predicate, within, self._last_words)

    def _last_words(self) -> str:
        return self.log()[-4000:] + self.room.output.read_text("utf-8", "replace")
