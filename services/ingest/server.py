"""Listens, and performs the effects of each session; decides nothing.

A session is not cancelled when its client goes: what follows a final dot runs to its end.
"""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Iterable
from functools import lru_cache

import structlog

from libs.mail import replies
from libs.mail.event import Event, EventType, Response
from libs.mail.reply import Reply
from libs.runtime.certs import Certificates
from libs.runtime.config import Endpoint
from libs.runtime.deps import Deps
from libs.runtime.run import CannotStart
from services.ingest import policy, proxy, upstream
from services.ingest.ask import Asker
from services.ingest.commit import Committer
from services.ingest.connection import Connection
from services.ingest.connections import NOBODY, Connections, Rates, peer_at
from services.ingest.content import Contents
from services.ingest.effects import (
    AskRcpt,
    Commit,
    Connected,
    Effect,
    FlushAnswer,
    Input,
    Interrupted,
    RcptAnswer,
    ReadContent,
    Represent,
    RequestFlush,
    Say,
    SayAndClose,
    StartTls,
    TlsStarted,
)
from services.ingest.etrn import Flusher
from services.ingest.facts import Accept
from services.ingest.known import Known
from services.ingest.limits import Limit, Limits, limits_by_reply
from services.ingest.senders import Senders
from services.ingest.session import Session, ahead, step

BACKLOG = 2048
# What the kernel holds of a connection, and so what one read may bring: without a bound it gives a thousand
# fast senders some megabytes each. 128 KiB a round trip are enough for a mail.
RECEIVE_OCTETS = 128 * 1024
CLASSES = {digit: f"{digit}xx" for digit in range(2, 6)}  # of replies, in the metrics
LATE_S = 60.0  # appends of sessions that are gone may take so long when the process ends

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
        flusher: Flusher,
        senders: Senders,
        limits: Limits,
        rates: Rates,
        certificates: Certificates | None,
    ) -> None:
        self.deps, self.known, self.limits, self.certificates = deps, known, limits, certificates
        self.senders = senders
        self.asker, self.contents, self.committer, self.flusher = asker, contents, committer, flusher
        smtp = deps.config.smtp
        self.connections = Connections(rates)
        self.exempt = [ipaddress.ip_network(network) for network in smtp.exempt_networks]
        self.limited = limits_by_reply(deps.config.host.name)
        self.sessions: dict[asyncio.Task[None], Dialogue] = {}
        self.draining = False
        self.proxies = [ipaddress.ip_network(network) for network in smtp.proxy_networks]
        self.relays = [ipaddress.ip_network(network) for network in smtp.trusted_relays]
        self._servers: dict[asyncio.Server, bool] = {}  # with: is it a proxied door?

    async def bind(self, endpoints: Iterable[Endpoint], *, proxied: bool = False) -> None:
        """Have these doors, still shut; `proxied`: a PROXY header is required at them. A socket on [::] takes
        IPv6 alone: each address has a listener of its own. Raises CannotStart when one cannot be had."""
        loop = asyncio.get_running_loop()
        setting = "smtp.proxy_listen" if proxied else "smtp.listen"
        for endpoint in endpoints:
            try:
                server = await loop.create_server(
                    lambda: Dialogue(self, proxied=proxied),
                    endpoint.address,
                    endpoint.port,
                    reuse_port=True,
                    backlog=BACKLOG,
                    start_serving=False,
                )
            except OSError as error:
                why = os.strerror(error.errno or 0)
                raise CannotStart(f"{setting}: {endpoint} cannot be used: {why}") from error
            for bound in server.sockets:
                with socket.socket(fileno=os.dup(bound.fileno())) as same:
                    same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_OCTETS)
            self._servers[server] = proxied

    async def listen(self) -> None:
        """Open all doors."""
        for server, proxied in self._servers.items():
            address, port = server.sockets[0].getsockname()[:2]
            await server.start_serving()
            log.info("listening", address=address, port=port, proxied=proxied)

    async def drain(self) -> None:
        """The end, in steps. No more connections are taken; for `drain_s` sessions go on as they did; then
        each hears 421 where it waits for a command, or will next. A content in hand has `drain_data_s` more
        to come to its end. What has its final dot is brought to its end always: a commit is never cut."""
        smtp, timing = self.deps.config.smtp, self.deps.config.timing
        for server in self._servers:
            server.close()
        for _ in range(5):
            await asyncio.sleep(0)  # what was accepted just now becomes a session
        await self._ended(smtp.drain_s)
        self.draining = True
        for session in self.sessions.values():
            session.drain()
        await self._ended(smtp.drain_data_s)
        for session in self.sessions.values():
            session.cut()
        await self._ended(timing.verdict_deadline_s + 2 * timing.acknowledgement_s)
        for task in self.sessions:
            task.cancel()
        late = {*self.sessions, *self.asker.tasks, *self.contents.tasks, *self.committer.tasks}
        if late:
            await asyncio.wait(late, timeout=LATE_S)

    async def _ended(self, within: float) -> None:
        """Return when no session is left, or after `within` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        while self.sessions and (left_s := until - loop.time()) > 0:
            await asyncio.wait(set(self.sessions), timeout=left_s)

    def said(self, reply: Reply, command: str) -> None:
        """Count a reply, and the limit or fault that it speaks of."""
        if reply.code >= 400 and (limit := self.limited.get(reply)) is not None:
            self.deps.metrics.limited.inc(limit)
        if reply.code >= 400 and (fault := replies.FAULTS.get(reply)) is not None:
            self.deps.metrics.faults.inc(fault)
        self.deps.metrics.replies.inc(command or "none", CLASSES[reply.code // 100])


class Dialogue(Connection):
    """A connection and the loop that performs effects."""

    def __init__(self, server: Server, *, proxied: bool) -> None:
        super().__init__(server.deps.config.smtp.command_timeout_s)
        self._server, self._proxied = server, proxied
        self._client = self._connected = self._relay = ""
        self._peer = NOBODY
        self._asked: AskRcpt | ReadContent | None = None

    async def _handle_client(self) -> None:
        assert self.transport is not None
        task = asyncio.current_task()
        assert task is not None
        server = self._server
        peer = self.transport.get_extra_info("peername")
        self._client = proxy.plain(peer[0]) if peer else ""
        server.sessions[task] = self
        if server.draining:
            self.drain()
        try:
            if not self._proxied or await self._announced():
                await self._admitted()
        finally:
            del server.sessions[task]
            if self.transport is not None:
                self.transport.close()

    async def _admitted(self) -> None:
        """The session of a client that is known now."""
        server, metrics = self._server, self._server.deps.metrics
        self._connected = self._client
        self._relay = self._client if proxy.trusted(self._client, server.relays) else ""
        self._peer = peer = peer_at(self._client, server.exempt, server.limits.access)
        self.ends = self.loop.time() + server.connections.lasts_s(peer)
        limit = server.connections.opened(peer, server.deps.clock.mono())
        metrics.sessions.inc()
        metrics.sessions_open.inc()
        try:
            await self._talk(limit)
        except OSError:
            log.debug("connection lost", client=self._client)
        finally:
            metrics.sessions_open.dec()
            server.connections.closed(peer, limit)

    async def _announced(self) -> bool:
        """Has a proxy that we trust said whom it connects for? Who may not, or cannot, is cut off."""
        peer, why = self._client, "untrusted"
        if proxy.trusted(peer, self._server.proxies):
            try:
                within = self._server.deps.config.smtp.proxy_timeout_s
                self._client = await self.behind_proxy(within) or peer
            except proxy.BadHeader as error:
                why = "header"
                log.warning("no PROXY header from a trusted proxy", peer=peer, error=str(error))
            except TimeoutError:
                why = "timeout"
                log.warning("no PROXY header from a trusted proxy", peer=peer, error="not in time")
            except ConnectionError:
                why = "closed"
            else:
                return True
        self._server.deps.metrics.proxy_refused.labels(why).inc()
        self.abort()
        return False

    async def _talk(self, limit: Limit | None) -> None:
        """state, effect = step(state, what the effect yielded), until an effect closes."""
        for _ in range(2):
            await asyncio.sleep(0)  # the loop looks at the socket: has the client spoken before us?
        state, effect = step(Session(), Connected(limit, self.arrived, self._relay), self._server.limits)
        while not isinstance(effect, SayAndClose):
            got: Input
            try:
                got = await self._perform(state, effect)
                state, effect = step(state, got, self._server.limits)
            except OSError:
                raise
            except Exception:
                self._server.deps.metrics.session_errors.inc()
                log.exception("session failed", effect=type(effect).__name__)
                state, effect = step(state, Interrupted.OURS, self._server.limits)
        self._note(effect.reply, effect.command, effect.recipient, state)
        self.out.append(wire(effect.reply))
        await self.flush()
        if effect.linger:
            await self.linger()

    async def _perform(self, state: Session, effect: Effect) -> Input:
        match effect:
            case Say():
                if effect.reply is not None:
                    self._note(effect.reply, effect.command, effect.recipient, state)
                    self.out.append(wire(effect.reply))
                    if effect.sender:
                        self._server.senders.expect(effect.sender)
                return await self.line()
            case AskRcpt():
                self._asked = effect
                return RcptAnswer(await self._ask(state, effect))
            case ReadContent():
                self._asked = effect
                self.out.append(wire(effect.reply))
                await self.flush()
                trace = upstream.trace(effect.envelope, self._client, state.helo)
                room = self._server.known.room(effect.envelope.domain)
                rate = self._server.connections.data_rate(self._peer)
                return await self._server.contents.receive(self, trace, room, rate)
            case Commit():
                return await self._server.committer.commit(
                    state, effect.envelope, effect.content, self._client
                )
            case StartTls():
                self.out.append(wire(effect.reply))
                await self.flush()
                tls = await self._start_tls()
                self._represents(self._connected)
                return TlsStarted(tls)
            case Represent():
                self._represents(effect.client)
                blocked = Limit.BLOCKED_CLIENTS if self._peer.blocked else None
                return Connected(blocked, early=False, relay=self._relay)
            case RequestFlush():
                await self.flush()
                flusher = self._server.flusher
                return FlushAnswer(await flusher.flush(effect.domain, self._peer))
            case SayAndClose():
                raise AssertionError("closes, yields nothing")

    def _represents(self, client: str) -> None:
        """The client is `client` from now on; one that is not known has the limits of who is connected."""
        server = self._server
        self._client = client
        self._peer = peer_at(client or self._connected, server.exempt, server.limits.access)

    async def _start_tls(self) -> str:
        certificates, handshakes = self._server.certificates, self._server.deps.metrics.tls_handshakes
        assert certificates is not None
        try:
            tls = await self.start_tls(certificates.context)
        except OSError:
            handshakes.labels("failed").inc()
            raise
        handshakes.labels(tls.partition(" ")[0]).inc()
        return tls

    async def _ask(self, state: Session, effect: AskRcpt) -> Reply | Accept:
        asker = self._server.asker
        answer = asker.at_once(effect.to, effect.envelope, self._peer)
        asked = not isinstance(answer, Reply | Accept)
        if not isinstance(answer, Reply | Accept):
            if lines := self.ahead(b"RCPT TO:", self._server.limits.max_recipients):
                asker.ahead(ahead(state, lines), effect.envelope, self._peer)
            await self.flush()
            answer = await asker.answer(effect.to, effect.envelope, answer, self._peer)
        if isinstance(answer, Accept) and not effect.envelope.recipients:
            null_mx = self._server.senders.null_mx(effect.envelope.sender)
            if null_mx is None:
                await self.flush()
                null_mx = await self._server.senders.find(effect.envelope.sender)
            answer = policy.at_sender(answer, null_mx=null_mx)
        if isinstance(answer, Accept):
            source = answer.source
        elif answer == replies.UNKNOWN_RECIPIENT:
            source = "callout" if asked else "cache"
        else:
            source = "refused"
        code = "250" if isinstance(answer, Accept) else str(answer.code)
        self._server.deps.metrics.recipients.inc(code, source)
        return answer

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
                domain=domain,
                sender=envelope.reverse_path if envelope else "",
                recipient=recipient,
                response=Response(reply.code, reply.enhanced, reply.text, command),
                peer_address=self._client,
                tls=state.tls,
            )
        )
