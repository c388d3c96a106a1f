"""The command `backupmx` in real processes without what its imports cost each time: a nursery has done them.

    child = await begin(["queue", "list"], environment, cwd)
    out, err = await child.communicate()

One nursery for each process of tests, begun when it is first needed; it ends with its tests, and its children
end with it, however that happens. A child is a process of its own: forked, with its own environment, session
and standard streams, before anything of backupmx has run.
"""

import asyncio
import atexit
import ctypes
import functools
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

ROOT = Path(__file__).parent.parent.parent
_NURSERY = """
import services.process, services.control.service, services.ingest.service
import services.verify.service, services.deliver.service, services.control.caller
import anyio._backends._asyncio, httpcore  # what httpx imports late
from services.main import main
from tests.helpers.forked import serve
exec(serve())  # returns in a child
main()
"""
_MOST = 2**17  # octets of one order
_CODE = struct.Struct("i")


class _Order(NamedTuple):
    """What a child is to be: `first` is Python that it runs before the command."""

    words: Sequence[str]
    environment: Mapping[str, str]
    cwd: str
    first: str


# --- in the tests ---


class Child:
    """A process; as asyncio's."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._out: asyncio.StreamReader | None = None
        self._err: asyncio.StreamReader | None = None
        self._ended = asyncio.get_running_loop().create_task(self._follow(status))

    async def _follow(self, status: int) -> None:
        told = await (await _reader(status)).read()
        self.returncode = os.waitstatus_to_exitcode(_CODE.unpack(told)[0])

    async def wait(self) -> int:
        await asyncio.shield(self._ended)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def communicate(self) -> tuple[bytes, bytes]:
        """What it writes to its end, to those of its streams that were not given."""
        streams = (each.read() for each in (self._out, self._err) if each is not None)
        told = iter(await asyncio.gather(*streams))
        out = b"" if self._out is None else next(told)
        err = b"" if self._err is None else next(told)
        await self.wait()
        return out, err

    async def listen(self, out: int | None, err: int | None) -> None:
        """Read these pipes."""
        self._out = None if out is None else await _reader(out)
        self._err = None if err is None else await _reader(err)


async def begin(
    words: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    *,
    out: BinaryIO | int | None = None,
    err: BinaryIO | int | None = None,
    first: str = "",
) -> Child:
    """Start `backupmx WORDS`. `out`, `err`: where its standard streams go; None: to `communicate`."""
    status, theirs = os.pipe()
    pipes = [os.pipe() if each is None else None for each in (out, err)]
    given = [pipe[1] if pipe else _number(each) for pipe, each in zip(pipes, (out, err), strict=True)]
    order = _Order(words, environment, str(cwd), first)
    pid = _nursery().bear(order, [*given, theirs])
    for number in (theirs, *(pipe[1] for pipe in pipes if pipe)):
        os.close(number)
    child = Child(pid, status)
    await child.listen(*(pipe[0] if pipe else None for pipe in pipes))
    return child


def _number(stream: BinaryIO | int | None) -> int:
    assert stream is not None
    return stream if isinstance(stream, int) else stream.fileno()


async def _reader(pipe: int) -> asyncio.StreamReader:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb"))
    return reader


class _Nursery:
    """The tests' end of it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY, str(os.getpid()), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            start_new_session=True,
        )
        theirs.close()

    def close(self) -> None:
        """It ends when its socket does."""
        self._socket.close()
        self._process.wait()

    def bear(self, order: _Order, streams: Sequence[int]) -> int:
        """Returns the pid."""
        socket.send_fds(self._socket, [json.dumps(order).encode()], streams)
        told = self._socket.recv(64)
        assert told, "the nursery is gone"
        return int(told)


@functools.cache
def _nursery() -> _Nursery:
    nursery = _Nursery()
    atexit.register(nursery.close)
    return nursery


# --- in the nursery ---


def serve() -> str:
    """Bear children as ordered; ends with the tests. Returns in each child, set up as ordered: what it runs
    first."""
    _end_with(int(sys.argv[1]))
    orders = socket.socket(fileno=int(sys.argv[2]))
    ended, wake = socket.socketpair()
    for each in (ended, wake):
        each.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watch = selectors.DefaultSelector()
    watch.register(orders, selectors.EVENT_READ)
    watch.register(ended, selectors.EVENT_READ)
    children: dict[int, int] = {}  # pid -> where its end is told
    nursery = os.getpid()
    while True:
        ready = {key.fileobj for key, _ in watch.select()}
        if ended in ready:
            ended.recv(4096)
            _tell_ended(children)
        if orders not in ready:
            continue
        octets, streams, _, _ = socket.recv_fds(orders, _MOST, 3)
        if not octets:
            sys.exit()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            watch.close()
            for each in (orders, ended, wake):
                each.close()
            for number in (*children.values(), streams[2]):
                os.close(number)
            return _become(_Order(*json.loads(octets)), streams[0], streams[1], nursery)
        children[pid] = streams[2]
        for number in streams[:2]:
            os.close(number)
        orders.send(str(pid).encode())


def _tell_ended(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with os.fdopen(children.pop(pid), "wb") as tell:
            tell.write(_CODE.pack(status))


def _become(order: _Order, out: int, err: int, nursery: int) -> str:
    _end_with(nursery)
    os.setsid()
    for number, stream in ((1, out), (2, err)):
        os.dup2(stream, number)
        os.close(stream)
    # New objects: the old ones remember whether theirs was a file or a terminal.
    sys.stdout = _stream(1, "strict", buffering=-1)
    sys.stderr = _stream(2, "backslashreplace", buffering=1)
    os.chdir(order.cwd)
    os.environ.clear()
    os.environ.update(order.environment)
    # As on a terminal: what a script runs with `&` ignores Ctrl-C, and so does all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["backupmx", *order.words]
    return order.first


def _stream(number: int, errors: str, *, buffering: int) -> TextIO:
    return open(number, "w", buffering, "utf-8", errors, closefd=False)


def _end_with(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the test is gone")
