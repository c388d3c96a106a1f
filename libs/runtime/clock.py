"""The clock as an argument: wall time for what is written down, monotonic time for what is waited for."""

import time
from typing import Protocol


class Clock(Protocol):
    """`wall()`: seconds UTC since 1970; `mono()`: seconds of a clock that never jumps."""

    def wall(self) -> float: ...
    def mono(self) -> float: ...


class SystemClock:
    """The machine's own."""

    wall = staticmethod(time.time)
    mono = staticmethod(time.monotonic)
