"""A crowd of senders that behave as real ones, and the checker that counts what was lost.

Each mail has a token of its own and a content that follows from the token alone. A sender keeps trying on a
lost connection and on 4yz, as real ones do; every 250 and every 5yz after a final dot is written down. What
the primary received is then compared octet by octet.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from tests.helpers.patience import PATIENCE_S


def content(token: str, size: int = 2000) -> bytes:
    """The content of the mail `token`: CR LF line ends, dots at line starts, octets over 127."""
    lines = [
        b"From: Eve <eve@sender.example>",
        b"Subject: " + token.encode(),
        b"X-SHA256: " + sha256(token.encode()).hexdigest().encode(),
        b"",
        b"..two dots, \xe4\xf6\xfc",
        b".",
    ]
    filler = random.Random(token)  # the same for the same token
    room = max(0, size - sum(len(line) + 2 for line in lines))
    while room > 0:
        line = f".{filler.getrandbits(256):064x}".encode()[: max(1, room - 2)]
        lines.append(line)
        room -= len(line) + 2
    return b"\r\n".join(lines) + b"\r\n"


def stuffed(data: bytes) -> bytes:
    """As sent after 354, the final dot included (RFC 5321 section 4.5.2)."""
    data = data.replace(b"\r\n.", b"\r\n..")
    return (b"." + data if data.startswith(b".") else data) + b".\r\n"


class Lost(Exception):  # noqa: N818
    """The connection ended or said 4yz: try again."""


class Sender:
    """One kept connection that sends mails one after the other; opened again whenever it is lost."""

    def __init__(self, ports: Callable[[], Sequence[int]], sent: "Mailing") -> None:
        self._ports, self._sent = ports, sent
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def _connect(self) -> None:
        for port in self._ports():
            try:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            await self._expect(220)
            await self._say(b"EHLO client.sender.example\r\n", 250)
            return
        raise Lost("nobody listens")

    async def _expect(self, *codes: int) -> int:
        assert self._reader
        line = b""
        while len(line) < 4 or line[3:4] == b"-":
            line = await asyncio.wait_for(self._reader.readline(), PATIENCE_S)
            if not line.endswith(b"\n"):
                raise Lost("connection ended")
        code = int(line[:3])
        if code not in codes:
            if code >= 500:
                self._sent.refused.append(line.decode(errors="replace").strip())
            self._sent.replies[line[:3].decode()] += 1
            raise Lost(line.decode(errors="replace"))
        return code

    async def _say(self, octets: bytes, *codes: int) -> int:
        assert self._writer
        self._writer.write(octets)
        await self._writer.drain()
        return await self._expect(*codes)

    async def deliver(self, token: str, recipient: str) -> None:
        """One transaction. Raises Lost; the token is `unsure` when the final dot had been sent."""
        try:
            if self._writer is None:
                await self._connect()
            await self._say(b"MAIL FROM:<eve@sender.example>\r\n", 250)
            await self._say(f"RCPT TO:<{recipient}>\r\n".encode(), 250)
            await self._say(b"DATA\r\n", 354)
            self._sent.unsure.add(token)
            await self._say(stuffed(content(token, self._sent.size)), 250)
            self._sent.unsure.discard(token)
            self._sent.accepted.add(token)
        except (OSError, TimeoutError, Lost):
            await self.close()
            raise

    async def close(self) -> None:
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.close()
            try:
                await writer.wait_closed()
            except OSError:
                return  # it was lost already


class Mailing:
    """`send` many mails at once. `accepted`: got 250; `unsure`: the connection was lost after the dot once
    or more and no 250 came; `refused`: 5yz replies; `replies`: other unexpected codes, counted."""

    def __init__(
        self, ports: Callable[[], Sequence[int]], recipients: Sequence[str], size: int = 2000
    ) -> None:
        self.ports, self.recipients, self.size = ports, recipients, size
        self.accepted: set[str] = set()
        self.unsure: set[str] = set()
        self.refused: list[str] = []
        self.replies: Counter[str] = Counter()
        self.retries = 0

    async def send(self, tokens: Iterable[str], *, senders: int, within: float) -> None:
        """Every token gets its 250, or TimeoutError after `within` seconds. `tokens` is read as they go."""
        waiting = iter(tokens)

        async def work() -> None:
            sender = Sender(self.ports, self)
            try:
                for token in waiting:
                    recipient = self.recipients[hash(token) % len(self.recipients)]
                    while token not in self.accepted:
                        try:
                            await sender.deliver(token, recipient)
                        except (OSError, TimeoutError, Lost):
                            self.retries += 1
                            await asyncio.sleep(0.2)  # a sender's pause before it tries again
            finally:
                await sender.close()

        async with asyncio.timeout(within):
            await asyncio.gather(*(work() for _ in range(senders)))


class Found(NamedTuple):
    """What the checker says: tokens lost, altered; how many came more than once; how many were received."""

    lost: list[str]
    altered: list[str]
    duplicates: int
    received: int


def check(mailing: Mailing, received: Iterable[bytes]) -> Found:
    """Compare what got 250 with what the primary received (contents with our fields on top)."""
    count: Counter[str] = Counter()
    altered = []
    for data in received:
        token = data.partition(b"\nSubject: ")[2].partition(b"\r\n")[0].decode()
        count[token] += 1
        if not data.endswith(b"\r\n" + content(token, mailing.size)):
            altered.append(token)
    lost = sorted(token for token in mailing.accepted if not count[token])
    return Found(lost, altered, sum(count.values()) - len(count), len(count))
