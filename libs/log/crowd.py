"""Do so many records come that it pays to let some gather?"""

from collections import deque

CROWD, WITHIN_S = 8, 0.02  # records in seconds, which is 400/s: below it each is hurried on


class Crowd:
    """`now`: monotonic seconds, never less than before."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=CROWD)

    def came(self, now: float, count: int = 1) -> None:
        """So many records came."""
        self._times.extend((now,) * min(count, CROWD))

    def gathers(self, now: float) -> bool:
        """Did CROWD of them come within the last WITHIN_S?"""
        return len(self._times) == CROWD and now - self._times[0] < WITHIN_S
