"""The index of waiting mail: what is due for which next hop, oldest first. Everything else stays on the log.

A mail is in one of four places: the `ready` lane of its next hop (oldest first), the `slow` lane (the next
attempt first), `out` with an attempt, or `still` (held, parked, content lost). Heaps hold entries that are
no longer true; they are stepped over when they come up and swept out when they are the majority.
"""

from collections.abc import Iterator
from enum import StrEnum
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from libs.mail.records import Kind, State
from services.deliver.schedule import is_due


class Place(StrEnum):
    READY = "ready"
    SLOW = "slow"
    OUT = "out"
    STILL = "still"


class Waiting(Struct, frozen=True, order=True, gc=False):
    """One mail: `offset` of its newest queue record, `first` the lowest of the `chunks` content offsets that
    one refers to, `content` the lowest that any record of it did, `due` in wall seconds (0 for now),
    `delay_told`: its sender knows that it waits. The order of the fields is the order of delivery."""

    arrived: float
    id: str
    domain: str
    next_hop: str
    kind: Kind
    state: State
    due: float
    size: int
    offset: int
    content: int
    first: int
    chunks: int
    delay_told: bool = False

    @property
    def still(self) -> bool:
        """No attempts are made (held, parked, content lost)."""
        return self.state not in (State.QUEUED, State.DEFERRED)

    def needs(self, begin: int) -> int:
        """The lowest offset of what it needs, of content that begins at `begin`: a place that is gone was
        left when the content moved."""
        return self.content if self.content >= begin else self.first


class Count(NamedTuple):
    """`oldest`: arrival of the oldest (wall seconds), 0 for none."""

    mails: int
    octets: int
    oldest: float


class _Hop:
    """The lanes of one next hop. `all`: every mail that is not still, for age and expiry; `total`: how
    many mails there are, `mails` and `octets` without those that are still."""

    __slots__ = ("all", "mails", "octets", "ready", "slow", "total")

    def __init__(self) -> None:
        self.ready: list[Waiting] = []
        self.slow: list[tuple[float, Waiting]] = []
        self.all: list[Waiting] = []
        self.mails = self.octets = self.total = 0


class Index:
    """All mails of one partition. `put`, `take`, `again` and `drop` cost O(log n)."""

    def __init__(self) -> None:
        self._mails: dict[str, Waiting] = {}
        self._hops: dict[str, _Hop] = {}
        self._out: set[str] = set()
        self._names: dict[str, str] = {}  # one object for each domain: an index is mostly for few

    def __len__(self) -> int:
        return len(self._mails)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._mails.values())

    def get(self, id_: str) -> Waiting | None:
        return self._mails.get(id_)

    def hops(self) -> list[str]:
        """The next hops that mail waits for."""
        return list(self._hops)

    def place(self, id_: str) -> Place | None:
        mail = self._mails.get(id_)
        if mail is None:
            return None
        if id_ in self._out:
            return Place.OUT
        if mail.still:
            return Place.STILL
        return Place.SLOW if mail.due else Place.READY

    def put(self, mail: Waiting) -> None:
        """Add `mail`, or replace what is known of its id. A mail that is out stays out until `again`."""
        old = self._mails.get(mail.id)
        if old is not None:
            self._count(old, -1)
        mail = self._with(mail, mail.due)
        self._mails[mail.id] = mail
        self._count(mail, 1)
        hop = self._hops[mail.next_hop]
        if _counts(mail) and (old is None or not _counts(old) or old.next_hop != mail.next_hop):
            heappush(hop.all, mail)
        if mail.id not in self._out and not mail.still:
            self._line_up(hop, mail)

    def take(self, next_hop: str, now: float, *, slow: bool) -> Waiting | None:
        """The next mail for `next_hop`, now out. `slow`: a deferred mail that is due may go first; without,
        it goes only when nothing else is ready (the slow lane never holds up the others)."""
        hop = self._hops.get(next_hop)
        if hop is None:
            return None
        self._prune(hop)
        deferred = hop.slow[0][1] if hop.slow and is_due(hop.slow[0][0], now) else None
        if deferred is not None and (slow or not hop.ready):
            heappop(hop.slow)
            mail = deferred
        elif hop.ready:
            mail = heappop(hop.ready)
        else:
            return None
        self._out.add(mail.id)
        return self._mails[mail.id]  # what lay in the lane may be older

    def take_this(self, id_: str) -> Waiting | None:
        """This mail, now out, whatever its state; None when it is out already or unknown."""
        mail = self._mails.get(id_)
        if mail is None or id_ in self._out:
            return None
        self._out.add(id_)
        return mail

    def again(self, id_: str, due: float | None = None) -> None:
        """An attempt ended and the mail waits again, as its record says or until `due` (wall seconds, 0 for
        now). Nothing happens when the mail has left the index meanwhile."""
        self._out.discard(id_)
        mail = self._mails.get(id_)
        if mail is None or mail.still:
            return
        if due is not None and due != mail.due:
            mail = self._mails[id_] = self._with(mail, due)
        self._line_up(self._hops[mail.next_hop], mail)

    def hurry(self, id_: str) -> None:
        """Make a deferred mail due now: its backoff is void."""
        mail = self._mails.get(id_)
        if mail is not None and mail.due and not mail.still:
            mail = self._mails[id_] = self._with(mail, 0.0)
            if id_ not in self._out:
                self._line_up(self._hops[mail.next_hop], mail)

    def hurry_all(self, next_hop: str) -> int:
        """Make every deferred mail for `next_hop` due now; returns how many."""
        hop = self._hops.get(next_hop)
        # A set: a mail that was deferred twice to the same moment has two entries that are both true.
        waiting = set() if hop is None else {mail.id for _, mail in hop.slow if self._true_slow(mail)}
        for id_ in waiting:
            self.hurry(id_)
        return len(waiting)

    def drop(self, id_: str) -> Waiting | None:
        """Forget a mail that is done."""
        self._out.discard(id_)
        mail = self._mails.pop(id_, None)
        if mail is not None:
            self._count(mail, -1)
            if not self._hops[mail.next_hop].total:
                del self._hops[mail.next_hop]
        return mail

    def next_due(self, next_hop: str) -> float | None:
        """Wall seconds at which something is due: 0 when something is ready, None when nothing waits."""
        hop = self._hops.get(next_hop)
        if hop is None:
            return None
        self._prune(hop)
        if hop.ready:
            return 0.0
        return hop.slow[0][0] if hop.slow else None

    def count(self, next_hop: str) -> Count:
        """What waits for `next_hop`: neither held nor parked nor lost mail."""
        hop = self._hops.get(next_hop)
        if hop is None:
            return Count(0, 0, 0.0)
        while hop.all and not self._counted(hop.all[0]):
            heappop(hop.all)
        return Count(hop.mails, hop.octets, hop.all[0].arrived if hop.all else 0.0)

    def oldest(self, next_hop: str) -> Waiting | None:
        """The oldest mail for `next_hop` that is not still."""
        if not self.count(next_hop).mails:
            return None
        return self._mails[self._hops[next_hop].all[0].id]

    def arrived_before(self, next_hop: str, limit: float) -> list[Waiting]:
        """Mails not out and not still that arrived before `limit`, in no order: O(result)."""
        hop = self._hops.get(next_hop)
        found: list[Waiting] = []
        if hop is None:
            return found
        at = [0]  # a walk down the heap: below an entry that is young enough all are
        while at:
            index = at.pop()
            if index < len(hop.all) and hop.all[index].arrived < limit:
                at += (2 * index + 1, 2 * index + 2)
                mail = self._known(hop.all[index])
                if mail is not None and not mail.still and mail.id not in self._out:
                    found.append(mail)
        return list({mail.id: mail for mail in found}.values())

    def lowest_content(self, begin: int) -> int | None:
        """L of rule 5: the lowest content offset, from `begin` on, that any mail here needs, in whatever
        state."""
        needed = (mail.needs(begin) for mail in self._mails.values())
        return min((offset for offset in needed if offset >= begin), default=None)

    def contents(self, begin: int, before: int) -> list[Waiting]:
        """Mails that need content in `begin`..`before`, the lowest first."""
        found = [mail for mail in self._mails.values() if begin <= mail.needs(begin) < before]
        return sorted(found, key=lambda mail: mail.needs(begin))

    # --- inside ---

    def _line_up(self, hop: _Hop, mail: Waiting) -> None:
        if mail.due:
            heappush(hop.slow, (mail.due, mail))
        else:
            heappush(hop.ready, mail)
        if len(hop.ready) + len(hop.slow) > 2 * hop.mails + 64:
            hop.ready = list({m.id: m for m in hop.ready if self._true_ready(m)}.values())
            hop.slow = list({m.id: (due, m) for due, m in hop.slow if self._true_slow(m)}.values())
            heapify(hop.ready)
            heapify(hop.slow)
        if len(hop.all) > 2 * hop.mails + 64:
            hop.all = list({m.id: m for m in hop.all if self._counted(m)}.values())
            heapify(hop.all)

    def _prune(self, hop: _Hop) -> None:
        while hop.ready and not self._true_ready(hop.ready[0]):
            heappop(hop.ready)
        while hop.slow and not self._true_slow(hop.slow[0][1]):
            heappop(hop.slow)

    def _known(self, entry: Waiting) -> Waiting | None:
        """What is known of the mail of a heap's entry; None when the entry was left behind by an id that is
        gone, or waits for another next hop now."""
        known = self._mails.get(entry.id)
        return known if known is not None and known.next_hop == entry.next_hop else None

    def _true_ready(self, mail: Waiting) -> bool:
        known = self._known(mail)
        return known is not None and not known.due and not known.still and mail.id not in self._out

    def _true_slow(self, mail: Waiting) -> bool:
        known = self._known(mail)
        return known is not None and known.due == mail.due and not known.still and mail.id not in self._out

    def _counted(self, mail: Waiting) -> bool:
        known = self._known(mail)
        return known is not None and _counts(known)

    def _with(self, mail: Waiting, due: float) -> Waiting:
        domain = self._names.setdefault(mail.domain, mail.domain)
        next_hop = self._names.setdefault(mail.next_hop, mail.next_hop)
        return replace(mail, domain=domain, next_hop=next_hop, due=due)

    def _count(self, mail: Waiting, sign: int) -> None:
        hop = self._hops.get(mail.next_hop)
        if hop is None:
            hop = self._hops[mail.next_hop] = _Hop()
        hop.total += sign
        if _counts(mail):
            hop.mails += sign
            hop.octets += sign * mail.size


def _counts(mail: Waiting) -> bool:
    return not mail.still
