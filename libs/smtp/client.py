"""The only code that dials a mail server: connect, EHLO, STARTTLS.

TLS is what tls_policy.py says. Where nobody asks for more it is opportunistic (RFC 7435): any encryption is
better than none, so certificates are not looked at, and where STARTTLS fails the mail goes in clear on a new
connection.
"""

import asyncio
import errno
import ipaddress
from collections.abc import Sequence

from aiosmtplib.errors import SMTPException

from libs.mail.reply import foreign
from libs.mail.speaks import Stage
from libs.runtime.clock import Clock
from libs.runtime.config import DialPart, HostPart
from libs.smtp.commands import Capabilities, Envelope, To
from libs.smtp.route import Target, forbidden
from libs.smtp.session import Connection, Fault, Sent, ask, offered_in, read_reply, read_response
from libs.smtp.timeouts import CALLOUT, STANDARD, Timeouts, timeouts
from libs.smtp.tls import Contexts, mismatch, reason, version
from libs.smtp.tls_policy import ANY, Need, Tls
from libs.smtp.wire import Wire

__all__ = [
    "CALLOUT", "STANDARD", "Connection", "Dialer", "Envelope", "Fault", "Sent", "Stage", "Target", "Timeouts",
    "To", "timeouts",
]  # fmt: skip

_NO_EHLO = (500, 501, 502, 504)  # RFC 5321 section 4.1.4: then HELO


class _NoTls(Exception):  # noqa: N818
    """STARTTLS failed, its text says why: again, in clear, where that is allowed."""


class Dialer:
    """Dials from this host's published address of the family, if it has one (firewalls and SPF know it)."""

    def __init__(
        self,
        dial: DialPart,
        host: HostPart,
        clock: Clock,
        within: Timeouts = STANDARD,
        *,
        hosts: Sequence[str] = (),
    ) -> None:
        """`hosts`: the names of all our hosts, as nobody else may call himself."""
        self._port, self._host, self._clock, self._timeouts = dial.port, host, clock, within
        self._allow = tuple(ipaddress.ip_network(network) for network in dial.allow)
        self._ours = (*host.ipv4, *host.ipv6)
        self._names = {host.name, *hosts}
        self._contexts = Contexts(dial.authorities)

    async def connect(self, target: Target, tls: Tls = ANY) -> Connection:
        """A session past EHLO, encrypted as `tls` says. Raises Fault."""
        if forbidden(target.address, self._allow, self._ours):
            raise Fault(Stage.CONNECT, None, "forbidden")
        try:
            return await self._session(target, tls)
        except _NoTls as error:
            if tls.need is not Need.OPPORTUNISTIC:
                raise Fault(Stage.STARTTLS, None, "tls", f"{tls.by}: {error}") from error
            return await self._session(target, None)

    async def _session(self, target: Target, wanted: Tls | None) -> Connection:
        """`wanted` None: in clear, whatever is offered."""
        wire = await self._dial(target)
        try:
            greeting = await self._welcome(wire)
            capabilities = await self._hello(wire)
            tls = ""
            if wanted is not None and "STARTTLS" in capabilities:
                tls = await self._encrypt(wire, target, wanted)
                capabilities = await self._hello_again(wire)
            else:
                _in_clear(wanted)
            return Connection(
                wire,
                target,
                capabilities,
                tls=tls,
                opened=self._clock.mono(),
                timeouts=self._timeouts,
                greeting=greeting,
            )
        except BaseException:
            wire.abort()
            raise

    async def _dial(self, target: Target) -> Wire:
        loop = asyncio.get_running_loop()
        published = self._host.ipv6 if ":" in target.address else self._host.ipv4
        source = (published[0], 0) if published else None
        wire = Wire(loop)
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                await loop.create_connection(
                    lambda: wire, target.address, target.port or self._port, local_addr=source
                )
        except TimeoutError as error:
            raise Fault(Stage.CONNECT, None, "timeout") from error
        except ConnectionRefusedError as error:
            raise Fault(Stage.CONNECT, None, "refused") from error
        except OSError as error:
            reason = "source" if error.errno == errno.EADDRNOTAVAIL else "unreachable"
            raise Fault(Stage.CONNECT, None, reason) from error
        return wire

    async def _welcome(self, wire: Wire) -> str:
        banner = await read_reply(wire, Stage.BANNER, self._timeouts.banner_s)
        if banner.code != 220:
            raise Fault(Stage.BANNER, banner, "rejected")
        return banner.line()

    async def _hello(self, wire: Wire) -> Capabilities:
        ask(wire, Stage.EHLO, f"EHLO {self._host.name}\r\n".encode())
        response = await read_response(wire, Stage.EHLO, self._timeouts.ehlo_s)
        helo = response.code in _NO_EHLO
        if helo:
            ask(wire, Stage.EHLO, f"HELO {self._host.name}\r\n".encode())
            response = await read_response(wire, Stage.EHLO, self._timeouts.ehlo_s)
        if response.code != 250:
            raise Fault(Stage.EHLO, foreign(response.code, response.message), "rejected")
        if wire.unsolicited is not None:  # which of its replies was the one to EHLO, nobody can tell
            raise Fault(Stage.EHLO, None, "malformed")
        if response.message.partition("\n")[0].partition(" ")[0].lower() in self._names:
            raise Fault(Stage.EHLO, None, "ourselves")  # RFC 5321 section 6.3: mail would go round
        if helo:
            return {}
        return offered_in(response)

    async def _hello_again(self, wire: Wire) -> Capabilities:
        """After STARTTLS (RFC 3207 section 4.2). Raises _NoTls: there are servers that only fall now."""
        try:
            return await self._hello(wire)
        except Fault as fault:
            raise _NoTls(f"after STARTTLS: {fault}") from fault

    async def _encrypt(self, wire: Wire, target: Target, wanted: Tls) -> str:
        """The protocol and cipher. Raises _NoTls."""
        name = wanted.name or ("" if target.host.startswith("[") else target.host)
        wire.expected += 1
        try:
            async with asyncio.timeout(self._timeouts.starttls_s):
                await wire.start_tls(self._contexts.of(wanted), server_hostname=name or None)
        except (SMTPException, OSError, ValueError, TimeoutError) as error:  # ssl.SSLError is an OSError
            raise _NoTls(reason(error)) from error
        if wire.unsolicited is not None or wire.transport is None:
            raise Fault(Stage.STARTTLS, None, "malformed")  # something slipped in before TLS (RFC 3207)
        session = wire.transport.get_extra_info("ssl_object")
        if refused := mismatch(session, wanted, self._clock.wall()):
            raise _NoTls(refused)
        return version(session)


def _in_clear(wanted: Tls | None) -> None:
    """Raises _NoTls where that is not allowed."""
    if wanted is not None and wanted.need is not Need.OPPORTUNISTIC:
        raise _NoTls("STARTTLS is not offered")
