"""Debian's mail programs, fetched with apt and unpacked beside the machine's own: nothing is installed.

    root = unpacked("postfix")       # <root>/usr/sbin/postfix ...; made once, kept in .cache/debian

Debian's mail servers exclude each other, and no test may change the machine that it runs on. So the packages,
with those of their dependencies that the machine lacks, are unpacked into folders of the cache, and
tests/real/room.py runs them there. `python -m tests.real.debian` fetches all of them ahead of the tests.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploy.kafka.jars import cache, locked

# What each test file runs -> the packages it needs.
PROGRAMS = {
    "postfix": ("postfix",),
    "postgrey": ("postgrey",),
    "exim": ("exim4-daemon-light",),
    "opensmtpd": ("opensmtpd",),
    "swaks": ("swaks", "libnet-ssleay-perl"),
    "msmtp": ("msmtp",),
    "spamassassin": ("spamassassin", "libmail-spf-perl"),
    "rspamd": ("rspamd",),
    "sisimai": ("libsisimai-perl",),
}
_TOOLS = ("apt-get", "dpkg-deb", "unshare", "setpriv", "chroot", "mount")
_FETCH_S = 300
_INSTALLS = re.compile(r"^Inst (\S+) ", re.MULTILINE)


class Unfetchable(Exception):  # noqa: N818
    """The packages cannot be had; the message is one sentence that says why."""


def missing() -> str:
    """Why this machine cannot run Debian's programs at all; "" where it can try."""
    if not Path("/etc/debian_version").exists():
        return "this is no Debian"
    if os.geteuid() != 0:
        return "mail servers of Debian are run by root only, in a namespace of their own"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"there is no {' and no '.join(absent)} here" if absent else ""


def unpacked(program: str) -> Path:
    """The folder with the packages of `program`, fetched on the first call. Raises Unfetchable."""
    home = cache() / "debian"
    home.mkdir(exist_ok=True)
    release = Path("/etc/debian_version").read_text("utf-8").strip().replace("/", "-")
    target = home / f"{program}-{release}-{platform.machine()}"
    with locked(home / "fetch.lock"):
        if not target.is_dir():
            _fetch(home, target, PROGRAMS[program])
    return target


def _fetch(home: Path, target: Path, packages: tuple[str, ...]) -> None:
    """Unpack beside `target`, then move: a folder that has its name is whole."""
    problem = ""
    for options in _lists(home):
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            archives, root = Path(scratch) / "archives", Path(scratch) / "root"
            archives.mkdir()
            try:
                _apt(options, "download", *_closure(options, packages), folder=archives)
            except Unfetchable as error:
                problem = str(error)
                continue
            for archive in sorted(archives.glob("*.deb")):
                _run("dpkg-deb", "-x", str(archive), str(root), folder=archives)
            root.rename(target)
            return
    raise Unfetchable(problem)


def _lists(home: Path) -> Iterator[tuple[str, ...]]:
    """Options of apt: first with the machine's lists of packages, then, for they may be old or not there,
    with fresh lists of our own. Those of the machine stay as they are."""
    yield ()
    ours = home / "lists"
    (ours / "partial").mkdir(parents=True, exist_ok=True)
    options = (
        "-o",
        f"Dir::State::Lists={ours}",
        "-o",
        "Dir::Cache::pkgcache=",
        "-o",
        "Dir::Cache::srcpkgcache=",
    )
    _apt(options, "update", folder=home)
    yield options


def _closure(options: tuple[str, ...], packages: tuple[str, ...]) -> list[str]:
    """The packages, and whatever they need that is not installed."""
    said = _apt(options, "-s", "--no-install-recommends", "install", *packages, folder=Path("/"))
    return sorted({*packages, *_INSTALLS.findall(said)})


def _apt(options: tuple[str, ...], *words: str, folder: Path) -> str:
    patience = (
        "-o",
        "Acquire::Retries=0",
        "-o",
        "Acquire::http::Timeout=15",
        "-o",
        "Acquire::https::Timeout=15",
    )
    return _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", *patience, *options, *words, folder=folder)


def _run(*words: str, folder: Path) -> str:
    try:
        done = subprocess.run(
            words, cwd=folder, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_FETCH_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Unfetchable(f"{words[0]} takes over {_FETCH_S} s") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Unfetchable(f"{words[0]} failed: {''.join(last)}")
    return done.stdout


def main() -> None:
    """Fetch everything; say on one line a program what came of it. Never fails: the tests skip then."""
    reason = missing()
    for program in PROGRAMS:
        try:
            print(program, reason or unpacked(program))
        except Unfetchable as error:
            print(program, error)


if __name__ == "__main__":
    sys.exit(main())
