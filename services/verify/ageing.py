"""What becomes of a record of `recipients` as time goes by: kept, asked about again, or forgotten."""

from collections.abc import Callable
from enum import Enum, auto

from libs.mail.knowledge import OPERATOR, PrimaryFacts, PrimaryState, Status
from libs.mail.settings import DAY_S
from services.verify.learning import LIFETIMES, Known, Lifetimes, is_over, next_probe, try_is_over

PROBE_S = DAY_S  # a primary is asked so often for a mailbox that nobody has
PROBE_AGAIN_S = 900.0  # and so soon again when that told nothing
SWEEP_S = 3600.0


class Fate(Enum):
    KEEP = auto()
    FORGET = auto()
    ASK = auto()


def of_status(
    known: Known, primary: PrimaryState | None, now: float, *, certain: bool, t: Lifetimes = LIFETIMES
) -> Fate:
    """`now`: wall seconds; `certain`: the log's clock agrees, without which nothing is forgotten (rule 10).

    Only a deliverable recipient is asked about though no mail came; an undeliverable one waits for mail."""
    status = known.status
    if status is None or status.source == OPERATOR:
        return Fate.KEEP
    if is_over(status, primary, now, t):
        return Fate.FORGET if certain else Fate.KEEP
    due = next_probe(status, primary, t)
    if status.status is not Status.DELIVERABLE or due is None or now < due:
        return Fate.KEEP
    lately = known.tried is not None and 0 <= now - known.tried.last_tried < SWEEP_S
    return Fate.KEEP if lately else Fate.ASK


def of_try(known: Known, now: float, *, certain: bool, t: Lifetimes = LIFETIMES) -> Fate:
    """A doubt is asked about again, as after a restart nobody else remembers it."""
    if try_is_over(known, now, t):
        return Fate.FORGET if certain else Fate.KEEP
    return Fate.ASK if known.tried is not None and known.tried.against_since else Fate.KEEP


def probe_is_due(facts: PrimaryFacts | None, now: float) -> bool:
    """Is it a day since the primary answered for a mailbox that nobody has? A clock that was set back says
    so, too."""
    return facts is None or not 0 <= now - facts.probed < PROBE_S


class Sweep:
    """All keys of a replica, some at a time, once an hour and after restart()."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._begin = float("-inf")

    def restart(self) -> None:
        self._keys, self._begin = [], float("-inf")

    def some(self, keys: Callable[[], list[bytes]], now: float, most: int) -> list[bytes]:
        """The next of `keys()`, at most `most`. `now`: monotonic seconds."""
        if not self._keys:
            if now - self._begin < SWEEP_S:
                return []
            self._keys, self._begin = keys(), now
        some = self._keys[-most:]
        del self._keys[-most:]
        return some
