"""Recipients that the operator imported, until their primary has spoken of them: whose turn is it?"""

from collections.abc import Iterator

from msgspec.structs import replace

from libs.mail.knowledge import OPERATOR, RecipientTry
from services.verify.learning import LIFETIMES, Known, Lifetimes

FINAL = ("catch_all", "late_reject", "no domain")  # reasons that no later question would overcome
_Turns = dict[bytes, dict[bytes, RecipientTry]]  # domain -> key of a mailbox -> its try


class Warming:
    """Those that wait, in the order in which their turns come: a replica of the tries in `recipients`."""

    def __init__(self) -> None:
        self._new: _Turns = {}
        self._again: _Turns = {}

    def fold(self, key: bytes, tried: RecipientTry | None) -> None:
        """The newest try of the mailbox with `key`; None: there is none."""
        domain = key.rpartition(b"@")[2]
        for turns in (self._new, self._again):
            if domain in turns:
                turns[domain].pop(key, None)
                if not turns[domain]:
                    del turns[domain]
        if tried is not None and tried.imported:
            turns = self._new if tried.last_tried < tried.imported else self._again
            turns.setdefault(domain, {})[key] = tried

    def domains(self) -> list[str]:
        return [domain.decode() for domain in self._new.keys() | self._again.keys()]

    def turns(self, domain: str) -> Iterator[tuple[bytes, RecipientTry]]:
        """New ones first, then those that were asked about in vain, the longest ago first."""
        for turns in (self._new, self._again):
            yield from turns.get(domain.encode(), {}).items()


def imported(known: Known, now: float) -> RecipientTry:
    """The record of a recipient that is imported now (wall seconds)."""
    return replace(known.tried or RecipientTry(known.mailbox, 0.0, ""), imported=now, elsewhere="")


def end(known: Known, hold: str, now: float, t: Lifetimes = LIFETIMES) -> RecipientTry | None:
    """The last record of an imported recipient that needs no question any more; None: it needs one. `hold`:
    why its primary is not asked now, or ""; `now`: wall seconds."""
    assert known.tried is not None
    status = known.status
    if status is not None and (status.source == OPERATOR or status.confirmed >= known.tried.imported):
        return RecipientTry(known.mailbox, now, status.status.value)
    if hold in FINAL:
        return replace(known.tried, last_outcome=hold, imported=0.0)
    if now - known.tried.imported > t.import_s:
        return replace(known.tried, last_outcome=known.tried.last_outcome or "unanswered", imported=0.0)
    return None


def is_due(tried: RecipientTry, now: float, t: Lifetimes = LIFETIMES) -> bool:
    """Is it time for its (next) question? `now`: wall seconds; a clock that was set back asks at once."""
    fresh = tried.last_tried < tried.imported
    return fresh or not 0 <= now - tried.last_tried < t.import_again_s
