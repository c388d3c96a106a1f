"""Futures that fail when they are late: one timer for all that may take equally long.

A timer for each, set and taken back, costs more than handing a record over.
"""

import asyncio
from collections import deque
from typing import Any


class Deadlines:
    """What is watched, oldest first, by how long it may take."""

    def __init__(self) -> None:
        self._lines: dict[float, deque[tuple[float, asyncio.Future[Any]]]] = {}

    def watch(self, future: "asyncio.Future[Any]", within: float) -> None:
        """Give `future` a TimeoutError, unless it is done `within` seconds from now."""
        loop = future.get_loop()
        line = self._lines.get(within)
        if line is None:
            line = self._lines[within] = deque()
            loop.call_later(within, self._look, loop, within)
        line.append((loop.time() + within, future))
        while line[0][1].done():
            line.popleft()

    def _look(self, loop: asyncio.AbstractEventLoop, within: float) -> None:
        line = self._lines[within]
        while line and (line[0][1].done() or line[0][0] <= loop.time()):
            future = line.popleft()[1]
            if not future.done():
                future.set_exception(TimeoutError())
        if line:
            loop.call_at(line[0][0], self._look, loop, within)
        else:
            del self._lines[within]
