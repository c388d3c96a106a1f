"""aiosmtplib's protocol with replies in a queue: many commands may be written before the first reply is read.

Its own data_received drops whatever comes after the first reply; pipelining (RFC 2920) needs them all.
"""

import asyncio
from collections import deque

from aiosmtplib.errors import SMTPReadTimeoutError, SMTPResponseException, SMTPServerDisconnected
from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse

_LONGEST = 65_536  # octets of one reply, all lines


class Wire(SMTPProtocol):
    """`expected`: replies that are owed to us. A reply beyond that is `unsolicited` (421 before a server
    closes, or an attack) and the session cannot go on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.expected = 1  # the banner
        self.unsolicited: SMTPResponse | None = None
        self.closed = loop.create_future()
        self._replies: deque[SMTPResponse] = deque()
        self._lines: list[bytes] = []
        self._class = b""
        self._held = 0
        self._malformed = False
        self._reader: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while (end := buffer.find(b"\n", start)) >= 0:
            line = bytes(buffer[start:end]).rstrip(b"\r")
            start = end + 1
            if not self._line(line):
                self._break()
                return
        del buffer[:start]
        if len(buffer) > _LONGEST:
            self._break()

    def _line(self, line: bytes) -> bool:
        """One line of a reply (RFC 5321 section 4.2); False: it is none."""
        self._held += len(line)
        code, mark = line[:3], line[3:4]
        if not (len(code) == 3 and code.isdigit() and b"2" <= code[:1] <= b"5" and mark in (b"", b" ", b"-")):
            return False
        if self._lines and code[:1] != self._class:
            return False  # 250-yes, 550 no: section 4.2.1 wants one code, and who could say which holds
        self._class = code[:1]
        self._lines.append(line[4:])
        if mark != b"-":
            # Never surrogates: this text goes into records and events.
            text = b"\n".join(self._lines).decode("utf-8", "backslashreplace")
            self._lines.clear()
            self._held = 0
            reply = SMTPResponse(int(code), text)
            if len(self._replies) < self.expected:
                self._replies.append(reply)
                self._wake()
            elif self.unsolicited is None:
                self.unsolicited = reply
        return self._held <= _LONGEST

    def _break(self) -> None:
        self._malformed = True
        self.abort()
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wake()
        if not self.closed.done():
            self.closed.set_result(None)

    def ask(self, octets: bytes, replies: int) -> None:
        """Write commands that get so many replies. Raises SMTPServerDisconnected."""
        self.write(octets)
        self.expected += replies

    async def read_response(self, timeout: float | None = None) -> SMTPResponse:  # noqa: ASYNC109 as in the base
        """The next reply. Raises SMTPReadTimeoutError, SMTPServerDisconnected, SMTPResponseException (it is
        none)."""
        while not self._replies:
            if self._malformed:
                raise SMTPResponseException(-1, "that is no reply")
            if self.transport is None:
                raise SMTPServerDisconnected("connection lost")
            self._reader = self._loop.create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._reader
            except TimeoutError as error:
                raise SMTPReadTimeoutError("no reply in time") from error
            finally:
                self._reader = None
        self.expected -= 1
        return self._replies.popleft()

    async def drained(self, within: float) -> None:
        """Return once the transport takes more. Raises TimeoutError, ConnectionError."""
        if self._paused or self._connection_lost:
            async with asyncio.timeout(within):
                await self._drain_helper()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()  # type: ignore[attr-defined]
