"""Large messages are worked on in processes of their own, each job with a time limit."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_SLACK_S = 5.0  # for the way there and back, beyond the limit that a job sets itself


class Overrun(Exception):  # noqa: N818
    """The job took too long, or its process was killed. Nothing is known."""


class Pool:
    """`processes` at most, started when first needed; so many jobs are under way at once, others wait."""

    def __init__(self, processes: int = 1, limit_s: float = 10.0) -> None:
        self._processes, self._limit_s = processes, limit_s
        self._slots = asyncio.Semaphore(processes)
        self._executor: ProcessPoolExecutor | None = None

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `job` returns. It, its arguments and its result must be picklable. Raises Overrun, and what
        `job` raises."""
        async with self._slots:
            executor = self._executor or self._start()
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(executor, _limited, self._limit_s, job, args, kwargs)
            try:
                async with asyncio.timeout(self._limit_s + _SLACK_S):
                    return await future
            except (TimeoutError, BrokenProcessPool) as error:
                if self._executor is executor:
                    self._executor = None
                await _end(executor)
                raise Overrun(str(error)) from error

    async def close(self) -> None:
        """End the processes."""
        executor, self._executor = self._executor, None
        if executor is not None:
            await _end(executor)

    def _start(self) -> ProcessPoolExecutor:
        self._executor = ProcessPoolExecutor(
            self._processes, multiprocessing.get_context("spawn"), initializer=_begin
        )
        return self._executor


async def _end(executor: Executor) -> None:
    """A process that is stuck is killed; then nothing is left to wait for."""
    processes: dict[int, BaseProcess] = getattr(executor, "_processes", None) or {}
    for process in tuple(processes.values()):
        process.kill()
    await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)


def _begin() -> None:
    """In a new process: leave Ctrl-C to the parent, and end when it ends, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _out_of_time)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> NoReturn:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)


def _out_of_time(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeoutError("time limit reached")


def _limited(limit_s: float, job: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object]) -> T:
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        return job(*args, **kwargs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
