"""Plays a session over a socket, and keeps what was said for a person to read."""

import asyncio
import ssl
from collections.abc import Iterator, Sequence

from fuzz.grammar import Close, Send, Step, Tls, Wait
from fuzz.reading import Reading, Violation

REPLY_S = 60.0  # the machine is busy; a reply that takes longer is none
CONNECT_S = 60.0
PAUSE_S = 0.002


class Talk:
    """`said`: ("C" or "S", octets) in order, "T" where a handshake was. `early`: the client closed before it
    had read all it was owed."""

    def __init__(self, port: int, source: str, tls: ssl.SSLContext) -> None:
        self._port, self._source, self._tls = port, source, tls
        self.reading = Reading()
        self.said: list[tuple[str, bytes]] = []
        self.early = False

    async def play(self, steps: Sequence[Step]) -> None:
        """Raises Violation."""
        async with asyncio.timeout(CONNECT_S):
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._port, local_addr=(self._source, 0), limit=2**20
            )
        try:
            for step in steps:
                if not await self._step(step):
                    break
            else:
                await self._read()
                await self._end()
            if self.reading.mode == "over" and not self.early and not self._encrypted:
                await self._silence()
        finally:
            await self._closed()

    async def _step(self, step: Step) -> bool:
        """False: the session is over."""
        match step:
            case Send():
                if not step.content or step.blind or self.reading.mode == "content":
                    await self._send(step)
            case Wait():
                await self._read()
            case Tls():
                return await self._handshake(step)
            case Close("half") if self.reading.mode != "tls" and not self._encrypted:
                if self._writer.can_write_eof() and not self._writer.is_closing():
                    self._writer.write_eof()
                await self._read()
                self.early = True
                return False
            case Close():
                self.early = True
                if step.how == "reset":
                    self._writer.transport.abort()
                return False
        return self.reading.mode != "over"

    @property
    def _encrypted(self) -> bool:
        return self._writer.get_extra_info("ssl_object") is not None

    async def _closed(self) -> None:
        """At once: what the socket has goes out, and nobody waits for a server that reads no more."""
        self._writer.transport.abort()
        try:
            await self._writer.wait_closed()
        except OSError:
            return  # the server was faster

    async def _send(self, step: Send) -> None:
        for piece in _pieces(step):
            if self._writer.is_closing():
                return  # what the server said last is read yet
            self.reading.sent(piece)
            self.said.append(("C", piece))
            try:
                self._writer.write(piece)
                await self._writer.drain()
            except ConnectionError:
                return
            if step.cuts:
                await asyncio.sleep(PAUSE_S if step.slow else 0)

    async def _read(self) -> None:
        """All that is owed."""
        while self.reading.owed:
            lines: list[bytes] = []
            while not lines or lines[-1][3:4] == b"-":
                line = await self._line()
                if not line:
                    self.reading.closed()
                    self.early = True
                    return
                lines.append(line)
                self.said.append(("S", line))
            self.reading.replied(lines)

    async def _line(self) -> bytes:
        try:
            async with asyncio.timeout(REPLY_S):
                return await self._reader.readline()
        except TimeoutError:
            raise Violation(f"no reply within {REPLY_S:g} s ({self.reading.mode})") from None
        except ConnectionError:
            return b""

    async def _handshake(self, step: Tls) -> bool:
        """False: the session is over."""
        before = self.reading.mode
        await self._send(Send(b"STARTTLS\r\n" + step.behind))
        await self._read()
        if self.reading.mode != "tls" or before == "content":
            return self.reading.mode != "over"
        if not step.honest:
            return await self._not_tls()
        try:
            async with asyncio.timeout(REPLY_S):
                await self._writer.start_tls(self._tls, server_hostname="mx1.backup.example")
        except (ssl.SSLError, ConnectionError, TimeoutError) as error:
            self.early = True
            if not step.behind:  # else it may have come when only TLS was listened to
                raise Violation(f"the handshake failed: {error}") from None
            return False
        self.said.append(("T", b""))
        self.reading.encrypted()
        return True

    async def _not_tls(self) -> bool:
        """Whoever goes on in clear after STARTTLS is heard by nobody."""
        self.early = True
        self.said.append(("C", b"NOOP\r\n"))
        self._writer.write(b"NOOP\r\n" * 10)
        async with asyncio.timeout(REPLY_S):
            try:
                said = await self._reader.read()
            except ConnectionError:
                return False
        if said[:1].isdigit():
            raise Violation(f"answered in clear: {said!r}")
        return False

    async def _silence(self) -> None:
        """After its last reply the server says nothing more, and closes."""
        if line := await self._line():
            self.said.append(("S", line))
            raise Violation(f"said after its last reply: {line!r}")

    async def _end(self) -> None:
        """All is answered: a reply too many would be taken for that to QUIT."""
        if self.reading.mode == "content":
            await self._send(Send(b"\r\n.\r\n"))
            await self._read()
        if self.reading.mode == "command":
            await self._send(Send(b"\r\nQUIT\r\n" if self.reading.begun else b"QUIT\r\n"))
            await self._read()


def _pieces(step: Send) -> Iterator[bytes]:
    start = 0
    for end in (*step.cuts, len(step.octets)):
        if step.octets[start:end]:
            yield step.octets[start:end]
        start = end
