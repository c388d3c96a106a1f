"""However much is sent, however slowly it is taken: the process stays small, and the sender waits."""

import asyncio
import socket
from collections import Counter
from pathlib import Path

import pytest

from deploy.kafka.cluster import Cluster
from tests.helpers.client import Client
from tests.helpers.running import Running
from tests.path.storm import place

ANN = "ann@office.example"
MIB = 2**20
LINE = b"x" * 70 + b"\r\n"
BLOCK = LINE * 900


class Memory:
    """Of a process, from now on: what it has, and the most that it ever had (proc(5): VmRSS, VmHWM)."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        (self._process / "clear_refs").write_text("5", "ascii")  # the peak begins again
        self.idle = self._field("VmRSS")

    @property
    def grown(self) -> int:
        """Octets, at the worst moment so far."""
        return self._field("VmHWM") - self.idle

    def _field(self, name: str) -> int:
        status = (self._process / "status").read_text("ascii")
        return int(status.partition(f"{name}:")[2].split()[0]) * 1024


async def in_data(port: int) -> Client:
    """A client that has been told 354."""
    client = Client(port)
    await client.__aenter__()
    await client.greet()
    await client.data(ANN)
    return client


async def sends(port: int, blocks: list[bytes]) -> str:
    """One content to its end; the reply."""
    client = await in_data(port)
    try:
        for block in blocks:
            await client.send(block)
        await client.send(b".\r\n")
        return await client.reply(within=600)
    finally:
        await client.close()


async def warm(backup: Running) -> Memory:
    """After a mail everything is loaded that a mail needs."""
    assert (await sends(backup.smtp_port, [LINE * 100_000])).startswith("250 ")
    return Memory(backup.pid(backup.names[0]))


async def test_odd_contents(tmp_path: Path) -> None:
    """One endless line, a million empty lines, and a drip feed, many at once."""
    async with place(tmp_path) as at:
        await at.office.down()
        port = at.backup.smtp_port
        memory = await warm(at.backup)
        endless = [b"x" * MIB] * 100 + [b"\r\n"]
        drops = [octets for _ in range(2000) for octets in (b"a", b"\r\n")]
        said = await asyncio.gather(
            *(sends(port, endless) for _ in range(3)),
            *(sends(port, [b"\r\n" * 1_000_000]) for _ in range(5)),
            *(sends(port, drops) for _ in range(50)),
        )
        assert [line[:9] for line in said] == ["552 5.3.4"] * 3 + ["250 2.0.0"] * 55
        assert memory.grown < 300 * MIB


# So many mails at once, and the octets of each: 10.5 GB come in, and what is held does not grow with it.
MAILS, SIZE = 200, 50 * MIB


@pytest.mark.long
@pytest.mark.timeout(2400)
async def test_large_mails_at_once(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """Rule 13: ingest takes 300 MiB over what it has when idle, whatever comes in."""
    async with place(tmp_path, kafka=broker, timing__acknowledgement_s="120") as at:
        await at.office.down()
        memory = await warm(at.backup)
        said = await at_once(at.backup.smtp_port)
        print(f"ingest has grown by {memory.grown / MIB:.0f} MiB; {said}")
        assert set(said) <= {"250 2.0.0", "451 4.3.0"}
        assert memory.grown < 300 * MIB


@pytest.mark.long
@pytest.mark.timeout(2400)
async def test_large_mails_at_once_in_one_process(tmp_path: Path) -> None:
    """Solo has one budget of 256 MiB, which ingest, verify and the embedded log share."""
    async with place(tmp_path) as at:
        await at.office.down()
        memory = await warm(at.backup)
        said = await at_once(at.backup.smtp_port)
        print(f"solo has grown by {memory.grown / MIB:.0f} MiB; {said}")
        assert set(said) == {"250 2.0.0"}
        assert memory.grown < 300 * MIB


async def at_once(port: int) -> Counter[str]:
    """Send them; the codes of the replies."""
    block = LINE * (MIB // len(LINE))
    blocks = [block] * (SIZE // len(block))
    return Counter([line[:9] for line in await asyncio.gather(*(sends(port, blocks) for _ in range(MAILS)))])


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("brokers")
async def test_brokers_frozen_and_a_thousand_in_data(tmp_path: Path, brokers: Cluster) -> None:
    """Rule 13: with the log away the budget of memory is spent, then no socket is read, and each sender's own
    send() blocks. The process has 600 MB at most. When the log is back all is answered, with 4yz or 250."""
    async with place(tmp_path, kafka=brokers.bootstrap, replication=3, timing__acknowledgement_s="120") as at:
        memory = await warm(at.backup)
        senders = [Sender() for _ in range(1000)]
        try:
            for sender in senders:
                await sender.open(at.backup.smtp_port)
            for number in range(3):
                brokers.freeze(number)
            try:
                await asyncio.gather(*(sender.push(8 * MIB) for sender in senders))
                sent = [sender.sent for sender in senders]
                print(
                    f"{memory.grown / MIB:.0f} MiB more, {sum(sent) / MIB:.0f} MiB sent, {max(sent)} by one"
                )
                assert max(sent) < 8 * MIB, "a sender was never stopped"
                assert memory.idle + memory.grown < 600_000_000
            finally:
                for number in range(3):
                    brokers.thaw(number)
            said = await asyncio.gather(*(sender.finish() for sender in senders))
            assert {line[:3] for line in said} <= {b"250", b"451"}
            assert memory.idle + memory.grown < 1_000_000_000
        finally:
            for sender in senders:
                sender.close()
        assert await at.backup.metric("ingest", "backupmx_session_errors_total") == 0


class Sender:
    """A socket with little room of its own. `sent`: octets of content that it took."""

    def __init__(self) -> None:
        self.sent = 0
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        self._socket.setblocking(False)
        self._read = b""

    async def open(self, port: int) -> None:
        """To the 354."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, ("127.0.0.1", port))
        assert (await self.line()).startswith(b"220")
        for command in ("HELO x", "MAIL FROM:<a@b.example>", f"RCPT TO:<{ANN}>", "DATA"):
            await loop.sock_sendall(self._socket, f"{command}\r\n".encode())
            assert (await self.line())[:1] in b"23"

    async def push(self, most: int) -> None:
        """Send until `most` octets are gone, or the socket has taken nothing for some seconds."""
        while self.sent < most:
            try:
                self.sent += self._socket.send(BLOCK[self.sent % len(LINE) :])
            except BlockingIOError:
                try:
                    async with asyncio.timeout(10):
                        await self._room()
                except TimeoutError:
                    return

    async def finish(self) -> bytes:
        """The line and the content; the reply."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, LINE[self.sent % len(LINE) :] + b".\r\n")
        return await self.line()

    async def line(self) -> bytes:
        while b"\n" not in self._read:
            octets = await asyncio.get_running_loop().sock_recv(self._socket, 1000)
            assert octets, "the connection has ended"
            self._read += octets
        line, _, self._read = self._read.partition(b"\n")
        return line

    def close(self) -> None:
        self._socket.close()

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        room = loop.create_future()
        loop.add_writer(self._socket, lambda: room.done() or room.set_result(None))
        try:
            await room
        finally:
            loop.remove_writer(self._socket)
