"""CPU time of processes, user and system, their children included."""

from collections.abc import Mapping

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


class Meter:
    """`pids`: name -> process. `taken()`: name -> CPU seconds since this was made."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = {name: seconds(pid) for name, pid in pids.items()}

    def taken(self) -> dict[str, float]:
        return {name: seconds(pid) - self._before[name] for name, pid in self._pids.items()}
