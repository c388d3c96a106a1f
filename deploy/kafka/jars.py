"""The jars of Apache Kafka: resolved once by jgo, checked against the lock file at each start, cached.

`.cache/` of the tree is used where it can be written, else `$XDG_CACHE_HOME/backupmx` (~/.cache/backupmx).
Any number of processes may start at once: one resolves, the others wait for it.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
RESOLVE_S = 600.0


class Unusable(Exception):  # noqa: N818 it reads as a sentence
    """Kafka cannot be started; the message is one sentence for the person who asked for it."""


def cache() -> Path:
    """The directory that keeps what is downloaded."""
    tree = HERE.parents[1] / ".cache"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "backupmx"
    for candidate in (tree, home):
        try:
            candidate.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(candidate, os.W_OK):
            return candidate
    raise Unusable(f"neither {tree} nor {home} can be written")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`; it is released when the process ends, however it ends."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _expected() -> Mapping[str, str]:
    """File name -> SHA-256 of every jar in the lock file."""
    lock = tomllib.loads((HERE / "jgo.lock.toml").read_text("utf-8"))
    return {f"{jar['artifactId']}-{jar['version']}.jar": jar["sha256"] for jar in lock["dependencies"]}


def _differences(directory: Path, expected: Mapping[str, str]) -> list[str]:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("*.jar")}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def class_path() -> str:
    """The class path of Kafka, every jar on it checked. Raises Unusable."""
    expected = _expected()
    version = hashlib.sha256("\n".join(sorted(expected.values())).encode()).hexdigest()[:16]
    root = cache()
    target = root / f"kafka-{version}"
    with locked(root / "kafka.lock"):
        if target.is_dir() and _differences(target, expected):
            shutil.rmtree(target)
        if not target.is_dir():
            _resolve(root, target, expected)
    return f"{target}{os.sep}*"


def _resolve(root: Path, target: Path, expected: Mapping[str, str]) -> None:
    """Let jgo fetch into a directory beside `target`; move it there once every jar is the expected one."""
    with tempfile.TemporaryDirectory(dir=root, prefix="resolving-") as name:
        work = Path(name)
        shutil.copy(HERE / "jgo.toml", work)
        command = [sys.executable, "-m", "jgo", "--quiet", "--resolver", "python", "--class-path-only"]
        command += [
            "--timeout",
            "60",
            "--repo-cache",
            f"{work}/repository",
            "--cache-dir",
            f"{work}/environment",
        ]
        try:
            done = subprocess.run(
                [*command, "sync"], cwd=work, capture_output=True, text=True, timeout=RESOLVE_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Unusable(f"jgo did not resolve Kafka's jars within {RESOLVE_S:.0f} s") from error
        if done.returncode:
            raise Unusable(
                f"jgo could not resolve Kafka's jars: {(done.stderr or done.stdout).strip()[-500:]}"
            )
        collected = work / "jars"
        collected.mkdir()
        for path in work.glob("environment/*/*.jar"):
            path.rename(collected / path.name)
        if wrong := _differences(collected, expected):
            raise Unusable(f"these jars are missing or differ from jgo.lock.toml: {', '.join(wrong)}")
        collected.rename(target)
