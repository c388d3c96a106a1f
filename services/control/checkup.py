"""What is kept of the last examination of each domain, what became different, whose turn it is."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from services.control.examined import Examined
from services.control.findings import Finding, Level, findings

SPREAD = 0.25  # of the interval: so much sooner or later, so that domains do not stay together


class Checkup(Struct, frozen=True):
    """`at`: when (wall seconds); `packed`: what was seen; `found`: what is more than a note."""

    at: float
    packed: bytes
    found: frozenset[Finding]

    def seen(self) -> Examined:
        return msgspec.msgpack.decode(self.packed, type=Examined)


def checkup(seen: Examined, at: float) -> Checkup:
    found = (each for each in findings(seen) if each.level is not Level.NOTE)
    return Checkup(at, msgspec.msgpack.encode(seen), frozenset(found))


def counts(last: Checkup | None) -> dict[str, float]:
    """As a row shows them: `examined` (wall seconds, 0: not yet), findings that are `wrong`, `warnings`."""
    if last is None:
        return {"examined": 0.0, "wrong": 0, "warnings": 0}
    levels = Counter(each.level for each in last.found)
    return {"examined": last.at, "wrong": levels[Level.WRONG], "warnings": levels[Level.WARNING]}


def changes(before: Checkup | None, after: Checkup) -> Iterator[tuple[str, Finding]]:
    """What came and what went, in words of an event. Of a first examination nothing is said: what it found
    may have been so for long. A finding with another reply or number is the same one."""
    if before is None:
        return
    old, new = ({(each.kind, each.at): each for each in one.found} for one in (before, after))
    for word, here, there in (("came", new, old), ("went", old, new)):
        for key in sorted(here.keys() - there.keys()):
            yield word, here[key]


def due(names: Iterable[str], when: Mapping[str, float], now: float) -> str | None:
    """Who is to be examined now: who never was, in the order of names, else who waits longest. `when`:
    the next time of each, in the same seconds as `now`."""
    first = min(names, key=lambda name: (when.get(name, float("-inf")), name), default=None)
    return first if first is not None and when.get(first, now) <= now else None


def again(now: float, every_s: float, chance: float) -> float:
    """The next time of one that is examined now; `chance`: 0..1."""
    return now + every_s * (1.0 + SPREAD * (2.0 * chance - 1.0))
