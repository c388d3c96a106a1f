"""How long to wait for, and when to leave alone, what does not answer. `now`: monotonic seconds."""

from msgspec import Struct

TIMEOUTS, RETRY_S = 3, 15.0  # so many in a row and nobody waits any more, but one every so often
FAILED_S = 5.0  # rule 2: a partition that failed answers 451 at RCPT for so long


class Patience(Struct, frozen=True):
    """With something that should answer: after TIMEOUTS in a row only one waits every RETRY_S."""

    timeouts: int = 0
    retry_at: float = 0.0

    def waits(self, now: float) -> bool:
        return self.timeouts < TIMEOUTS or now >= self.retry_at

    def began(self, now: float) -> "Patience":
        """Somebody waits: who comes next while it does, and patience is over, does not."""
        return Patience(self.timeouts, now + RETRY_S) if self.timeouts >= TIMEOUTS else self

    def timed_out(self, now: float) -> "Patience":
        return Patience(self.timeouts + 1, now + RETRY_S)


FULL_PATIENCE = Patience()


class Breakdowns:
    """Partitions whose last append failed; each is left alone for FAILED_S."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def failed(self, partition: int, now: float) -> None:
        self._until[partition] = now + FAILED_S

    def broken(self, partition: int, now: float) -> bool:
        return bool(self._until) and self._until.get(partition, 0.0) > now
