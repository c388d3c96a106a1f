"""The least mail server that can take mail: `python -m bench.sink`, a process of its own, for figures.

It says 250 to everything but a probe for servers that do, keeps nothing and judges nothing, so that it is
seldom what is measured. `--delay`: seconds before each reply or group of pipelined replies. Each line on
standard input is answered with a JSON object: `mails` taken, when the `first` and the `last` was (monotonic
clock of this machine), `waits`: groups of replies so far, `most`: connections at a time, `cpu_s`.
"""

import argparse
import asyncio
import json
import sys
import time
from typing import cast

import uvloop

_HELLO = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 104857600\r\n"
_REPLIES = {b"EHLO": _HELLO, b"DATA": b"354 go on\r\n", b"QUIT": b"221 2.0.0 bye\r\n"}
_END = b"\r\n.\r\n"
_PROBE, _NO_USER = b"RCPT TO:<no-such-user-", b"550 5.1.1 no such user\r\n"  # or callouts would be skipped


class Counts:
    """Over all connections."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.mails = self.waits = self.open = self.most = 0
        self.first = self.last = 0.0

    def taken(self) -> None:
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.mails += 1

    def opened(self) -> None:
        self.open += 1
        self.most = max(self.most, self.open)

    def line(self) -> str:
        return json.dumps(
            {
                "mails": self.mails,
                "first": self.first,
                "last": self.last,
                "waits": self.waits,
                "most": self.most,
                "cpu_s": time.process_time(),
            }
        )


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._buffer = bytearray()
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._counts.opened()
        self._say(b"220 sink ESMTP\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        self._counts.open -= 1

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        replies = b""
        while True:
            if self._in_data:
                # An empty content is the dot alone; the mails of a bench have header fields.
                end = buffer.find(_END, max(0, len(buffer) - len(data) - len(_END)))
                if end < 0:
                    break
                del buffer[: end + len(_END)]
                self._in_data = False
                self._counts.taken()
                replies += b"250 2.0.0 taken\r\n"
                continue
            end = buffer.find(b"\r\n")
            if end < 0:
                break
            verb, probe = bytes(buffer[:4]).upper(), buffer.startswith(_PROBE)
            del buffer[: end + 2]
            replies += _NO_USER if probe else _REPLIES.get(verb, b"250 2.0.0 ok\r\n")
            self._in_data = verb == b"DATA"
        if replies:
            self._say(replies)

    def _say(self, replies: bytes) -> None:
        self._counts.waits += 1
        if self._counts.delay_s:
            asyncio.get_running_loop().call_later(self._counts.delay_s, self._transport.write, replies)
        else:
            self._transport.write(replies)


async def serve(options: argparse.Namespace) -> None:
    counts = Counts(options.delay)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Session(counts), options.address, options.port, reuse_address=True, backlog=1000
    )
    ended = asyncio.Event()

    def asked() -> None:
        if sys.stdin.readline():
            print(counts.line(), flush=True)
        else:
            ended.set()

    loop.add_reader(sys.stdin, asked)
    print(counts.line(), flush=True)  # it listens
    async with server:
        await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
