"""Does this process's clock agree with the log's (rule 10)? Nothing expires or is deleted unless it does."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from libs.log.contract import Log
from libs.runtime.clock import Clock

AGREE_S = 120.0  # so far apart they may be
FRESH_S = 120.0  # so old an acknowledgement may be


@runtime_checkable
class DoubtsItsClock(Protocol):
    """A log that was started with a strange clock."""

    @property
    def clock_trusted(self) -> bool: ...


def trusts_itself(log: Log) -> bool:
    """Does the log trust the clock that it was started with?"""
    return not isinstance(log, DoubtsItsClock) or log.clock_trusted


class Clocks:
    """`heard` is told the log's time of each acknowledgement at once. `trusted`: see trusts_itself()."""

    def __init__(self, clock: Clock, trusted: Callable[[], bool] = lambda: True) -> None:
        self._clock, self._trusted = clock, trusted
        self._agreed_at: float | None = None
        self._ahead_s = 0.0  # wall time minus monotonic time at that moment
        self.difference_s = 0.0

    def heard(self, log_time: float) -> None:
        self.difference_s = self._clock.wall() - log_time
        if abs(self.difference_s) <= AGREE_S:
            self._agreed_at = self._clock.mono()
            self._ahead_s = self._clock.wall() - self._agreed_at
        else:
            self._agreed_at = None

    @property
    def agree(self) -> bool:
        """Did they agree at an acknowledgement of the last two minutes, and did ours not jump since?"""
        at, now = self._agreed_at, self._clock.mono()
        if at is None or now - at > FRESH_S or not self._trusted():
            return False
        return abs(self._clock.wall() - now - self._ahead_s) <= AGREE_S
