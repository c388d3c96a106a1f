"""A clock that only moves when told to, and one that is ahead of the machine's."""

from libs.runtime.clock import SystemClock


class Clock:
    """`advance` moves both clocks; `jump_wall` moves the wall clock alone, as a bad NTP step does."""

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        self._wall = wall
        self._mono = 1000.0

    def wall(self) -> float:
        return self._wall

    def mono(self) -> float:
        return self._mono

    def advance(self, seconds: float) -> None:
        self._wall += seconds
        self._mono += seconds

    def jump_wall(self, seconds: float) -> None:
        self._wall += seconds


class Later(SystemClock):
    """The machine's clocks, `seconds` ahead."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def wall(self) -> float:
        return super().wall() + self._seconds

    def mono(self) -> float:
        return super().mono() + self._seconds
