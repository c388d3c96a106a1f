"""Questions under way: one of each recipient, and which of the records that were read it will answer."""

from typing import NamedTuple

from libs.log.contract import Claim

NOBODYS = -1  # the offset of a question that nobody asked on the topic
LOST_S = 60.0  # no callout takes so long: its answer was lost to a bug of ours
GENTLY_LOST_S = 3600.0  # one that nobody waits for: many domains may share a server


class Flight(NamedTuple):
    """A question under way. `claim`: under which its answer is written; `open`: the offsets in the partition
    that are not answered yet, of which `offset` is one; `began` monotonic; `gentle`: nobody waits for it;
    `imported`: the operator imported its recipient meanwhile; `era`: of the domain when it was asked."""

    claim: Claim
    open: set[int]
    offset: int
    began: float
    gentle: bool = False
    imported: bool = False
    era: int | None = None


class Flights:
    """By key of the mailbox. `now`: monotonic seconds."""

    def __init__(self) -> None:
        self._of: dict[bytes, Flight] = {}

    def __len__(self) -> int:
        return len(self._of)

    def get(self, key: bytes) -> Flight | None:
        return self._of.get(key)

    def begin(self, key: bytes, flight: Flight) -> None:
        """In the place of one that was lost, or that nobody waits for: its answer is that one's, too."""
        if (before := self._of.get(key)) is not None:
            before.open.discard(before.offset)
        self._of[key] = flight

    def join(self, key: bytes, claim: Claim, now: float) -> bool:
        """Does the answer under way, which somebody waits for, answer another question, too? Then it is
        written under the claim of today, `claim`."""
        flight = self._of.get(key)
        if flight is None or flight.gentle or now - flight.began >= LOST_S:
            return False
        self._of[key] = flight._replace(claim=claim)
        return True

    def imported(self, key: bytes) -> bool:
        """Its recipient is imported; False: it is not under way."""
        flight = self._of.get(key)
        if flight is not None:
            self._of[key] = flight._replace(imported=True)
        return flight is not None

    def flies(self, key: bytes, now: float) -> bool:
        flight = self._of.get(key)
        return flight is not None and now - flight.began < (GENTLY_LOST_S if flight.gentle else LOST_S)

    def end(self, key: bytes, *, gentle: bool) -> Flight | None:
        """The one that is answered now; None: a question that somebody waits for came after it, and that
        one's answer counts."""
        flight = self._of.get(key)
        if flight is None or flight.gentle is not gentle:
            return None
        return self._of.pop(key)
