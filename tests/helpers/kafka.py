"""A real Kafka for tests: one broker that all test processes of a run share, or three of one's own to break.

A folder's conftest.py imports the fixtures it wants. `broker` is a bootstrap tuple. `brokers` is a Cluster of
three with kill, freeze, thaw and restart; its tests put everything right again, or the next one starts a new
one.
"""

import asyncio
import fcntl
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.kafka.cluster import Cluster
from libs import topics
from libs.log import kafka_topics
from libs.log.kafka import KafkaLog
from libs.runtime.clock import Clock, SystemClock

START_S = 300.0

_numbers = itertools.count()
_held: list[object] = []  # the lock on the shared broker is given up when this process ends


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[str, ...]:
    """Bootstrap servers of the one broker that every worker of this run shares."""
    return shared(_run(tmp_path_factory, worker_id))


def shared(base: Path) -> tuple[str, ...]:
    """Start the broker of this run under `base`, unless another worker has. It ends when the last user
    does."""
    path = base / "kafka.bootstrap"
    users = path.open("a+", encoding="ascii")
    fcntl.flock(users, fcntl.LOCK_SH)
    _held.append(users)
    with (base / "kafka.lock").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        if not path.read_text("ascii"):
            command = [sys.executable, "-m", "deploy.kafka.run", "--port", "0", "--quick"]
            command += ["--while-locked", str(path)]
            with (base / "kafka.out").open("w") as out:
                process = subprocess.Popen(
                    command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
                )
            _held.append(process)
            deadline = time.monotonic() + START_S
            while not path.read_text("ascii"):
                if time.monotonic() > deadline:
                    raise AssertionError(f"no Kafka: {(base / 'kafka.out').read_text()}")
                time.sleep(0.05)
        return tuple(path.read_text("ascii").split(","))


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Cluster]:
    """Three brokers of this module's own. One module of a run at a time: they need the machine for
    themselves."""
    with (_run(tmp_path_factory, worker_id) / "brokers.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        cluster = Cluster(3, quick=True)
        try:
            asyncio.run(cluster.start())
            yield cluster
        finally:
            cluster.stop()


def _run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The temporary directory that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


def fresh() -> str:
    """A prefix that no other test uses."""
    return f"t{os.getpid()}x{next(_numbers)}."


@asynccontextmanager
async def log_on(
    bootstrap: Sequence[str],
    *,
    prefix: str | None = None,
    partitions: int = 2,
    replication: int = 1,
    only: Sequence[str] = tuple(topics.TOPICS),
    clock: Clock | None = None,
) -> AsyncIterator[KafkaLog]:
    """A started log on topics of its own (or those of `prefix`, which then exist afterwards)."""
    name = fresh() if prefix is None else prefix
    await kafka_topics.apply(
        bootstrap, partitions=partitions, replication=replication, prefix=name, only=only
    )
    log = KafkaLog(
        bootstrap, partitions=partitions, replication=replication, clock=clock or SystemClock(), prefix=name
    )
    await log.start()
    try:
        yield log
    finally:
        await log.close()
