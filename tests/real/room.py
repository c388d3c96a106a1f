"""A room of its own for a Debian mail program: its packages over the machine's /usr, an /etc and a /var of
its own, processes that end with the room. The network is the machine's; what runs here is told loopback only.

    room = Room(tmp_path / "postfix", unpacked("postfix"))
    room.etc, room.var                                  # what the program sees as /etc and /var
    async with room.running("postfix", "start-fg"): ...
    said = await room.run("postqueue", "-p")

Mounts are made in a namespace that only these processes see: the machine has nothing to clean up.
"""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

# As the machine has them; everything else in /etc is the room's own.
_TAKEN = (
    "alternatives", "ca-certificates.conf", "debian_version", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "localtime", "perl", "protocols", "services", "ssl",
)  # fmt: skip
_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

_ENTER = """
set -e
room=$1; unpacked=$2; shift 2
mount -t tmpfs -o mode=755 room "$room/root"
cd "$room/root"
mkdir usr etc var dev proc tmp run root
chmod 1777 tmp
mount -t overlay -o "ro,lowerdir=$unpacked/usr:/usr" overlay usr
for name in LINKED; do
    if [ -L "/$name" ]; then ln -s "$(readlink "/$name")" "$name"
    elif [ -d "/$name" ]; then mkdir "$name"; mount --bind "/$name" "$name"
    fi
done
mount --bind "$room/etc" etc
mount --bind "$room/var" var
mount --rbind /dev dev
mount -t proc proc proc
status=0
chroot . "$@" || status=$?
exit $status
""".replace("LINKED", " ".join(_LINKED))

# The room ends with the process that opened it, however that one ends, and with its first process everything
# in it. The first one is the shell: a server that changes its user would not hear of its parent's death.
_LEASHED = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Said(NamedTuple):
    code: int
    out: str
    err: str


class User(NamedTuple):
    """A user that the room has and the machine need not have; with a group of the same name."""

    name: str
    number: int


class Room:
    """`folder`: made, and the room's; `unpacked`: from tests/real/debian.py."""

    def __init__(self, folder: Path, unpacked: Path, users: Sequence[User] = ()) -> None:
        self.folder, self._unpacked = folder, unpacked
        self.etc, self.var = folder / "etc", folder / "var"
        (folder / "root").mkdir(parents=True)
        for name in ("etc", "var"):
            (folder / name).mkdir(mode=0o755)
            if (unpacked / name).is_dir():
                shutil.copytree(unpacked / name, folder / name, symlinks=True, dirs_exist_ok=True)
        for name in ("spool", "lib", "log"):
            (self.var / name).mkdir(exist_ok=True)
        for name in _TAKEN:
            source = Path("/etc") / name
            if source.is_dir():
                shutil.copytree(source, self.etc / name, symlinks=True, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy2(source, self.etc / name)
        self._people(users)
        (self.etc / "hosts").write_text("127.0.0.1 localhost\n")
        (self.etc / "nsswitch.conf").write_text(
            "passwd: files\ngroup: files\nhosts: files\nservices: files\n"
        )

    def _people(self, users: Sequence[User]) -> None:
        everybody = [User("root", 0), User("mail", 8), User("nobody", 65534), *users]
        passwd = "".join(f"{name}:x:{number}:{number}::/:/bin/sh\n" for name, number in everybody)
        (self.etc / "passwd").write_text(passwd)
        (self.etc / "group").write_text("".join(f"{name}:x:{number}:\n" for name, number in everybody))

    def command(self, *words: str) -> list[str]:
        """What runs `words` in the room."""
        return [*_LEASHED, "sh", "-c", _ENTER, "room", str(self.folder), str(self._unpacked), *words]

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": _PATH, "LC_ALL": "C", "TZ": "UTC"}

    async def run(self, *words: str, given: bytes = b"", within: float = 60.0) -> Said:
        """Run a program of the room to its end."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*words), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env=self._environment,
        )  # fmt: skip
        try:
            async with asyncio.timeout(within):
                out, err = await process.communicate(given)
        except TimeoutError:
            await _end(process)
            raise AssertionError(f"{' '.join(words)} takes over {within:g} s") from None
        return Said(process.returncode or 0, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))

    @asynccontextmanager
    async def running(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A server, from here to the end of the block. What it says on its outputs is in `output`."""
        with self.output.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *self.command(*words), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                env=self._environment,
            )  # fmt: skip
        try:
            yield process
        finally:
            await _end(process)

    @property
    def output(self) -> Path:
        return self.folder / "output"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Return once nothing of the room runs any more. Its first process is killed, and unshare, which waits
    for that one, ends when the kernel has killed all others: whoever only killed unshare would come back too
    early."""
    if process.returncode is None:
        for first in psutil.Process(process.pid).children() or [process]:
            first.kill()
    await process.wait()


def refused() -> str:
    """Why no room can be opened on this machine; "" where one can."""
    with tempfile.TemporaryDirectory() as scratch:
        nothing = Path(scratch) / "nothing"
        (nothing / "usr").mkdir(parents=True)
        room = Room(Path(scratch) / "room", nothing)
        done = subprocess.run(room.command("true"), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    return f"mounts in a namespace of their own are refused: {' '.join(done.stderr.split())}"
