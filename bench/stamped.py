"""An SMTP client that knows when a reply came to its socket, by the kernel's clock.

How long it takes until this process has its turn to read the reply is no part of the answer, and beside
brokers that share the cores it is as long as the answer itself.
"""

import asyncio
import socket
import struct
import sys
import time

_TIMESTAMPNS = (
    35  # SO_TIMESTAMPNS and SCM_TIMESTAMPNS of Linux, socket(7); the socket module does not name them
)
_TIMESPEC = struct.Struct("@qq")


class Stamped:
    """One connection; commands one at a time, replies of one read."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw

    @classmethod
    async def open(cls, port: int) -> "Stamped":
        raw = socket.socket()
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            raw.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        self = cls(raw)
        await self._reply(220)
        await self.command(b"EHLO client.sender.example\r\n", 250)
        return self

    async def command(self, octets: bytes, code: int) -> float:
        """Seconds until the reply was at the socket."""
        began = time.time_ns()
        self._raw.send(octets)
        return (await self._reply(code) - began) / 1e9

    async def _reply(self, code: int) -> int:
        """When it came, in ns of the system's clock."""
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        loop.add_reader(self._raw, readable.set_result, None)
        try:
            await readable
        finally:
            loop.remove_reader(self._raw)
        octets, stamps, _, _ = self._raw.recvmsg(65_536, socket.CMSG_SPACE(_TIMESPEC.size))
        if not octets.startswith(str(code).encode()):
            raise SystemExit(f"unexpected reply: {octets.decode(errors='replace').strip()}")
        for level, kind, data in stamps:
            if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMPNS):
                seconds, ns = _TIMESPEC.unpack(data)
                return int(seconds * 10**9 + ns)
        return time.time_ns()

    def close(self) -> None:
        self._raw.close()
