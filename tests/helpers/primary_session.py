"""The dialogue of a scripted Primary: RFC 5321 said as it should be, and where a client breaks it, noted.

The commands, TLS and the content of one connection; what a test wants to be said instead comes from Primary.
"""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from tests.helpers.primary import Primary

TOO_LARGE = "552 5.3.4 larger than we take"
SILENT, DROP, ACCEPT_DROP = "!silent", "!drop", "!accept-drop"
ENDLESS, DRIP, RAW, CUT = "!endless", "!drip", "!raw ", "!cut "
ACCEPT_CUT = "!accept-cut "
_LAST_OF_A_GROUP = ("EHLO", "HELO", "XCLIENT", "DATA", "STARTTLS", "NOOP", "QUIT")  # RFC 2920 section 3.1
_PATH = re.compile(r"(?i)(?:FROM|TO):<([^>]*)>((?: [^ ]+)*)")
_NEEDS = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8"}
_NEEDS |= dict.fromkeys(("RET", "ENVID", "NOTIFY", "ORCPT"), "DSN")

Params = Mapping[str, str]


class Received(NamedTuple):
    """One mail that got its 250. `recipients`: (address, parameters as sent); `content`: unstuffed."""

    reverse_path: str
    recipients: tuple[tuple[str, Params], ...]
    content: bytes
    params: Params
    helo: str
    tls: bool
    xclient: Params = MappingProxyType({})


class Visit:
    """One connection: `client` its address, `commands` as they came, `sent` octets of an endless reply."""

    def __init__(self, client: str) -> None:
        self.client, self.helo, self.tls, self.open = client, "", False, True
        self.sent = 0
        self.commands: list[str] = []


class _Ended(Exception):  # noqa: N818
    """The session is over."""


class Session(asyncio.Protocol):
    """One connection: reads command by command, in one task."""

    def __init__(self, primary: "Primary") -> None:
        self.primary = primary
        self.visit = Visit("")
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._lost = False
        self._xclient: Params = {}
        self._task: asyncio.Task[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._reverse_path: str | None = None
        self._params: Params = {}
        self._recipients: list[tuple[str, Params]] = []

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._task is None:
            self.visit.client = transport.get_extra_info("peername")[0]
            self.primary.opened(self)
            self._task = asyncio.create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> None:
        self._lost = True
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._arrived.set()

    def end(self, *, reset: bool = False) -> None:
        if reset:
            sock = self._transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:  # the client may have closed it a moment ago
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        if self._task:
            self._task.cancel()

    def hint(self, reply: str, *, close: bool) -> None:
        self._transport.write(reply.encode() + b"\r\n")
        if close and self._task:
            self._task.cancel()

    async def ended(self) -> None:
        if self._task:
            await asyncio.wait({self._task})

    # the dialogue

    async def _run(self) -> None:
        try:
            await self._say("BANNER", f"220 {self.primary.name} ESMTP")
            while True:
                await self._command(await self._line())
        except _Ended:
            pass
        finally:
            self._transport.close()
            self.visit.open = False
            self.primary.closed(self)

    async def _more(self) -> None:
        if self._lost:
            raise _Ended
        self._arrived.clear()
        await self._arrived.wait()

    async def _line(self) -> str:
        while (at := self._buffer.find(b"\n")) < 0:
            await self._more()
        line = bytes(self._buffer[: at + 1])
        del self._buffer[: at + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            self._violation(f"bare line end in {line!r}")
        text = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
        verb = text.split(" ")[0].upper()
        if self._buffer:
            if "PIPELINING" not in self.primary.capabilities:
                self._violation(f"pipelining was not offered: {bytes(self._buffer[:40])!r} after {text!r}")
            elif verb in _LAST_OF_A_GROUP:
                self._violation(f"{bytes(self._buffer[:40])!r} after {text!r} before its reply")
        self.visit.commands.append(text)
        self.primary.changed()
        return text

    def _violation(self, text: str) -> None:
        self.primary.violations.append(text)

    async def _say(self, stage: str, reply: str, recipient: str = "") -> str:
        """Say what the test wants, else `reply`; returns what was said."""
        if delay := self.primary.delay(stage):
            await asyncio.sleep(delay)
        reply = self.primary.scripted(stage, recipient) or reply
        await self._write(reply)
        return reply

    async def _write(self, reply: str) -> None:
        if reply == SILENT:
            while True:
                await self._more()
        if reply == DROP:
            raise _Ended
        if reply in (ENDLESS, DRIP):
            await self._endless(0.01 if reply == DRIP else 0.0)
        for mark in (RAW, CUT, ACCEPT_CUT):
            if reply.startswith(mark):
                self._transport.write(reply[len(mark) :].encode("latin-1"))
                if mark != RAW:
                    raise _Ended
                return
        self._transport.write("".join(f"{line}\r\n" for line in reply.split("\n")).encode())

    async def _endless(self, pause_s: float) -> None:
        """Line after line of one reply, until the client has gone; notes how much it was sent."""
        lines = b"250-and more\r\n" * (1 if pause_s else 1000)
        while not self._transport.is_closing():
            if self._transport.get_write_buffer_size() < 2 * len(lines):
                self._transport.write(lines)
                self.visit.sent += len(lines)
            await asyncio.sleep(pause_s)
        raise _Ended

    async def _command(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        match verb.upper():
            case "EHLO" | "HELO":
                await self._hello(verb.upper(), argument)
            case "STARTTLS":
                await self._starttls()
            case "XCLIENT":
                await self._represent(argument)
            case "MAIL":
                await self._mail(argument)
            case "RCPT":
                await self._rcpt(argument)
            case "DATA":
                await self._data()
            case "RSET":
                self._reset()
                await self._say("RSET", "250 2.0.0 reset")
            case "NOOP":
                await self._say("NOOP", "250 2.0.0 ok")
            case "QUIT":
                await self._say("QUIT", "221 2.0.0 bye")
                raise _Ended
            case _:
                self._violation(f"unknown command {line!r}")
                await self._say("NOOP", "500 5.5.2 unknown command")

    async def _hello(self, verb: str, name: str) -> None:
        self._reset()
        lines = [self.primary.name, *(self.primary.capabilities if verb == "EHLO" else ())]
        if self.visit.tls and "STARTTLS" in lines:
            lines.remove("STARTTLS")
        if self._xclient:  # whom it takes us for now may not say it, as Postfix has it
            lines = [line for line in lines if not line.startswith("XCLIENT")]
        marks = ["-"] * (len(lines) - 1) + [" "]
        said = await self._say(verb, "\n".join(f"250{m}{line}" for m, line in zip(marks, lines, strict=True)))
        if said.startswith("250"):
            self.visit.helo = name

    async def _starttls(self) -> None:
        if "STARTTLS" not in self.primary.capabilities or self.visit.tls:
            self._violation("STARTTLS was not offered")
            await self._say("STARTTLS", "502 5.5.1 not offered")
            return
        if not (await self._say("STARTTLS", "220 2.0.0 go ahead")).startswith("220"):
            return
        if self.primary.tls is None:
            self._transport.write(b"noise\r\n" * 5)
            raise _Ended
        self._buffer.clear()
        self._reset()
        self.visit.helo = ""
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(self._transport, self, self.primary.tls, server_side=True)
        except (OSError, ssl.SSLError):
            raise _Ended from None
        assert transport is not None
        self._transport, self.visit.tls = transport, True

    async def _represent(self, argument: str) -> None:
        """Postfix's XCLIENT_README: attributes that were offered, no transaction open, then all anew."""
        lines = (line.split(" ") for line in self.primary.capabilities)
        offered = next((words[1:] for words in lines if words[0] == "XCLIENT" and not self._xclient), [])
        given = dict(word.partition("=")[::2] for word in argument.split())
        if not given or not set(given) <= set(offered) or self._reverse_path is not None:
            self._violation(f"XCLIENT {argument!r}")
            await self._say("NOOP", "501 5.5.4 syntax")
            return
        if (await self._say("XCLIENT", f"220 {self.primary.name} ESMTP")).startswith("220"):
            self._reset()
            self.visit.helo, self._xclient = "", given

    async def _parse(self, stage: str, argument: str) -> tuple[str, dict[str, str]] | None:
        """The path and the parameters of MAIL or RCPT; None: refused already."""
        match = _PATH.fullmatch(argument)
        if match is None:
            self._violation(f"{stage} {argument!r}: wrong syntax")
            await self._say("NOOP", "501 5.5.4 syntax")
            return None
        params = {}
        for word in match[2].split():
            key, _, value = word.partition("=")
            params[key.upper()] = value
            if _NEEDS.get(key.upper()) not in {line.split(" ")[0] for line in self.primary.capabilities}:
                self._violation(f"{stage} parameter {word!r} was not offered")
                await self._say("NOOP", "555 5.5.4 parameter not known")
                return None
        return match[1], params

    async def _mail(self, argument: str) -> None:
        if not self.visit.helo or self._reverse_path is not None:
            self._violation("MAIL out of order")
            await self._say("NOOP", "503 5.5.1 not now")
            return
        if (parsed := await self._parse("MAIL", argument)) is None:
            return
        path, params = parsed
        if not path.isascii() and "SMTPUTF8" not in params:
            self._violation(f"MAIL {path!r} without SMTPUTF8")
        if self._too_large(int(params.get("SIZE", "0"))):
            await self._say("MAIL", TOO_LARGE, path)
            return
        if (await self._say("MAIL", "250 2.1.0 ok", path)).startswith("250"):
            self._reverse_path, self._params = path, params

    async def _rcpt(self, argument: str) -> None:
        if self._reverse_path is None:
            # After a refused MAIL a pipelining client hears this without fault (RFC 2920 section 3.1).
            if not any(command.upper().startswith("MAIL") for command in self.visit.commands):
                self._violation("RCPT before MAIL")
            await self._say("NOOP", "503 5.5.1 MAIL first")
            return
        if (parsed := await self._parse("RCPT", argument)) is None:
            return
        path, params = parsed
        if not path.isascii() and "SMTPUTF8" not in self._params:
            self._violation(f"RCPT {path!r} without SMTPUTF8")
        if self.primary.calls_back is not None:
            await self.primary.calls_back(self._reverse_path)
        known = self.primary.known
        there = not path.startswith("no-such-user-") if known is None else path.lower() in known
        reply = "250 2.1.5 ok" if there else f"550 5.1.1 <{path}>: no such user here"
        if (await self._say("RCPT", reply, path)).startswith("25"):
            self._recipients.append((path, params))

    async def _data(self) -> None:
        lenient = self.primary.data_without_recipients and self._reverse_path is not None
        if not self._recipients and not lenient:
            await self._say("NOOP", "554 5.5.1 no valid recipients")
            return
        if not (await self._say("DATA", "354 go ahead")).startswith("354"):
            self._reset()
            return
        content = await self._content()
        mail = Received(
            self._reverse_path or "",
            tuple(self._recipients),
            content,
            self._params,
            self.visit.helo,
            self.visit.tls,
            self._xclient,
        )
        self._reset()
        if delay := self.primary.delay("DOT"):
            await asyncio.sleep(delay)
        usual = "250 2.0.0 accepted" if mail.recipients else "554 5.5.1 no valid recipients"
        if self._too_large(len(content)):
            usual = TOO_LARGE
        addresses = [address for address, _ in mail.recipients] or [""]
        reply = next((said for each in addresses if (said := self.primary.scripted("DOT", each))), usual)
        if reply == ACCEPT_DROP or reply.startswith(("2", ACCEPT_CUT)):
            self.primary.received.append(mail)
            self.primary.changed()
        await self._write(DROP if reply == ACCEPT_DROP else reply)

    def _too_large(self, octets: int) -> bool:
        """RFC 1870 section 6: more than the limit that EHLO named."""
        limits = (line.split(" ") for line in self.primary.capabilities)
        limit = next((int(words[1]) for words in limits if words[0] == "SIZE" and len(words) > 1), 0)
        return 0 < limit < octets

    async def _content(self) -> bytes:
        """Up to the line with a lone dot, unstuffed (RFC 5321 section 4.5.2)."""
        data = bytearray(b"\r\n")
        seen = 0
        while True:
            data += self._buffer
            self._buffer.clear()
            if (at := data.find(b"\r\n.\r\n", max(0, seen - 4))) >= 0:
                break
            seen = len(data)
            await self._more()
        self._buffer += data[at + 5 :]
        if self._buffer and "PIPELINING" not in self.primary.capabilities:
            self._violation("pipelining was not offered: more after the final dot")
        return bytes(data[: at + 2]).replace(b"\r\n.", b"\r\n")[2:]
