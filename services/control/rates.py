"""How much mail of each domain was taken and handed over in the last minute, out of its events."""

from collections import Counter, deque
from typing import NamedTuple

from libs.mail.event import EventType

SLOT_S, SLOTS = 10.0, 6
COUNTED = frozenset({EventType.RECEPTION.value, EventType.DELIVERY.value})


class Rate(NamedTuple):
    """In the last minute: mails taken, and recipients that their mail was handed over to."""

    taken: int
    handed_over: int


class Rates:
    """A minute, in slots: the oldest is forgotten as a whole."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, Counter[tuple[str, str]]]] = deque(maxlen=SLOTS)

    def note(self, domain: str, type_: str, now: float) -> None:
        """An event of one of the types COUNTED; `now`: seconds of a clock that never goes back."""
        number = int(now // SLOT_S)
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append((number, Counter()))
        self._slots[-1][1][domain, type_] += 1

    def of(self, domain: str, now: float) -> Rate:
        oldest = int(now // SLOT_S) - SLOTS
        slots = [counts for number, counts in self._slots if number > oldest]
        return Rate(*(sum(counts[domain, type_] for counts in slots) for type_ in ("Reception", "Delivery")))
