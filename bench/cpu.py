"""CPU time of processes, user and system, their children included.

The compiler threads of a Java runtime are counted by themselves: they work while it is young. One that ends
between two looks leaves what it used with the rest.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil


def seconds(pid: int) -> float:
    """What the process and its living children have used so far."""
    process = psutil.Process(pid)
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        times = each.cpu_times()
        total += times.user + times.system
    return total


def resident(pid: int) -> int:
    """Octets of memory that the process has of its own."""
    return int(psutil.Process(pid).memory_info().rss)


def compiler_seconds(pid: int) -> float:
    """The part of it that the threads of a Java compiler have used; 0 where there are none (Linux names)."""
    total = 0.0
    for thread in psutil.Process(pid).threads():
        try:
            name = Path(f"/proc/{pid}/task/{thread.id}/comm").read_text("utf-8")
        except OSError:
            continue  # it has ended meanwhile, or this is no Linux
        if name.startswith(("C1 Compiler", "C2 Compiler")):
            total += thread.user_time + thread.system_time
    return total


@contextmanager
def confined(pids: Iterable[int]) -> Iterator[None]:
    """Let these processes use the last core only; all cores again afterwards. Nothing where there is one."""
    cores = os.sched_getaffinity(0)
    _use(pids, {max(cores)})
    try:
        yield
    finally:
        _use(pids, cores)


def _use(pids: Iterable[int], cores: set[int]) -> None:
    for pid in pids:
        for thread in psutil.Process(pid).threads():
            try:
                os.sched_setaffinity(thread.id, cores)
            except ProcessLookupError:
                continue  # it has ended meanwhile


class Meter:
    """`pids`: name -> process. `taken()`: name -> CPU seconds since this was made; `compiler` is not in the
    others."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = self._now()

    def taken(self) -> dict[str, float]:
        now = self._now()
        return {name: now[name] - before for name, before in self._before.items()}

    def _now(self) -> dict[str, float]:
        now = {name: seconds(pid) for name, pid in self._pids.items()}
        if "broker" in now:
            now["compiler"] = compiler_seconds(self._pids["broker"])
            now["broker"] -= now["compiler"]
        return now
