"""The door: aiosmtpd underneath for octets, STARTTLS and the timer; it performs effects and decides nothing.

aiosmtpd's own dispatch accepts a bare LF, answers without enhanced codes and keeps every line of a content as
an object, so `_handle_client` is ours, and its `session` and `envelope` are never read. A session is not
cancelled when its client goes: what follows a final dot runs to its end.
"""

import asyncio
import ssl
from collections.abc import Iterable
from functools import lru_cache
from typing import cast

import structlog
from aiosmtpd.smtp import SMTP, TLSSetupException
from prometheus_client import Counter

from libs.mail.records import Event, EventType, Response, Trace
from libs.mail.reply import Reply
from libs.runtime.config import Endpoint
from libs.runtime.deps import Deps
from services.ingest.ask import Asker
from services.ingest.commit import Committer
from services.ingest.content import Contents
from services.ingest.known import Known
from services.ingest.limits import COMMAND_OCTETS, Connections, Limits, network
from services.ingest.policy import Accept, Ask, FindOut
from services.ingest.session import (
    AskRcpt,
    Commit,
    Connected,
    Effect,
    Input,
    Interrupted,
    Line,
    RcptAnswer,
    ReadContent,
    Say,
    SayAndClose,
    Session,
    StartTls,
    TlsStarted,
    ahead,
    step,
)

READ_OCTETS = 64 * 1024  # the reader stops the socket at twice this
LINGER_S, LINGERS = (
    2.0,
    15,
)  # what a client still sends is dropped so long, so that it can read our last reply
BACKLOG = 2048

log = structlog.get_logger()


wire = lru_cache(maxsize=64)(Reply.wire)  # most replies are said again and again


class Server:
    """What all sessions of a process share. `limits` is replaced as a whole when the load changes."""

    def __init__(
        self,
        deps: Deps,
        known: Known,
        asker: Asker,
        contents: Contents,
        committer: Committer,
        limits: Limits,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.deps, self.known, self.limits, self.tls = deps, known, limits, tls
        self.asker, self.contents, self.committer = asker, contents, committer
        smtp = deps.config.smtp
        self.connections = Connections(smtp.max_connections, smtp.max_connections_per_client)
        self.sessions: dict[asyncio.Task[None], Connection] = {}
        self.draining = False
        self.ports: list[int] = []
        self._servers: list[asyncio.Server] = []
        self._said: dict[tuple[str, int], Counter] = {}
        self._answered: dict[tuple[int, str], Counter] = {}

    async def listen(self, endpoints: Iterable[Endpoint]) -> None:
        """Raises OSError when an address cannot be had."""
        loop = asyncio.get_running_loop()
        for endpoint in endpoints:
            server = await loop.create_server(
                lambda: Connection(self), endpoint.address, endpoint.port, reuse_port=True, backlog=BACKLOG
            )
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
            self.ports.append(port)
            log.info("listening", address=endpoint.address, port=port)

    async def drain(self, within: float) -> None:
        """Take no more connections, let contents in hand be finished, end all other sessions with 421."""
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in self.sessions.values():
            connection.drain()
        if self.sessions:
            await asyncio.wait(set(self.sessions), timeout=within)
        for task in self.sessions:
            task.cancel()
        late = {*self.sessions, *self.asker.tasks, *self.contents.tasks, *self.committer.tasks}
        if late:
            await asyncio.wait(late, timeout=within)

    def said(self, reply: Reply, command: str) -> None:
        """Count a reply."""
        kind = (command, reply.code // 100)
        counter = self._said.get(kind)
        if counter is None:
            counter = self.deps.metrics.replies.labels(command or "none", f"{kind[1]}xx")
            self._said[kind] = counter
        counter.inc()

    def answered(self, code: int, source: str) -> None:
        """Count an answer to RCPT."""
        counter = self._answered.get((code, source))
        if counter is None:
            counter = self.deps.metrics.recipients.labels(str(code), source)
            self._answered[code, source] = counter
        counter.inc()

    def max_size(self, domain: str) -> int:
        """Octets of a content for `domain`."""
        return self.known.max_size(domain)


class Connection(SMTP):
    """One connection: the wire of content.Wire, and the loop that performs effects."""

    def __init__(self, server: Server) -> None:
        # In place of SMTP.__init__, which looks through all members of the class on each connection (350 us):
        # what the parts of it read that are used here.
        self.loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_OCTETS, loop=self.loop)
        super(SMTP, self).__init__(reader, client_connected_cb=self._cb_client_connected, loop=self.loop)
        self.tls_context = server.tls
        self.session = self.envelope = self.transport = None
        self._timeout_duration = server.deps.config.smtp.command_timeout_s
        self._timeout_handle = self._original_transport = self._tls_protocol = self._handler_coroutine = None
        self._tls_handshake_okay = True
        self._handle_hooks = {}

        self.buffer = bytearray()
        self._server = server
        self._client = ""
        self._network = ""
        self._out: list[bytes] = []
        self._why: Interrupted | None = None  # nothing is read any more, for this reason
        self._arrived = False
        self._waiting = ""  # for octets to "read" or "write", "" for neither
        self._between = False  # waiting for a command
        self._expires = 0.0
        self._armed = 0.0
        self._asked: AskRcpt | ReadContent | None = None

    # --- what aiosmtpd and asyncio call ---

    def connection_lost(self, error: Exception | None) -> None:
        """The session sees the end of the wire and ends by itself."""
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        if self._original_transport is not None:
            self._original_transport.close()
        super(SMTP, self).connection_lost(error)
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self._arrived = True
        if self._why is None:
            super().data_received(data)

    def eof_received(self) -> bool:
        """A client may close its half and still read our replies; not so with TLS."""
        self._reader.feed_eof()
        return self._tls_protocol is None

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
        if self.loop.time() < self._expires or not self._waiting:
            self._expires = max(self._expires, self.loop.time() + 1.0)
            self._arm()
        elif self._waiting == "read":
            self._interrupt(Interrupted.TIMEOUT)
        elif (transport := self._transport_now()) is not None:
            transport.abort()  # it does not read our replies

    async def push(self, status: str | bytes) -> None:
        """aiosmtpd's own words are not said: ours have been."""

    # --- the wire ---

    async def more(self, within: float) -> Interrupted | None:
        """Wait for octets; see content.Wire."""
        if (why := self._stopped()) is not None:
            return why
        self._reset_timeout(within)
        self._waiting = "read"
        try:
            data = await self._reader.read(READ_OCTETS)
        finally:
            self._waiting = ""
        if data:
            self.buffer += data
            return None
        if (why := self._stopped()) is not None:
            return why
        raise ConnectionResetError

    def _transport_now(self) -> asyncio.Transport | None:
        """None when the connection is lost; TLS has another one than the socket."""
        return cast("asyncio.Transport | None", self.transport)

    def drain(self) -> None:
        """End the session unless it is in the middle of something."""
        if self._between:
            self._interrupt(Interrupted.DRAINING)

    def _stopped(self) -> Interrupted | None:
        return self._why

    def _interrupt(self, why: Interrupted) -> None:
        if self._why is None:
            self._why = why
            self._reader.feed_eof()

    async def _line(self) -> Input:
        """The next command. Replies are held back while further commands are there (RFC 2920)."""
        buffer = self.buffer
        while True:
            if self._server.draining:
                return Interrupted.DRAINING
            end = buffer.find(b"\n")
            if end >= 0:
                if buffer[end - 1 : end] != b"\r":
                    return Interrupted.BAD_LINE
                line = bytes(buffer[: end - 1])
                del buffer[: end + 1]
                return Line(line, bool(buffer))
            if len(buffer) > COMMAND_OCTETS:
                return Interrupted.BAD_LINE
            await self._flush()
            self._between = True
            try:
                why = await self.more(self._timeout_duration)
            finally:
                self._between = False
            if why is not None:
                return why

    async def _flush(self) -> None:
        if not self._out:
            return
        octets = b"".join(self._out)
        self._out.clear()
        transport = self._transport_now()
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        self._writer.write(octets)
        if transport.get_write_buffer_size():
            self._reset_timeout()
            self._waiting = "write"
            try:
                await self._writer.drain()
            finally:
                self._waiting = ""

    # --- the session ---

    async def _handle_client(self) -> None:
        assert self.transport is not None
        task = asyncio.current_task()
        assert task is not None
        server, metrics = self._server, self._server.deps.metrics
        peer = self.transport.get_extra_info("peername")
        self._client = peer[0] if peer else ""
        self._network = network(self._client)
        room = server.connections.opened(self._network)
        server.sessions[task] = self
        metrics.sessions.inc()
        metrics.sessions_open.inc()
        try:
            await self._talk(room=room)
        except (OSError, TLSSetupException):
            log.debug("connection lost", client=self._client)
        finally:
            metrics.sessions_open.dec()
            del server.sessions[task]
            server.connections.closed(self._network)
            if self.transport is not None:
                self.transport.close()

    async def _talk(self, *, room: bool) -> None:
        """state, effect = step(state, what the effect yielded), until an effect closes."""
        for _ in range(2):
            await asyncio.sleep(0)  # the loop looks at the socket: has the client spoken before us?
        state, effect = step(Session(), Connected(room, self._arrived), self._server.limits)
        while not isinstance(effect, SayAndClose):
            got: Input
            try:
                got = await self._perform(state, effect)
                state, effect = step(state, got, self._server.limits)
            except (OSError, TLSSetupException):
                raise
            except Exception:
                self._server.deps.metrics.session_errors.inc()
                log.exception("session failed", effect=type(effect).__name__)
                state, effect = step(state, Interrupted.OURS, self._server.limits)
        self._note(effect.reply, effect.command, effect.recipient, state)
        self._out.append(wire(effect.reply))
        await self._flush()
        if effect.command != "QUIT":
            await self._linger()

    async def _perform(self, state: Session, effect: Effect) -> Input:
        match effect:
            case Say():
                if effect.reply is not None:
                    self._note(effect.reply, effect.command, effect.recipient, state)
                    self._out.append(wire(effect.reply))
                return await self._line()
            case AskRcpt():
                self._asked = effect
                return RcptAnswer(await self._ask(state, effect))
            case ReadContent():
                self._asked = effect
                self._out.append(wire(effect.reply))
                await self._flush()
                trace = Trace(
                    0,
                    effect.envelope.domain,
                    self._client,
                    state.helo,
                    effect.envelope.reverse_path,
                    effect.envelope.smtputf8,
                )
                max_size = self._server.max_size(effect.envelope.domain)
                return await self._server.contents.receive(self, trace, max_size)
            case Commit():
                return await self._server.committer.commit(
                    state, effect.envelope, effect.content, self._client
                )
            case StartTls():
                return await self._start_tls(effect)
            case SayAndClose():
                raise AssertionError("closes, yields nothing")

    async def _ask(self, state: Session, effect: AskRcpt) -> Reply | Accept:
        asker = self._server.asker
        answer = asker.at_once(effect.to, effect.envelope, self._network)
        if isinstance(answer, Ask | FindOut):
            if self.buffer:
                asker.ahead(
                    ahead(state, bytes(self.buffer).split(b"\r\n")[:-1]), effect.envelope, self._network
                )
            await self._flush()
            answer = await asker.answer(effect.to, answer, self._network)
        if isinstance(answer, Accept):
            self._server.answered(250, answer.source)
        else:
            self._server.answered(answer.code, "refused")
        return answer

    async def _start_tls(self, effect: StartTls) -> Input:
        self._out.append(wire(effect.reply))
        await self._flush()
        self.buffer.clear()
        await self.smtp_STARTTLS("")  # clears its reader, too
        assert self.transport is not None
        tls = self.transport.get_extra_info("ssl_object")
        return TlsStarted(f"{tls.version()} {tls.cipher()[0]}")

    async def _linger(self) -> None:
        """Closing with octets unread resets the connection, and the client may never see our reply."""
        transport = self._transport_now()
        if transport is None or self._why is not None:
            return
        self._why = Interrupted.OURS  # from here on what arrives is dropped
        if transport.can_write_eof():
            transport.write_eof()
        for _ in range(LINGERS):
            self._arrived = False
            try:
                async with asyncio.timeout(LINGER_S):
                    while await self._reader.read(READ_OCTETS):
                        pass
            except TimeoutError:
                if self._arrived:
                    continue
            return

    def _note(self, reply: Reply, command: str, recipient: str, state: Session) -> None:
        """Count the reply; a refused recipient or content is an event."""
        self._server.said(reply, command)
        if reply.code < 400 or command not in ("RCPT", "DATA"):
            return
        envelope = state.mail or (self._asked.envelope if self._asked is not None else None)
        domain = recipient.rpartition("@")[2] if recipient else envelope.domain if envelope else ""
        self._server.deps.events.emit(
            Event(
                type=EventType.REJECTION,
                event_time=0.0,
                service="",
                host="",
                domain=domain,
                sender=envelope.reverse_path if envelope else "",
                recipient=recipient,
                response=Response(reply.code, reply.enhanced, reply.text, command),
                peer_address=self._client,
                tls=state.tls,
            )
        )
