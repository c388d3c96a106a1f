"""`make kafka`: a real Kafka in the foreground that leaves nothing behind, from jars that are the locked
ones."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from deploy.kafka import jars
from deploy.kafka.cluster import Cluster, free_ports

ROOT = Path(__file__).parents[2]


def wait_for(condition: Callable[[], bool], within: float = 90.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def running(
    directory: Path, *options: str
) -> Iterator[tuple["subprocess.Popen[bytes]", list[psutil.Process]]]:
    """The command, ready, and its brokers."""
    out = directory / "out"
    command = [sys.executable, "-m", "deploy.kafka.run", "--quick", *options]
    with out.open("w") as handle:
        process = subprocess.Popen(command, cwd=ROOT, stdout=handle, stderr=handle)
    try:
        wait_for(lambda: "bootstrap" in out.read_text() or process.poll() is not None)
        assert out.read_text().startswith("bootstrap 127.0.0.1:"), out.read_text()
        yield process, psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()


def gone(brokers: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in brokers)


def test_sigterm_ends_it_and_it_starts_again_on_its_data(tmp_path: Path) -> None:
    """SIGTERM ends the broker and the command with code 0; the same directory and port serve the next
    start."""
    port = str(free_ports(1)[0])
    for _ in range(2):
        with running(tmp_path, "--port", port, "--dir", str(tmp_path / "data")) as (process, brokers):
            assert len(brokers) == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert gone(brokers)
        assert (tmp_path / "data" / "broker-0" / "data" / "meta.properties").is_file()


def test_brokers_die_with_a_killed_command(tmp_path: Path) -> None:
    """kill -9 of the command takes its broker with it."""
    with running(tmp_path, "--port", "0", "--dir", str(tmp_path / "data")) as (process, brokers):
        assert len(brokers) == 1
        process.kill()
        process.wait()
        wait_for(lambda: gone(brokers))


def test_it_ends_with_its_last_user(tmp_path: Path) -> None:
    """Started for others (--while-locked) it ends when nobody holds a lock on the file any more."""
    import fcntl

    path = tmp_path / "users"
    with path.open("a+") as user:
        fcntl.flock(user, fcntl.LOCK_SH)
        with running(tmp_path, "--port", "0", "--while-locked", str(path)) as (process, brokers):
            assert path.read_text().startswith("127.0.0.1:")
            user.close()
            assert process.wait(60) == 0
            assert gone(brokers)
            assert path.read_text() == ""


def test_a_broker_that_dies_ends_the_command(tmp_path: Path) -> None:
    """When a broker ends by itself the command says so and ends with code 1."""
    with running(tmp_path, "--port", "0") as (process, brokers):
        brokers[0].kill()
        assert process.wait(60) == 1
    assert "broker 0 ended by itself" in (tmp_path / "out").read_text()


def test_a_cluster_is_one_broker_or_three() -> None:
    """Two brokers would stop when one is lost."""
    with pytest.raises(jars.Unusable):
        Cluster(2)


def test_only_the_locked_jars_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jar in the cache that differs from its SHA-256 in the lock file is thrown away and fetched again, and
    what cannot be fetched as locked is refused."""
    kept = Path(jars.class_path()).parent
    monkeypatch.setattr(jars, "cache", lambda: tmp_path)
    copy = tmp_path / kept.name
    shutil.copytree(kept, copy, ignore=shutil.ignore_patterns("*.aot"))
    assert jars.class_path() == f"{copy}/*"
    with (copy / "kafka-clients-4.3.1.jar").open("ab") as jar:
        jar.write(b"!")
    fetched: list[Path] = []

    def resolve(root: Path, target: Path, expected: object) -> None:
        fetched.append(target)
        raise jars.Unusable("no network here")

    monkeypatch.setattr(jars, "_resolve", resolve)
    with pytest.raises(jars.Unusable):
        jars.class_path()
    assert fetched == [copy]
    assert not copy.exists()
