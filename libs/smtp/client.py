"""The only code that dials a mail server: connect, EHLO, STARTTLS.

TLS is opportunistic (RFC 7435): any encryption is better than none, so certificates are not looked at, and
where STARTTLS fails the mail goes in clear on a new connection.
"""

import asyncio
import errno
import ipaddress
import ssl
from collections.abc import Sequence

from aiosmtplib.errors import SMTPException
from aiosmtplib.esmtp import parse_esmtp_extensions

from libs.mail.reply import foreign
from libs.mail.speaks import Stage
from libs.runtime.clock import Clock
from libs.runtime.config import DialPart, HostPart
from libs.smtp.commands import Capabilities, Envelope, To
from libs.smtp.route import Target, forbidden
from libs.smtp.session import (
    CALLOUT,
    STANDARD,
    Connection,
    Fault,
    Sent,
    Timeouts,
    ask,
    read_reply,
    read_response,
)
from libs.smtp.wire import Wire

__all__ = [
    "CALLOUT", "STANDARD", "Connection", "Dialer", "Envelope", "Fault", "Sent", "Stage", "Target", "Timeouts",
    "To",
]  # fmt: skip

_NO_EHLO = (500, 501, 502, 504)  # RFC 5321 section 4.1.4: then HELO


class _NoTls(Exception):  # noqa: N818
    """STARTTLS failed: again, in clear."""


class Dialer:
    """Dials from this host's published address of the family, if it has one (firewalls and SPF know it)."""

    def __init__(
        self,
        dial: DialPart,
        host: HostPart,
        clock: Clock,
        timeouts: Timeouts = STANDARD,
        *,
        hosts: Sequence[str] = (),
    ) -> None:
        """`hosts`: the names of all our hosts, as nobody else may call himself."""
        self._port, self._host, self._clock, self._timeouts = dial.port, host, clock, timeouts
        self._allow = tuple(ipaddress.ip_network(network) for network in dial.allow)
        self._ours = (*host.ipv4, *host.ipv6)
        self._names = {host.name, *hosts}
        self._context = _opportunistic()

    async def connect(self, target: Target) -> Connection:
        """A session past EHLO, encrypted if the server can. Raises Fault."""
        if forbidden(target.address, self._allow, self._ours):
            raise Fault(Stage.CONNECT, None, "forbidden")
        try:
            return await self._session(target, encrypt=True)
        except _NoTls:
            return await self._session(target, encrypt=False)

    async def _session(self, target: Target, *, encrypt: bool) -> Connection:
        wire = await self._dial(target)
        try:
            greeting = await self._welcome(wire)
            capabilities = await self._hello(wire)
            tls = ""
            if encrypt and "STARTTLS" in capabilities:
                tls = await self._encrypt(wire, target)
                capabilities = await self._hello_again(wire)
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
                await loop.create_connection(lambda: wire, target.address, self._port, local_addr=source)
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
        offered, _ = parse_esmtp_extensions(response.message)
        return {keyword.upper(): parameters for keyword, parameters in offered.items()}

    async def _hello_again(self, wire: Wire) -> Capabilities:
        """After STARTTLS (RFC 3207 section 4.2). Raises _NoTls: there are servers that only fall now."""
        try:
            return await self._hello(wire)
        except Fault as fault:
            raise _NoTls from fault

    async def _encrypt(self, wire: Wire, target: Target) -> str:
        """The protocol and cipher. Raises _NoTls."""
        name = None if target.host.startswith("[") else target.host or None
        wire.expected += 1
        try:
            async with asyncio.timeout(self._timeouts.starttls_s):
                await wire.start_tls(self._context, server_hostname=name)
        except (SMTPException, OSError, ValueError, TimeoutError) as error:  # ssl.SSLError is an OSError
            raise _NoTls from error
        if wire.unsolicited is not None or wire.transport is None:
            raise Fault(Stage.STARTTLS, None, "malformed")  # something slipped in before TLS (RFC 3207)
        session = wire.transport.get_extra_info("ssl_object")
        cipher = session.cipher()
        return f"{session.version()} {cipher[0] if cipher else ''}".strip()


def _opportunistic() -> ssl.SSLContext:
    """No certificate is checked (RFC 7435), old ciphers are taken: the alternative is no encryption."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
