"""A session past EHLO: callouts, and transactions with all commands in one write where the server can.

Octets of a content are never changed, but for the dots (RFC 5321 section 4.5.2).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from aiosmtplib.errors import SMTPException, SMTPReadTimeoutError, SMTPResponseException
from aiosmtplib.esmtp import parse_esmtp_extensions
from aiosmtplib.response import SMTPResponse

from libs.mail.reply import Foreign, foreign
from libs.mail.speaks import Stage
from libs.smtp.commands import (
    Capabilities,
    Envelope,
    To,
    Unsendable,
    Visitor,
    greeting_for,
    mail_command,
    rcpt_command,
    xclient_command,
)
from libs.smtp.route import Target
from libs.smtp.stuffing import Stuffing
from libs.smtp.timeouts import Timeouts
from libs.smtp.wire import Wire

_BLOCK = 65_536  # octets written at a time: `block_s` is for so many


class Sent(NamedTuple):
    """The replies of one transaction. `recipients`: in the envelope's order, () when MAIL was refused;
    `data`: None when no recipient was accepted; `dot`: the one that decides, None when it was not reached."""

    mail: Foreign
    recipients: tuple[Foreign, ...] = ()
    data: Foreign | None = None
    dot: Foreign | None = None


class Fault(Exception):  # noqa: N818 the word of the design
    """A session that did not get to its end. The connection is gone, save for smtputf8 and syntax.

    `stage`: how far it got (DOT: the final dot was sent, whether the mail was taken is unknown). `reply`:
    what the server said on its way out, if it did. `reason`: refused, timeout, unreachable, forbidden, source
    (our address is not on this machine), rejected (see reply), closed, malformed, smtputf8 (needed, not
    offered), syntax (an address no command can hold), withheld (`may_finish` said no), ourselves (it
    calls itself by a name of ours), tls (it must be encrypted and cannot: `detail` says who wants it and what
    is wrong). `known`: the replies of the transaction so far; `answers`: those of verify().
    """

    def __init__(self, stage: Stage, reply: Foreign | None, reason: str, detail: str = "") -> None:
        super().__init__(f"{stage}: {detail or reason}" + (f": {reply.line()}" if reply else ""))
        self.stage, self.reply, self.reason, self.detail = stage, reply, reason, detail
        self.known: Sent | None = None
        self.answers: tuple[tuple[Stage, Foreign], ...] = ()


class Connection:
    """A session past EHLO. Not for two users at once; after a Fault only abort() makes sense.

    `tls`: protocol and cipher, "" in clear; `opened`: monotonic seconds; `greeting`: a line; `visitor`: whom
    the server takes us for, None for ourselves."""

    def __init__(
        self,
        wire: Wire,
        target: Target,
        capabilities: Capabilities,
        *,
        tls: str,
        opened: float,
        timeouts: Timeouts,
        greeting: str = "",
    ) -> None:
        self.greeting = greeting
        self.visitor: Visitor | None = None
        self.target, self.capabilities, self.tls, self.opened = target, capabilities, tls, opened
        transport = wire.transport
        self.source_address = str(transport.get_extra_info("sockname")[0]) if transport else ""
        self._wire, self._timeouts = wire, timeouts
        self._pipelining = "PIPELINING" in capabilities
        self._owed = 0  # replies to RSET that nobody waited for
        self._dirty = False  # a transaction is open that nobody wants
        self._leaving = False  # the server said 421

    @property
    def usable(self) -> bool:
        """May another transaction be tried on it?"""
        return self._wire.is_connected and self._wire.unsolicited is None and not self._leaving

    def takes(self, visitor: Visitor | None) -> bool:
        """May a mail of `visitor` (None: of nobody else) go over it? A server that was told once takes us for
        somebody else from then on; Postfix hears no second XCLIENT from him."""
        return self.visitor in (None, visitor) or (visitor is not None and "XCLIENT" in self.capabilities)

    async def introduce(self, visitor: Visitor, own: str) -> None:
        """Say whose mail comes next (XCLIENT), and greet again: for the server it is a new session with
        somebody else. `own`: our name. Does nothing where that is not offered, or is known, or is not
        understood: a Postfix without IPv6 does not know such addresses.

        Raises Fault (stage BANNER or EHLO); the connection is gone then."""
        command = xclient_command(visitor, self.capabilities)
        if not command or self.visitor == visitor:
            return
        try:
            await self._settle()
            self._write(Stage.BANNER, command, 1)
            response = await read_response(self._wire, Stage.BANNER, self._timeouts.banner_s)
            if response.code in (500, 501, 502, 504):
                return
            _wants(220, Stage.BANNER, response)
            self._write(Stage.EHLO, greeting_for(visitor, own), 1)
            response = await read_response(self._wire, Stage.EHLO, self._timeouts.ehlo_s)
            _wants(250, Stage.EHLO, response)
        except BaseException:
            self.abort()
            raise
        self.visitor, self.capabilities = visitor, offered_in(response)
        self._pipelining = "PIPELINING" in self.capabilities

    async def verify(
        self,
        reverse_path: str,
        recipients: Sequence[str],
        heard: Callable[[int, Stage, Foreign], None] = lambda _index, _stage, _reply: None,
    ) -> list[tuple[Stage, Foreign]]:
        """MAIL, an RCPT for each recipient, RSET: never DATA. For each recipient the reply that decided and
        its stage: RCPT, or MAIL when that was refused. `heard` is told of each (by its index) when it comes.

        Raises Fault (with `answers` so far)."""
        answers: list[tuple[Stage, Foreign]] = []

        def decided(stage: Stage, reply: Foreign) -> None:
            answers.append((stage, reply))
            heard(len(answers) - 1, stage, reply)

        try:
            envelope = Envelope(reverse_path, tuple(To(recipient) for recipient in recipients))
            commands = self._commands(envelope)
            try:
                async with asyncio.timeout(self._timeouts.verify_s):
                    await self._verify(commands, decided)
            except TimeoutError as error:  # a tarpit: each reply comes in time, all of them do not
                raise Fault(Stage.RCPT if answers else Stage.MAIL, None, "timeout") from error
        except Fault as fault:
            fault.answers = tuple(answers)
            if len(answers) == len(recipients):  # it fell at RSET: all is known
                self.abort()
                return answers
            self._spoilt(fault)
            raise
        except BaseException:
            self.abort()
            raise
        return answers

    async def _verify(self, commands: Sequence[bytes], decided: Callable[[Stage, Foreign], None]) -> None:
        await self._settle()
        if self._pipelining:
            self._write(Stage.MAIL, b"".join([*commands, b"RSET\r\n"]), len(commands) + 1)
        else:
            self._write(Stage.MAIL, commands[0], 1)
        mail = await self._read(Stage.MAIL, self._timeouts.mail_s)
        for command in commands[1:]:
            if not self._pipelining and mail.code < 300:
                self._write(Stage.RCPT, command, 1)
            if self._pipelining or mail.code < 300:
                reply = await self._read(Stage.RCPT, self._timeouts.rcpt_s)
            if mail.code < 300:
                decided(Stage.RCPT, reply)
            else:
                decided(Stage.MAIL, mail)
        if not self._pipelining:
            self._write(Stage.RSET, b"RSET\r\n", 1)
        self._owed += 1

    async def send(
        self,
        envelope: Envelope,
        content: bytes | AsyncIterator[bytes],
        may_finish: Callable[[], bool] = lambda: True,
    ) -> Sent:
        """One transaction; the content's octets are sent as they are, dots stuffed, CR LF added at the end if
        missing. `may_finish` is asked right before the final dot: False ends the connection without it.

        Raises Fault (with `known`), and whatever `content` raises; the connection is gone then.
        """
        progress = _Progress()
        try:
            commands = self._commands(envelope)
            await self._settle()
            await self._open(commands, progress)
            if progress.data is not None and progress.data.code < 400:
                if any(reply.code < 300 for reply in progress.recipients):
                    await self._content(content, may_finish)
                    progress.dot = await self._read(Stage.DOT, self._timeouts.dot_s)
                else:
                    # RFC 2920 section 3.1: the server wants content for nobody; it gets none.
                    self._write(Stage.DOT, b".\r\n", 1)
                    await self._read(Stage.DOT, self._timeouts.dot_s)
            else:
                self._dirty = progress.mail is not None and progress.mail.code < 300
            if not any(reply.code < 300 for reply in progress.recipients):
                progress.data = None
        except Fault as fault:
            fault.known = progress.sent()
            self._spoilt(fault)
            raise
        except BaseException:
            self.abort()
            raise
        sent = progress.sent()
        assert sent is not None  # MAIL was answered, or a Fault was raised
        return sent

    async def quit(self) -> None:
        """Say QUIT, wait shortly for the end; never raises."""
        try:
            async with asyncio.timeout(self._timeouts.quit_s):
                if not self._pipelining:
                    await self._all_heard()
                self._write(Stage.RSET, b"QUIT\r\n", 1)
                await self._all_heard()
        except (Fault, SMTPException, TimeoutError):
            self.abort()
        if self._wire.transport is not None:
            self._wire.transport.close()

    async def _all_heard(self) -> None:
        while self._wire.expected:
            await self._wire.read_response()

    def abort(self) -> None:
        """Close at once."""
        self._wire.abort()

    # --- steps ---

    def _commands(self, envelope: Envelope) -> list[bytes]:
        try:
            offered = self.capabilities
            return [
                mail_command(envelope, offered),
                *(rcpt_command(to, offered) for to in envelope.recipients),
            ]
        except Unsendable as error:
            raise Fault(Stage.MAIL, None, str(error)) from error

    async def _settle(self) -> None:
        """Take the replies that are owed, leave a transaction that is open."""
        if self._dirty:
            self._write(Stage.RSET, b"RSET\r\n", 1)
            self._owed, self._dirty = self._owed + 1, False
        while self._owed:
            reply = await self._read(Stage.RSET, self._timeouts.mail_s)
            self._owed -= 1
            if reply.code >= 300:
                raise Fault(Stage.RSET, reply, "rejected")
        if self._wire.unsolicited is not None:
            raise Fault(Stage.MAIL, as_foreign(self._wire.unsolicited), "closed")

    async def _open(self, commands: list[bytes], progress: "_Progress") -> None:
        """MAIL, RCPTs and DATA with their replies: in one write where PIPELINING is offered."""
        if self._pipelining:
            self._write(Stage.MAIL, b"".join([*commands, b"DATA\r\n"]), len(commands) + 1)
            progress.mail = await self._read(Stage.MAIL, self._timeouts.mail_s)
            for _ in commands[1:]:
                progress.recipients.append(await self._read(Stage.RCPT, self._timeouts.rcpt_s))
            if progress.mail.code >= 300:
                progress.recipients.clear()  # they were answered for want of MAIL
            progress.data = await self._read(Stage.DATA, self._timeouts.data_s)
        else:
            self._write(Stage.MAIL, commands[0], 1)
            progress.mail = await self._read(Stage.MAIL, self._timeouts.mail_s)
            if progress.mail.code >= 300:
                return
            for command in commands[1:]:
                self._write(Stage.RCPT, command, 1)
                progress.recipients.append(await self._read(Stage.RCPT, self._timeouts.rcpt_s))
            if any(reply.code < 300 for reply in progress.recipients):
                self._write(Stage.DATA, b"DATA\r\n", 1)
                progress.data = await self._read(Stage.DATA, self._timeouts.data_s)

    async def _content(self, content: bytes | AsyncIterator[bytes], may_finish: Callable[[], bool]) -> None:
        stuffing = Stuffing()
        if isinstance(content, bytes):
            last = stuffing.feed(content)
        else:
            last = b""
            async for chunk in content:
                await self._blocks(last)
                last = stuffing.feed(chunk)
        last += stuffing.end()
        ending = len(last) - len(last) % _BLOCK if len(last) > _BLOCK else 0
        await self._blocks(last[:ending])
        if self._wire.unsolicited is not None:
            raise Fault(Stage.CONTENT, as_foreign(self._wire.unsolicited), "closed")
        if not may_finish():
            raise Fault(Stage.CONTENT, None, "withheld")
        self._write(Stage.CONTENT, last[ending:], 1)

    async def _blocks(self, octets: bytes) -> None:
        for start in range(0, len(octets), _BLOCK):
            self._write(Stage.CONTENT, octets[start : start + _BLOCK], 0)
            try:
                await self._wire.drained(self._timeouts.block_s)
            except TimeoutError as error:
                raise Fault(Stage.CONTENT, None, "timeout") from error
            except ConnectionError as error:
                raise Fault(Stage.CONTENT, self._farewell(), "closed") from error

    def _write(self, stage: Stage, octets: bytes, replies: int) -> None:
        try:
            self._wire.ask(octets, replies)
        except SMTPException as error:
            raise Fault(stage, self._farewell(), "closed") from error

    async def _read(self, stage: Stage, within: float) -> Foreign:
        reply = await read_reply(self._wire, stage, within)
        self._leaving = self._leaving or reply.code == 421
        return reply

    def _farewell(self) -> Foreign | None:
        return as_foreign(self._wire.unsolicited) if self._wire.unsolicited is not None else None

    def _spoilt(self, fault: Fault) -> None:
        if fault.reason not in ("smtputf8", "syntax"):  # nothing was written yet
            self.abort()


class _Progress:
    """The replies of a transaction while it goes on."""

    def __init__(self) -> None:
        self.mail: Foreign | None = None
        self.recipients: list[Foreign] = []
        self.data: Foreign | None = None
        self.dot: Foreign | None = None

    def sent(self) -> Sent | None:
        return Sent(self.mail, tuple(self.recipients), self.data, self.dot) if self.mail else None


def _wants(code: int, stage: Stage, response: SMTPResponse) -> None:
    if response.code != code:
        raise Fault(stage, as_foreign(response), "rejected")


def offered_in(response: SMTPResponse) -> dict[str, str]:
    """What the reply to EHLO offers."""
    offered, _ = parse_esmtp_extensions(response.message)
    return {keyword.upper(): parameters for keyword, parameters in offered.items()}


def as_foreign(response: SMTPResponse) -> Foreign:
    return foreign(response.code, response.message)


def ask(wire: Wire, stage: Stage, octets: bytes) -> None:
    try:
        wire.ask(octets, 1)
    except SMTPException as error:
        raise Fault(stage, None, "closed") from error


async def read_response(wire: Wire, stage: Stage, within: float) -> SMTPResponse:
    try:
        return await wire.read_response(within)
    except SMTPReadTimeoutError as error:
        raise Fault(stage, None, "timeout") from error
    except SMTPResponseException as error:
        raise Fault(stage, None, "malformed") from error
    except SMTPException as error:
        farewell = as_foreign(wire.unsolicited) if wire.unsolicited is not None else None
        raise Fault(stage, farewell, "closed") from error


async def read_reply(wire: Wire, stage: Stage, within: float) -> Foreign:
    """A yes or a no to the command of `stage`. Whoever says 354 to anything but DATA, or 250 to DATA, is out
    of step: nothing it says from there on may be taken for an answer (RFC 5321 section 4.3.2)."""
    reply = as_foreign(await read_response(wire, stage, within))
    if reply.code < 400 and (reply.code >= 300) != (stage is Stage.DATA):
        raise Fault(stage, None, "malformed")
    return reply
