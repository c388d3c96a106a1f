"""How many connections there are to each dialled address: 500 domains may share one mail server."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CONNECTIONS = 5
PROBES = 1


class _Line:
    """Those who are at one address, and those who wait for it, in their order."""

    def __init__(self) -> None:
        self.inside = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Addresses:
    """Limits for all next hops of this process together. `share`: of all partitions, how many are its own.
    The processes that have the others dial the same addresses, so each has its share of the limits, and one
    at least."""

    def __init__(self, connections: int = CONNECTIONS, probes: int = PROBES) -> None:
        self._connections, self._probes = connections, probes
        self._share = 1.0
        self._lines: dict[tuple[str, bool], _Line] = {}

    @property
    def share(self) -> float:
        return self._share

    @share.setter
    def share(self, share: float) -> None:
        self._share = share
        for (_, probe), line in self._lines.items():
            self._admit(line, probe=probe)

    def limit(self, *, probe: bool = False) -> int:
        """Connections (or probes) at a time to one address."""
        return max(1, int((self._probes if probe else self._connections) * self._share))

    @asynccontextmanager
    async def room(self, address: str, *, probe: bool = False) -> AsyncIterator[None]:
        """Wait until one more connection (or probe) to `address` is allowed; the room ends with the block."""
        key = (address, probe)
        line = self._lines.setdefault(key, _Line())
        turn = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        self._admit(line, probe=probe)
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                line.inside -= 1
            elif turn in line.waiting:
                line.waiting.remove(turn)
            self._admit(line, probe=probe)
            # Who was cancelled while he waited may come here when the line is gone, or another one is there.
            if not line.inside and not line.waiting and self._lines.get(key) is line:
                del self._lines[key]

    def _admit(self, line: _Line, *, probe: bool) -> None:
        while line.waiting and line.inside < self.limit(probe=probe):
            turn = line.waiting.popleft()
            if not turn.cancelled():
                line.inside += 1
                turn.set_result(None)

    def wanted(self, address: str) -> bool:
        """Does somebody wait for a connection to `address`?"""
        line = self._lines.get((address, False))
        return line is not None and bool(line.waiting)
