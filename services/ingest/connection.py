"""One connection: octets in and out, lines, TLS and the timer, with aiosmtpd underneath.

aiosmtpd's own dispatch accepts a bare LF, answers without enhanced codes and keeps every line of a content as
an object, so `_handle_client` is the session's (server.py), and its `session` and `envelope` are never read.
"""

import asyncio
import math
import ssl
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any, cast

from aiosmtpd.smtp import SMTP

from services.ingest import proxy
from services.ingest.effects import Interrupted, Line
from services.ingest.limits import COMMAND_OCTETS

ROOM_OCTETS = 32 * 1024  # with more than this in the buffer the socket is not read
NARROW_OCTETS = 32 * 1024  # doubled by Linux for its own bookkeeping
HANDSHAKE_S = 60.0
LINGER_S, LINGERS = 2.0, 15  # what a client still sends is dropped so long: it can read our last reply


class Connection(SMTP):
    """`buffer`: what arrived and was not taken yet (content.Wire); `out`: replies that wait for flush();
    `silence_s`: how long a client may say nothing between commands, or read nothing. `arrived`: something
    came since this was last set to False."""

    def __init__(self, silence_s: float) -> None:
        # In place of SMTP.__init__, which looks through all members of the class on each connection (350 us):
        # what the parts of it read that are used here.
        self.loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=self.loop)  # never fed: octets go into `buffer` without a detour
        super(SMTP, self).__init__(reader, client_connected_cb=self._cb_client_connected, loop=self.loop)
        self.session = self.envelope = self.transport = None
        self._timeout_duration = silence_s
        self._timeout_handle = self._original_transport = self._handler_coroutine = None

        self.buffer = bytearray()
        self.out: list[bytes] = []
        self._given = 0  # octets at the front of the buffer that ahead() gave and line() did not take yet
        self.arrived = False
        self._new = False  # something came since more() last said so
        self._eof = False
        self._held_back = False
        self._waiter: asyncio.Future[None] | None = None
        self.tls = False
        self._why: Interrupted | None = None  # nothing is read any more, for this reason
        self._waiting = ""  # for octets to "read" or "write", "" for neither
        self._between = False  # waiting for a command
        self.ends = math.inf  # loop time from which on no further command is waited for
        self._draining = False
        self._expires = 0.0
        self._armed = 0.0

    # --- what aiosmtpd and asyncio call ---

    def connection_lost(self, error: Exception | None) -> None:
        """The session sees the end of the wire and ends by itself."""
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        super(SMTP, self).connection_lost(error)
        cast("Any", self)._closed.exception()  # nobody waits for it, and asyncio would report it as forgotten
        self.transport = None
        self._eof = True
        self._wake()

    def data_received(self, data: bytes) -> None:
        self.arrived = True
        if self._why is not None:
            return
        self.buffer += data
        self._new = True
        if len(self.buffer) > ROOM_OCTETS and not self._held_back:
            self._pause()
        self._wake()

    def eof_received(self) -> bool:
        """A client may close its half and still read our replies; not so with TLS."""
        self._eof = True
        self._wake()
        return not self.tls

    def hold(self) -> None:
        """Read nothing before the next more()."""
        if not self._held_back:
            self._pause()

    def narrow(self) -> None:
        """Let the system hold little of what the client sends: it is read all at once."""
        if (transport := self._transport_now()) is not None:
            transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, NARROW_OCTETS)

    def _pause(self) -> None:
        if (transport := self._transport_now()) is not None:
            transport.pause_reading()
            self._held_back = True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _come(self) -> None:
        """Wait until something came, the client ended, or somebody interrupts."""
        if self._held_back and (transport := self._transport_now()) is not None:
            transport.resume_reading()
            self._held_back = False
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _reset_timeout(self, duration: float | None = None) -> None:
        """One timer a connection, armed again only when it fires or would fire too late."""
        now = self.loop.time()
        self._expires = now + (duration or self._timeout_duration)
        if self._timeout_handle is None or self._expires < self._armed:
            if self._timeout_handle is not None:
                self._timeout_handle.cancel()
            self._arm()

    def _arm(self) -> None:
        self._armed = self._expires
        self._timeout_handle = self.loop.call_at(self._armed, self._timeout_cb)

    def _timeout_cb(self) -> None:
        now = self.loop.time()
        if now < self._expires:
            self._arm()
        elif not self._waiting:
            self._expires = now + self._timeout_duration
            self._arm()
        elif self._waiting == "read":
            self._interrupt(Interrupted.TIMEOUT)
        elif (transport := self._transport_now()) is not None:
            transport.abort()  # it does not read our replies

    # --- the wire ---

    async def more(self, within: float) -> Interrupted | None:
        """Wait for octets; see content.Wire."""
        if (why := self._stopped()) is not None:
            return why
        if not self._new and not self._eof:
            self._reset_timeout(within)
            self._waiting = "read"
            try:
                await self._come()
            finally:
                self._waiting = ""
        if self._new:
            self._new = False
            return None
        if (why := self._stopped()) is not None:
            return why
        raise ConnectionResetError

    async def behind_proxy(self, within: float) -> str:
        """The client that the PROXY header names, "" where it names none; `within` seconds it must be whole.
        Raises proxy.BadHeader, TimeoutError, ConnectionError."""
        until = self.loop.time() + within
        while (found := proxy.header(self.buffer)) is None:
            left_s = until - self.loop.time()
            if left_s <= 0 or await self.more(left_s) is not None:
                raise TimeoutError
        del self.buffer[: found.length]
        self.arrived = bool(self.buffer)
        return found.client

    def _transport_now(self) -> asyncio.Transport | None:
        """None when the connection is lost; TLS has another one than the socket."""
        return cast("asyncio.Transport | None", self.transport)

    def abort(self) -> None:
        """Cut the connection off, without a word."""
        if (transport := self._transport_now()) is not None:
            transport.abort()

    def drain(self) -> None:
        """Interrupt the session where it waits, or will wait next, for a command."""
        self._draining = True
        if self._between:
            self._interrupt(Interrupted.DRAINING)

    def cut(self) -> None:
        """Read nothing more, nor wait for a client that does not read. What was read is dealt with."""
        if self._waiting == "write":
            self.abort()
        else:
            self._interrupt(Interrupted.DRAINING)

    def _stopped(self) -> Interrupted | None:
        return self._why

    def _interrupt(self, why: Interrupted) -> None:
        if self._why is None:
            self._why = why
            self._wake()

    async def line(self) -> Line | Interrupted:
        """The next command. Replies are held back while further commands are there (RFC 2920)."""
        buffer = self.buffer
        while True:
            if self._draining:
                return Interrupted.DRAINING
            end = buffer.find(b"\n")
            if end >= 0:
                if buffer[end - 1 : end] != b"\r":
                    return Interrupted.BAD_LINE
                line = bytes(buffer[: end - 1])
                del buffer[: end + 1]
                self._given = max(0, self._given - end - 1)
                return Line(line, bool(buffer))
            if len(buffer) > COMMAND_OCTETS:
                return Interrupted.BAD_LINE
            await self.flush()
            left_s = self.ends - self.loop.time()
            if left_s <= 0:
                return Interrupted.OVERTIME
            self._between = True
            try:
                why = await self.more(min(self._timeout_duration, left_s))
            finally:
                self._between = False
            if why is not None:
                late = why is Interrupted.TIMEOUT and left_s < self._timeout_duration
                return Interrupted.OVERTIME if late else why

    def ahead(self, first: bytes, most: int) -> list[bytes]:
        """The lines that wait at the front and begin with `first` (upper case), without CR LF. Each is given
        once, and none until line() has taken those given before: whatever a client sends ahead, it costs
        what its octets cost."""
        if self._given:
            return []
        buffer, lines, at = self.buffer, list[bytes](), 0
        while len(lines) < most and buffer[at : at + len(first)].upper() == first:
            end = buffer.find(b"\r\n", at)
            if end < 0:
                break
            lines.append(bytes(buffer[at:end]))
            at = end + 2
        self._given = at
        return lines

    async def flush(self) -> None:
        """Send the replies held back. Raises ConnectionError when the client is gone."""
        if not self.out:
            return
        octets = b"".join(self.out)
        self.out.clear()
        transport = self._transport_now()
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        transport.write(octets)
        if transport.get_write_buffer_size():
            self._reset_timeout()
            self._waiting = "write"
            try:
                await self._writer.drain()
            finally:
                self._waiting = ""

    async def start_tls(self, context: ssl.SSLContext) -> str:
        """Shake hands (RFC 3207); what came in clear is forgotten. Protocol and cipher. Raises OSError."""
        clear = self._transport_now()
        if clear is None:
            raise ConnectionResetError
        # From here to the handshake nothing else runs: what is read from now on is TLS.
        self.tls = True
        self.buffer.clear()
        self._given = 0
        self._new = self._held_back = False
        over = await self.loop.start_tls(
            clear, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_S
        )
        if over is None or self.transport is None:
            raise ConnectionResetError
        self.transport = cast("Any", self._writer)._transport = over
        tls = over.get_extra_info("ssl_object")
        return f"{tls.version()} {tls.cipher()[0]}"

    async def linger(self) -> None:
        """Closing with octets unread resets the connection, and the client may never see our reply."""
        transport = self._transport_now()
        if transport is None or self._why is not None:
            return
        self._why = Interrupted.OURS  # from here on what arrives is dropped
        if transport.can_write_eof():
            transport.write_eof()
        for _ in range(LINGERS):
            self.arrived = False
            try:
                async with asyncio.timeout(LINGER_S):
                    while not self._eof:
                        await self._come()
            except TimeoutError:
                if self.arrived:
                    continue
            return
