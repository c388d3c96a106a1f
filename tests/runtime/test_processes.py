"""Several processes: what the configuration may say; who is started again, killed, asked."""

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from libs.runtime.clock import SystemClock
from libs.runtime.health import health
from libs.runtime.metrics import PARENT, Metrics
from libs.runtime.processes import PAUSE_S, STUCK_S, Child, Children
from libs.runtime.run import CannotStart, Life
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.running import Running

SPAWN = multiprocessing.get_context("spawn")


def serve(path: str) -> None:
    """A process that has health pages, and one session counted; SIGTERM ends it with 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    metrics, life, pages = Metrics(), Life("ingest", SystemClock()), Life("health", SystemClock())
    metrics.sessions.inc()
    life.ready()
    asyncio.run(health(Path(path), [life], metrics, pages))


def leave(path: str) -> None:
    """A process that cannot start."""
    sys.exit(1)


class Parent:
    """`children` run; `started`: every process that was."""

    def __init__(self, folder: Path, clock: Clock, target: Callable[[str], None] = serve) -> None:
        self.started: list[BaseProcess] = []
        self.metrics, self.life = Metrics((PARENT,)), Life("ingest", clock)
        self._folder, self._target = folder, target
        paths = [folder / f"{number}.sock" for number in range(2)]
        kept = [Child(number, self._start, path, clock) for number, path in enumerate(paths)]
        self.children = Children(kept, self.metrics)

    def _start(self, number: int) -> BaseProcess:
        process = SPAWN.Process(
            target=self._target, args=(str(self._folder / f"{number}.sock"),), daemon=True
        )
        process.start()
        self.started.append(process)
        return process

    async def page(self) -> str:
        return generate_latest(await self.children.collected()).decode()


@asynccontextmanager
async def family(folder: Path, clock: Clock) -> AsyncIterator[Parent]:
    """Two processes, ready; told to drain at the end."""
    parent = Parent(folder, clock)
    running = asyncio.create_task(parent.children.run(parent.life))
    try:
        await until(lambda: parent.metrics.processes_ready._value.get() == 2)
        yield parent
        parent.life.must_drain.set()
        async with asyncio.timeout(PATIENCE_S):
            await running
        assert [process.exitcode for process in parent.started[-2:]] == [0, 0]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_one_page_for_all(tmp_path: Path) -> None:
    """Each series says of which process it is; families stand together; the parent's own have no label."""
    async with family(tmp_path, Clock()) as parent:
        text = await parent.page()
        assert text.count("# TYPE backupmx_sessions_total counter") == 1
        assert 'backupmx_sessions_total{process="0"} 1.0' in text
        assert 'backupmx_sessions_total{process="1"} 1.0' in text
        assert "backupmx_processes_ready 2.0" in text


async def test_a_process_that_is_stuck(tmp_path: Path) -> None:
    """A process that answers nothing for a minute is killed, and another takes its place; meanwhile the other
    one serves, and the page has what it says."""
    clock = Clock()
    async with family(tmp_path, clock) as parent:
        [stuck, _] = parent.started
        assert stuck.pid is not None
        os.kill(stuck.pid, signal.SIGSTOP)
        ready = parent.metrics.processes_ready._value
        await until(lambda: ready.get() == 1)
        assert parent.children.ready()
        assert 'backupmx_sessions_total{process="1"} 1.0' in await parent.page()
        clock.advance(STUCK_S + 1)
        await until(lambda: len(parent.started) == 3)
        await until(lambda: ready.get() == 2)
        assert parent.metrics.process_deaths._value.get() == 1


async def test_none_was_ever_ready(tmp_path: Path) -> None:
    """A process that ends before any was ready would do so again: the parent ends, with a sentence."""
    parent = Parent(tmp_path, Clock(), leave)
    with pytest.raises(CannotStart, match=r"^process [01] ended with 1 before any was ready$"):
        async with asyncio.timeout(PATIENCE_S):
            await parent.children.run(parent.life)


def test_who_dies_young_waits_longer(tmp_path: Path) -> None:
    """The pause before the next start doubles, up to half a minute, and begins anew after a good life."""
    clock = Clock()
    child = Child(0, lambda _: SPAWN.Process(target=leave), tmp_path / "0.sock", clock)
    with capture_logs():
        child.start()
    assert [child.pause() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    clock.advance(61)
    assert [child.pause(), child.pause()] == [30, PAUSE_S]


@pytest.mark.parametrize(
    ("command", "settings", "sentence"),
    [
        ("solo", {}, "smtp.processes: several processes need log.kind 'kafka'"),
        (
            "ingest",
            {"smtp__listen": '["127.0.0.1:0"]', "log__kind": "kafka", "log__bootstrap": '["127.0.0.1:9"]'},
            "smtp.processes: several processes cannot share port 0",
        ),
        (
            "solo",
            {"log__kind": "kafka", "log__bootstrap": '["127.0.0.1:9"]'},
            "smtp.processes: all services in one process are one process; `backupmx ingest` can be several",
        ),
    ],
)
async def test_what_cannot_be_several(
    tmp_path: Path, command: str, settings: dict[str, str], sentence: str
) -> None:
    """One clear sentence, exit code 2."""
    running = Running(tmp_path, dns=[("127.0.0.1", 53)], dial_port=25, smtp__processes="2", **settings)
    try:
        said = await running.ask(command)
    finally:
        await running.close()
    assert said.code == 2
    assert said.err.startswith("backupmx: ")
    assert said.err.endswith(f"{sentence}\n")
