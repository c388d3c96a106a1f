"""A load of mails from a process of its own, so that its cost is not ours.

`python -m bench.load --port N` prints one JSON object: `seconds` for all, and `p50` and `p99` in ms of the
time from the final dot to its 250. `--mode kept`: each connection sends many mails; `new`: one mail a
connection; `tls`: one, after STARTTLS; `resumed`: the same with the TLS session of an earlier connection;
`rcpt`: only RCPT is sent and timed, for a recipient that is new (`{}`) or known, until its reply is at the
client's socket. `--every`: with `rcpt`, seconds between two of a connection; all begin at another time within
them.
"""

import argparse
import asyncio
import json
import socket
import ssl
import time
from typing import Any

from bench.figures import percentiles
from bench.stamped import Stamped
from tests.helpers.mailing import stuffed

_LINE = "Lines of text as a mail has them, each of the same length; %06d.\r\n"


def content(number: int, size: int) -> bytes:
    """About `size` octets of an ordinary mail."""
    head = f"From: Eve <eve@sender.example>\r\nTo: Ann\r\nSubject: Mail {number}\r\n\r\n"
    return (head + "".join(_LINE % line for line in range(size // (len(_LINE) + 2)))).encode()


class Tls(ssl.SSLContext):
    """A client that believes any certificate. With `resumes` it offers the newest session it has had."""

    def __new__(cls, *, resumes: bool) -> "Tls":
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self.check_hostname, self.verify_mode = False, ssl.CERT_NONE
        self.resumes, self.kept = resumes, None
        return self

    resumes: bool
    kept: ssl.SSLSession | None

    def wrap_bio(self, *args: Any, **how: Any) -> ssl.SSLObject:
        if self.resumes and self.kept is not None:
            how["session"] = self.kept
        return super().wrap_bio(*args, **how)


class Session:
    """One SMTP connection; `command` sends and checks the codes of the replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> "Session":
        self = cls(*await asyncio.open_connection("127.0.0.1", port))
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self.expect(220)
        await self.command(b"EHLO client.sender.example\r\n", 250)
        return self

    async def start_tls(self, tls: Tls) -> None:
        """STARTTLS, and EHLO again."""
        await self.command(b"STARTTLS\r\n", 220)
        await self.writer.start_tls(tls)
        await self.command(b"EHLO client.sender.example\r\n", 250)
        over = self.writer.get_extra_info("ssl_object")
        if tls.kept is not None and tls.resumes and not over.session_reused:
            raise SystemExit("the TLS session was not resumed")
        tls.kept = over.session  # TLS 1.3 sends it with the first octets after the handshake

    async def expect(self, code: int) -> None:
        while True:
            line = await self.reader.readline()
            if line[3:4] != b"-":
                break
        if not line.startswith(str(code).encode()):
            raise SystemExit(f"unexpected reply: {line.decode(errors='replace').strip()}")

    async def command(self, octets: bytes, *codes: int) -> None:
        self.writer.write(octets)
        for code in codes:
            await self.expect(code)

    async def mail(self, data: bytes, recipient: str) -> float:
        """One pipelined transaction; returns the seconds from the final dot to its 250."""
        await self.command(
            f"MAIL FROM:<eve@sender.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode(), 250, 250, 354
        )
        started = time.perf_counter()
        await self.command(data, 250)
        return time.perf_counter() - started

    async def close(self) -> None:
        await self.command(b"QUIT\r\n", 221)
        self.writer.close()
        await self.writer.wait_closed()


async def asked(options: argparse.Namespace) -> dict[str, float]:
    """RCPT alone, each in a transaction that is reset. The first comes when all sessions are there: answers
    are timed, and not what it costs to come in."""
    numbers = iter(range(options.count))
    took: list[float] = []
    everybody = asyncio.Barrier(options.connections)

    async def work(begin_s: float) -> None:
        session = await Stamped.open(options.port)
        await everybody.wait()
        await asyncio.sleep(begin_s)
        for number in numbers:
            await session.command(b"MAIL FROM:<eve@sender.example>\r\n", 250)
            recipient = options.recipient.format(number)
            took.append(await session.command(f"RCPT TO:<{recipient}>\r\n".encode(), 250))
            await session.command(b"RSET\r\n", 250)
            if options.every:
                await asyncio.sleep(options.every)
        session.close()

    started = time.perf_counter()
    await asyncio.gather(
        *(work(options.every * each / options.connections) for each in range(options.connections))
    )
    return {"seconds": time.perf_counter() - started, **percentiles(took)}


async def load(options: argparse.Namespace) -> dict[str, float]:
    data = [stuffed(content(number, options.size)) for number in range(min(50, options.count))]
    numbers = iter(range(options.count))
    took: list[float] = []
    tls = Tls(resumes=options.mode == "resumed") if options.mode in ("tls", "resumed") else None

    async def work() -> None:
        session = None
        for number in numbers:
            if session is None:
                session = await Session.open(options.port)
                if tls is not None:
                    await session.start_tls(tls)
            took.append(await session.mail(data[number % len(data)], options.recipient.format(number)))
            if options.mode in ("new", "tls", "resumed"):
                await session.close()
                session = None
        if session is not None:
            await session.close()

    if tls is not None and tls.resumes:
        first = await Session.open(options.port)
        await first.start_tls(tls)
        await first.close()
    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(options.connections)))
    return {"seconds": time.perf_counter() - started, **percentiles(took)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--size", type=int, default=10_240)
    parser.add_argument("--mode", choices=("kept", "new", "tls", "resumed", "rcpt"), default="kept")
    parser.add_argument("--every", type=float, default=0.0)
    parser.add_argument("--recipient", default="ann@office.example", help="{} becomes the number of the mail")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(asked(options) if options.mode == "rcpt" else load(options))))


if __name__ == "__main__":
    main()
