"""A listener in between that notes what goes over: who pipelines shows in what comes in one piece.

async with Wiretap(backup.smtp_port) as tap: tap.port; tap.sent; tap.said
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Wiretap:
    """`sent`: what clients wrote, piece by piece as it came; `said`: what the server wrote, in one;
    `sessions`: how many connections came."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.sent: list[bytes] = []
        self.said = bytearray()
        self.sessions = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def forget(self) -> None:
        """Begin anew: another test."""
        self.sent.clear()
        self.said.clear()
        self.sessions = 0

    def group(self) -> list[bytes]:
        """The commands that came in one piece with the first MAIL."""
        return next(piece for piece in self.sent if piece.startswith(b"MAIL FROM:")).splitlines()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.sessions += 1
        try:
            server, forth = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._copy(client, forth, self.sent.append))
                    both.create_task(self._copy(server, back, self.said.extend))
            finally:
                forth.close()
        except ConnectionRefusedError:
            return  # the server is down: its client hears the end of the connection
        finally:
            back.close()
            self._tasks.discard(task)

    @staticmethod
    async def _copy(
        source: asyncio.StreamReader, sink: asyncio.StreamWriter, note: Callable[[bytes], None]
    ) -> None:
        try:
            while octets := await source.read(2**16):
                note(octets)
                sink.write(octets)
                await sink.drain()
            sink.write_eof()
        except OSError:
            sink.close()  # one side is gone: so is the other
