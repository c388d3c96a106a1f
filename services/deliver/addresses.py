"""How many connections there are to each dialled address: 500 domains may share one mail server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CONNECTIONS = 5
PROBES = 1


class Addresses:
    """Limits for all next hops of this process together."""

    def __init__(self, connections: int = CONNECTIONS, probes: int = PROBES) -> None:
        self._connections, self._probes = connections, probes
        self._used: dict[tuple[str, bool], tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def room(self, address: str, *, probe: bool = False) -> AsyncIterator[None]:
        """Wait until one more connection (or probe) to `address` is allowed; the room ends with the block."""
        key = (address, probe)
        limit = self._probes if probe else self._connections
        semaphore, users = self._used.get(key) or (asyncio.Semaphore(limit), 0)
        self._used[key] = (semaphore, users + 1)
        try:
            async with semaphore:
                yield
        finally:
            semaphore, users = self._used[key]
            if users == 1:
                del self._used[key]
            else:
                self._used[key] = (semaphore, users - 1)

    def wanted(self, address: str) -> bool:
        """Does somebody wait for a connection to `address`?"""
        _, users = self._used.get((address, False), (None, 0))
        return users > self._connections
