"""The index of waiting mail: what is due for which next hop, oldest first. Everything else stays on the log.

A mail is in one of four places: the `ready` lane of its next hop (oldest first), the `slow` lane (the next
attempt first), `out` with an attempt, or `still` (held, parked, content lost). Heaps hold entries that are
no longer true; they are stepped over when they come up and swept out when they are the majority.

Mails are held packed (packed.py): dict and heaps share one object for each, and a Waiting is made of it when
somebody asks.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from libs.mail.records import Kind
from services.deliver import packed
from services.deliver.packed import Waiting, id_of, is_ready, is_still, same_due
from services.deliver.schedule import is_due

__all__ = ["Count", "Index", "Place", "Waiting"]


class Place(StrEnum):
    READY = "ready"
    SLOW = "slow"
    OUT = "out"
    STILL = "still"


class Count(NamedTuple):
    """`oldest`: arrival of the oldest (wall seconds), 0 for none."""

    mails: int
    octets: int
    oldest: float


class _Hop:
    """The lanes of one next hop. `all`: every mail that is not still, as if it were due now, for age and
    expiry; `total`: how many mails there are, `mails` and `octets` without those that are still."""

    __slots__ = ("all", "mails", "name", "octets", "ready", "routes", "slow", "total")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: list[bytes] = []
        self.slow: list[bytes] = []
        self.all: list[bytes] = []
        self.routes: dict[tuple[str, Kind], int] = {}
        self.mails = self.octets = self.total = 0


class _Route(NamedTuple):
    """What all mail of a domain to one next hop has in common."""

    domain: str
    kind: Kind
    hop: _Hop


class Index:
    """All mails of one partition. `put`, `take`, `again` and `drop` cost O(log n)."""

    def __init__(self) -> None:
        self._mails: dict[str, bytes] = {}
        self._hops: dict[str, _Hop] = {}
        self._routes: dict[int, _Route] = {}
        self._next_route = 0
        self._out: set[str] = set()
        self._still: set[str] = set()

    def __len__(self) -> int:
        return len(self._mails)

    def __iter__(self) -> Iterator[Waiting]:
        return map(self._unpacked, self._mails.values())

    def ids(self) -> list[str]:
        """Of all mails, as they are now."""
        return list(self._mails)

    def still(self) -> list[Waiting]:
        """Those that are held, parked or without their content."""
        return [self._unpacked(self._mails[id_]) for id_ in self._still]

    def routes(self) -> list[tuple[str, str, Kind]]:
        """Domain, next hop and kind of whatever is here, each combination once."""
        return [(route.domain, route.hop.name, route.kind) for route in self._routes.values()]

    def untold(self, id_: str) -> float | None:
        """When a relayed mail arrived whose sender does not know that it waits; None for any other."""
        entry = self._mails.get(id_)
        if entry is None or packed.is_told(entry):
            return None
        relayed = self._routes[packed.route_of(entry)].kind is Kind.RELAYED
        return packed.arrived_at(entry) if relayed else None

    def get(self, id_: str) -> Waiting | None:
        entry = self._mails.get(id_)
        return None if entry is None else self._unpacked(entry)

    def hops(self) -> list[str]:
        """The next hops that mail waits for."""
        return list(self._hops)

    def place(self, id_: str) -> Place | None:
        entry = self._mails.get(id_)
        if entry is None:
            return None
        if id_ in self._out:
            return Place.OUT
        if is_still(entry):
            return Place.STILL
        return Place.READY if is_ready(entry) else Place.SLOW

    def put(self, mail: Waiting) -> None:
        """Add `mail`, or replace what is known of its id. A mail that is out stays out until `again`."""
        old, counted_at = self._mails.get(mail.id), None
        if old is not None:
            before = self._hop(old)
            counted_at = None if is_still(old) else before
            self._count(before, old, -1)
        entry = self._packed(mail)
        hop = self._hop(entry)
        self._mails[mail.id] = entry
        self._count(hop, entry, 1)
        if is_still(entry):
            self._still.add(mail.id)
            return
        self._still.discard(mail.id)
        if counted_at is not hop:
            heappush(hop.all, entry if is_ready(entry) else packed.with_due(entry, 0.0))
        if mail.id not in self._out:
            self._line_up(hop, entry)

    def take(self, next_hop: str, now: float, *, slow: bool) -> Waiting | None:
        """The next mail for `next_hop`, now out. `slow`: a deferred mail that is due may go first; without,
        it goes only when nothing else is ready (the slow lane never holds up the others)."""
        hop = self._hops.get(next_hop)
        if hop is None:
            return None
        self._prune(hop)
        deferred = bool(hop.slow) and is_due(packed.due_at(hop.slow[0]), now)
        if deferred and (slow or not hop.ready):
            entry = heappop(hop.slow)
        elif hop.ready:
            entry = heappop(hop.ready)
        else:
            return None
        id_ = id_of(entry)
        self._out.add(id_)
        return self.get(id_)  # what lay in the lane may be older

    def take_this(self, id_: str) -> Waiting | None:
        """This mail, now out, whatever its state; None when it is out already or unknown."""
        mail = self.get(id_)
        if mail is None or id_ in self._out:
            return None
        self._out.add(id_)
        return mail

    def again(self, id_: str, due: float | None = None) -> None:
        """An attempt ended and the mail waits again, as its record says or until `due` (wall seconds, 0 for
        now). Nothing happens when the mail has left the index meanwhile."""
        self._out.discard(id_)
        entry = self._mails.get(id_)
        if entry is None or is_still(entry):
            return
        if due is not None:
            entry = self._mails[id_] = packed.with_due(entry, due)
        self._line_up(self._hop(entry), entry)

    def hurry(self, id_: str) -> None:
        """Make a deferred mail due now: its backoff is void."""
        entry = self._mails.get(id_)
        if entry is not None and not is_ready(entry) and not is_still(entry):
            entry = self._mails[id_] = packed.with_due(entry, 0.0)
            if id_ not in self._out:
                self._line_up(self._hop(entry), entry)

    def hurry_all(self, next_hop: str) -> int:
        """Make every deferred mail for `next_hop` due now; returns how many."""
        hop = self._hops.get(next_hop)
        # A set: a mail that was deferred twice to the same moment has two entries that are both true.
        waiting = set() if hop is None else {id_of(each) for each in hop.slow if self._true(hop, each)}
        for id_ in waiting:
            self.hurry(id_)
        return len(waiting)

    def drop(self, id_: str) -> Waiting | None:
        """Forget a mail that is done."""
        self._out.discard(id_)
        self._still.discard(id_)
        entry = self._mails.pop(id_, None)
        if entry is None:
            return None
        mail, hop = self._unpacked(entry), self._hop(entry)
        self._count(hop, entry, -1)
        if not hop.total:
            del self._hops[hop.name]
            for route in hop.routes.values():
                del self._routes[route]
        return mail

    def next_due(self, next_hop: str) -> float | None:
        """Wall seconds at which something is due: 0 when something is ready, None when nothing waits."""
        hop = self._hops.get(next_hop)
        if hop is None:
            return None
        self._prune(hop)
        if hop.ready:
            return 0.0
        return packed.due_at(hop.slow[0]) if hop.slow else None

    def count(self, next_hop: str) -> Count:
        """What waits for `next_hop`: neither held nor parked nor lost mail."""
        hop = self._hops.get(next_hop)
        if hop is None:
            return Count(0, 0, 0.0)
        while hop.all and not self._counted(hop, hop.all[0]):
            heappop(hop.all)
        return Count(hop.mails, hop.octets, packed.arrived_at(hop.all[0]) if hop.all else 0.0)

    def oldest(self, next_hop: str) -> Waiting | None:
        """The oldest mail for `next_hop` that is not still."""
        if not self.count(next_hop).mails:
            return None
        return self.get(id_of(self._hops[next_hop].all[0]))

    def arrived_before(self, next_hop: str, limit: float) -> list[Waiting]:
        """Mails not out and not still that arrived before `limit`, in no order: O(result)."""
        hop = self._hops.get(next_hop)
        found: set[str] = set()
        if hop is None:
            return []
        at = [0]  # a walk down the heap: below an entry that is young enough all are
        while at:
            index = at.pop()
            if index < len(hop.all) and packed.arrived_at(hop.all[index]) < limit:
                at += (2 * index + 1, 2 * index + 2)
                if self._counted(hop, hop.all[index]):
                    found.add(id_of(hop.all[index]))
        return [self._unpacked(self._mails[id_]) for id_ in found - self._out]

    def lowest_content(self, begin: int) -> int | None:
        """L of rule 5: the lowest content offset, from `begin` on, that any mail here needs, in whatever
        state."""
        first = packed.packed_offset(begin)
        needed = (packed.needs(entry, first) for entry in self._mails.values())
        lowest = min((offset for offset in needed if offset >= first), default=None)
        return None if lowest is None else int.from_bytes(lowest)

    def contents(self, begin: int, before: int) -> list[Waiting]:
        """Mails that need content in `begin`..`before`, the lowest first."""
        first, end = packed.packed_offset(begin), packed.packed_offset(before)
        entries = (each for each in self._mails.values() if first <= packed.needs(each, first) < end)
        return sorted(map(self._unpacked, entries), key=lambda mail: mail.needs(begin))

    # --- inside ---

    def _line_up(self, hop: _Hop, entry: bytes) -> None:
        heappush(hop.ready if is_ready(entry) else hop.slow, entry)
        if len(hop.ready) + len(hop.slow) > 2 * hop.mails + 64:
            hop.ready = self._swept(each for each in hop.ready if self._true(hop, each))
            hop.slow = self._swept(each for each in hop.slow if self._true(hop, each))
        if len(hop.all) > 2 * hop.mails + 64:
            hop.all = self._swept(each for each in hop.all if self._counted(hop, each))

    @staticmethod
    def _swept(entries: Iterable[bytes]) -> list[bytes]:
        """A heap with one entry for each mail."""
        heap = list({id_of(each): each for each in entries}.values())
        heapify(heap)
        return heap

    def _prune(self, hop: _Hop) -> None:
        for lane in (hop.ready, hop.slow):
            while lane and not self._true(hop, lane[0]):
                heappop(lane)

    def _counted(self, hop: _Hop, entry: bytes) -> bool:
        """Does the mail of a heap's entry wait for `hop` still? Else the entry was left behind by an id that
        is gone, waits for another next hop now, or is still."""
        known = self._mails.get(id_of(entry))
        return known is not None and not is_still(known) and self._hop(known) is hop

    def _true(self, hop: _Hop, entry: bytes) -> bool:
        """Is the mail of a lane's entry where the entry says?"""
        id_ = id_of(entry)
        return self._counted(hop, entry) and same_due(self._mails[id_], entry) and id_ not in self._out

    def _packed(self, mail: Waiting) -> bytes:
        hop = self._hops.get(mail.next_hop)
        if hop is None:
            hop = self._hops[mail.next_hop] = _Hop(mail.next_hop)
        route = hop.routes.get((mail.domain, mail.kind))
        if route is None:
            route = hop.routes[mail.domain, mail.kind] = self._next_route
            self._routes[route] = _Route(mail.domain, mail.kind, hop)
            self._next_route = (route + 1) % 2**32
        return packed.packed(mail, route)

    def _unpacked(self, entry: bytes) -> Waiting:
        domain, kind, hop = self._routes[packed.route_of(entry)]
        return packed.unpacked(entry, domain, hop.name, kind)

    def _hop(self, entry: bytes) -> _Hop:
        return self._routes[packed.route_of(entry)].hop

    @staticmethod
    def _count(hop: _Hop, entry: bytes, sign: int) -> None:
        hop.total += sign
        if not is_still(entry):
            hop.mails += sign
            hop.octets += sign * packed.size_of(entry)
