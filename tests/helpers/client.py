"""A mail client that says exactly what it is told, and what a dialogue in a test or a case file looks like.

    S: 220 mx1.backup.example ...     the server says this line; `...` at the end matches the rest
    C: HELO client.example            the client says this line
    C| hello                          a content line, sent as it is with CR LF
    C< a\\nb\\r\\n\\x00                  octets, with nothing added
    S.                                the server closes the connection

Client lines that follow each other go out in one write. Every server line must be there: a reply of three
lines is three `S:` lines.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from tests.helpers.patience import PATIENCE_S

_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|([rnt\\]))")
_NAMED = {"r": "\r", "n": "\n", "t": "\t", "\\": "\\"}


class Turn(NamedTuple):
    """`sent`: octets that go out together; `expected`: the lines that come then, None for the end of the
    connection; `line`: where it stands."""

    sent: bytes
    expected: tuple[str | None, ...]
    line: int


class BadDialogue(Exception):  # noqa: N818
    """A line of a dialogue that cannot be read."""


def octets(text: str) -> bytes:
    """What `C<` means: \\r \\n \\t \\\\ \\xNN; other characters as UTF-8."""
    parts, at = [], 0
    for match in _ESCAPE.finditer(text):
        parts.append(text[at : match.start()].encode())
        parts.append(bytes([int(match[1], 16)]) if match[1] else _NAMED[match[2]].encode())
        at = match.end()
    return b"".join([*parts, text[at:].encode()])


def turns(dialogue: str, first_line: int = 1) -> list[Turn]:
    """The dialogue as turns of client, then server; a dialogue may begin with the server."""
    found: list[Turn] = []
    sent, expected, at = b"", [], first_line
    for number, line in enumerate(dialogue.split("\n"), first_line):
        text = line.strip() if line.lstrip()[:2] not in ("C|", "C<") else line.lstrip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("S"):
            if text != "S." and not text.startswith("S: "):
                raise BadDialogue(f"line {number}: {text!r} is none of S: S.")
            expected.append(None if text == "S." else text[3:])
            continue
        if expected:
            found.append(Turn(sent, tuple(expected), at))
            sent, expected, at = b"", [], number
        if text == "C:" or text.startswith("C: "):
            sent += text[3:].encode() + b"\r\n"
        elif text.startswith("C|"):
            sent += text[2:].removeprefix(" ").encode() + b"\r\n"
        elif text.startswith("C< "):
            sent += octets(text[3:])
        else:
            raise BadDialogue(f"line {number}: {text!r} is none of C: C| C< S: S.")
    return [*found, Turn(sent, tuple(expected), at)]


def matches(expected: str, said: str) -> bool:
    """`...` at the end of what is expected matches the rest of what was said."""
    if expected.endswith("..."):
        return said.startswith(expected[:-3])
    return said == expected


class Client:
    """`async with Client(port) as client`. `early`: octets that are there before the server can say anything
    (it must run in this loop)."""

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", source: str | None = None, early: bytes = b""
    ) -> None:
        self._port, self._host, self._source, self._early = port, host, source, early

    async def __aenter__(self) -> Self:
        local = None if self._source is None else (self._source, 0)
        connected = socket.create_connection(
            (self._host, self._port), PATIENCE_S, local
        )  # the backlog takes it
        connected.sendall(self._early)
        connected.setblocking(False)
        self._reader, self._writer = await asyncio.open_connection(sock=connected, limit=2**20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return  # the server was faster

    @property
    def ends(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Address and port of ours and of the server."""
        mine, server = (self._writer.get_extra_info(name) for name in ("sockname", "peername"))
        return (mine[0], mine[1]), (server[0], server[1])

    def abort(self) -> None:
        """Gone without a word."""
        self._writer.transport.abort()

    async def send(self, raw: bytes) -> None:
        self._writer.write(raw)
        await self._writer.drain()

    async def line(self, within: float = PATIENCE_S) -> str | None:
        """The next line, None at the end of the connection."""
        try:
            raw = await asyncio.wait_for(self._reader.readline(), within)
        except ConnectionError:
            return None
        return raw.decode("utf-8", "backslashreplace").removesuffix("\r\n") if raw else None

    async def reply(self, within: float = PATIENCE_S) -> str:
        """The next reply, its lines joined by LF; ConnectionError when the connection ends instead."""
        lines: list[str] = []
        while True:
            line = await self.line(within)
            if line is None:
                raise ConnectionError(f"connection ended after {lines}")
            lines.append(line)
            if line[3:4] != "-":
                return "\n".join(lines)

    async def talk(self, dialogue: str) -> None:
        """Have this dialogue; AssertionError with the line that is not as it should be."""
        await self.take(turns(dialogue))

    async def take(self, all_turns: Sequence[Turn]) -> None:
        for turn in all_turns:
            if turn.sent:
                try:
                    await self.send(turn.sent)
                except ConnectionError as error:
                    raise AssertionError(f"line {turn.line}: the connection is gone") from error
            for expected in turn.expected:
                said = await self.line()
                if expected is None or said is None:
                    assert said == expected, f"line {turn.line}: wanted {expected!r}, got {said!r}"
                else:
                    assert matches(expected, said), f"line {turn.line}: wanted {expected!r}, got {said!r}"

    async def greet(self, helo: str = "client.sender.example") -> None:
        """Banner and EHLO."""
        assert (await self.reply()).startswith("220 ")
        await self.send(f"EHLO {helo}\r\n".encode())
        assert (await self.reply()).startswith("250")

    async def start_tls(self, context: ssl.SSLContext, name: str = "mx1.backup.example") -> None:
        """STARTTLS after the greeting; EHLO must be said again by the caller."""
        await self.send(b"STARTTLS\r\n")
        assert (await self.reply()).startswith("220 ")
        await self._writer.start_tls(context, server_hostname=name)

    async def data(self, recipient: str, sender: str = "eve@sender.example") -> None:
        """MAIL, RCPT and DATA in one write after greet(); returns once all three are answered."""
        await self.send(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        for _ in range(3):
            assert await self.reply()

    async def mail(
        self,
        *recipients: str,
        sender: str = "eve@sender.example",
        content: bytes = b"Subject: hi\r\n\r\nhello\r\n",
        parameters: str = "",
    ) -> str:
        """Send one mail after greet(); the reply to the final dot, or the first that refuses the mail. A
        refused recipient is passed over while another is accepted. `content` gets a CR LF at its end where
        it has none."""
        await self.send(f"MAIL FROM:<{sender}>{parameters and ' ' + parameters}\r\n".encode())
        reply = await self.reply()
        if not reply.startswith("2"):
            return reply
        accepted = False
        for recipient in recipients:
            await self.send(f"RCPT TO:<{recipient}>\r\n".encode())
            reply = await self.reply()
            accepted = accepted or reply.startswith("2")
        if not accepted:
            await self.send(b"RSET\r\n")
            await self.reply()
            return reply
        await self.send(b"DATA\r\n")
        reply = await self.reply()
        if not reply.startswith("3"):
            return reply
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        if content and not content.endswith(b"\r\n"):
            stuffed += b"\r\n"
        await self.send((b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n")
        return await self.reply()
