"""How long to wait for, and when to leave alone, what does not answer. `now`: monotonic seconds."""

from collections.abc import Callable

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


class Silences:
    """Of whoever answers for a partition: silence about one domain is silence about all of them. `heard`: how
    many records it has written there so far, of its own accord or in answer to anybody."""

    def __init__(self, heard: Callable[[int], int]) -> None:
        self._heard = heard
        self._of: dict[int, tuple[Patience, int]] = {}  # and how many records there were at its last silence

    def waits(self, partition: int, now: float) -> bool:
        return self._patience(partition).waits(now)

    def began(self, partition: int, now: float) -> int:
        """Somebody waits; the mark for timed_out()."""
        patience, heard = self._patience(partition), self._heard(partition)
        if patience is not FULL_PATIENCE:
            self._of[partition] = patience.began(now), heard
        return heard

    def timed_out(self, partition: int, mark: int, now: float) -> None:
        """Nobody answered since. Who wrote something meanwhile is there, and waits for others itself."""
        if self._heard(partition) == mark:
            self._of[partition] = self._patience(partition).timed_out(now), mark

    def _patience(self, partition: int) -> Patience:
        patience, heard = self._of.get(partition, (FULL_PATIENCE, 0))
        return patience if heard == self._heard(partition) else FULL_PATIENCE


class Breakdowns:
    """Partitions whose last append failed; each is left alone for FAILED_S."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def failed(self, partition: int, now: float) -> None:
        self._until[partition] = now + FAILED_S

    def broken(self, partition: int, now: float) -> bool:
        return bool(self._until) and self._until.get(partition, 0.0) > now
