"""A mail server on a real socket that does what a test says, and notes where its client breaks the protocol.

    async with Primary(known={"ann@office.example"}) as primary:      # primary.port, primary.address
        primary.say("RCPT", "451 4.7.1 later", to="bob@office.example", times=1)
        primary.say("DOT", "!drop")    # "!silent": no reply; "!accept-drop": taken, but the reply is lost
        primary.say("RCPT", "!endless")    # "!drip": slowly; "!raw X": these octets; "!cut X": and no more
        primary.say("DOT", "!accept-cut X")    # taken, but only these octets of the reply arrive
        primary.slow(0.05, "RCPT")
        await primary.down(); await primary.up()     # connections are reset; the port stays ours
        primary.received[0].content

What a client may not do (commands out of order, parameters that were not offered, pipelining that was not
offered or goes past DATA, bare line ends) is answered as RFC 5321 says and written down in `violations`.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

import trustme

from tests.helpers.patience import PATIENCE_S
from tests.helpers.primary_session import Received, Session, Visit

CAPABILITIES = ("PIPELINING", "SIZE 52428800", "8BITMIME", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES")
STAGES = (
    "BANNER",
    "EHLO",
    "HELO",
    "STARTTLS",
    "XCLIENT",
    "MAIL",
    "RCPT",
    "DATA",
    "DOT",
    "RSET",
    "NOOP",
    "QUIT",
)


class _Said(NamedTuple):
    reply: str
    to: str | None
    left: int | None


def server_context(*names: str) -> ssl.SSLContext:
    """A TLS context with a certificate that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(*names).configure_cert(context)
    return context


class Primary:
    """`known`: the mailboxes there are, lower case; None: any but those that a probe for
    primaries that accept everything makes up. `capabilities`: the EHLO lines; with `tls`,
    STARTTLS too. `tls_broken`: 220 to STARTTLS, then noise. `data_without_recipients`: 354 even when every
    RCPT was refused, as RFC 2920 section 3.1 warns of."""

    def __init__(
        self,
        script: Mapping[str, str] | None = None,
        *,
        known: Iterable[str] | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        name: str = "mx.office.example",
        capabilities: Sequence[str] = CAPABILITIES,
        tls: ssl.SSLContext | None = None,
        tls_broken: bool = False,
        data_without_recipients: bool = False,
    ) -> None:
        self.known = None if known is None else set(known)
        self.address, self.port, self.name = address, port, name
        self.capabilities = tuple(capabilities) + (("STARTTLS",) if tls or tls_broken else ())
        self.tls, self.tls_broken, self.data_without_recipients = tls, tls_broken, data_without_recipients
        self.received: list[Received] = []
        self.visits: list[Visit] = []
        self.violations: list[str] = []
        self.most_at_once = 0
        self.calls_back: Callable[[str], Awaitable[None]] | None = (
            None  # awaited with the sender of each RCPT
        )
        self._said: dict[str, list[_Said]] = {}
        self._delays: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._holder: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._sessions: set[Session] = set()
        for stage, reply in (script or {}).items():
            self.say(stage, reply)

    # --- what a test says ---

    def say(self, stage: str, reply: str, *, to: str | None = None, times: int | None = None) -> None:
        """Answer `stage` with `reply` (lines joined by LF) instead, for ever or so many `times`; "" ends it.
        `to`: only for this recipient (RCPT), or a mail that has it among others (DOT). The newest rule that
        fits counts."""
        if stage not in STAGES:
            raise ValueError(f"{stage!r}: known are {', '.join(STAGES)}")
        rules = self._said.setdefault(stage, [])
        rules[:] = [rule for rule in rules if rule.to != to or (reply and times is not None)]
        if reply:
            rules.insert(0, _Said(reply, to, times))

    def slow(self, seconds: float, stage: str = "") -> None:
        """Wait before each reply (to `stage`)."""
        self._delays[stage] = seconds

    def hint(self, reply: str, *, close: bool = True) -> None:
        """Say `reply` on every open connection although nobody asked, then perhaps close them."""
        for session in tuple(self._sessions):
            session.hint(reply, close=close)

    async def until(self, predicate: Callable[[], object], within: float = PATIENCE_S) -> None:
        """Return once `predicate()` is true; TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            while not predicate():
                self._changed.clear()
                await self._changed.wait()

    async def got(self, count: int, within: float = PATIENCE_S) -> None:
        """Return once `count` mails were received."""
        await self.until(lambda: len(self.received) >= count, within)

    @property
    def open_visits(self) -> int:
        return len(self._sessions)

    # --- being there or not ---

    async def start(self) -> Self:
        self._holder = self._socket()  # bound, never listening: the port stays ours while we are down
        self.port = int(self._holder.getsockname()[1])
        await self.up()
        return self

    async def up(self) -> None:
        """Listen (again), on the same port."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: Session(self), sock=self._socket())

    async def down(self) -> None:
        """Reset every connection, refuse new ones."""
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
            sessions = tuple(self._sessions)
            for session in sessions:
                session.end(reset=True)
            await asyncio.gather(*(session.ended() for session in sessions))
            await server.wait_closed()

    async def stop(self) -> None:
        await self.down()
        if self._holder:
            self._holder.close()

    def _socket(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.address, self.port))
        return sock

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # --- used by the sessions ---

    def opened(self, session: Session) -> None:
        self._sessions.add(session)
        self.visits.append(session.visit)
        self.most_at_once = max(self.most_at_once, len(self._sessions))
        self._changed.set()

    def closed(self, session: Session) -> None:
        self._sessions.discard(session)
        self._changed.set()

    def changed(self) -> None:
        self._changed.set()

    def scripted(self, stage: str, recipient: str = "") -> str:
        """What a test wants to be said, or ""."""
        rules = self._said.get(stage, [])
        for at, rule in enumerate(rules):
            if rule.to is None or rule.to.lower() == recipient.lower():
                if rule.left is not None:
                    rules[at : at + 1] = [rule._replace(left=rule.left - 1)] if rule.left > 1 else []
                return rule.reply
        return ""

    def delay(self, stage: str) -> float:
        return self._delays.get(stage, self._delays.get("", 0.0))
