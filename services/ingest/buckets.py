"""Token buckets in bounded memory: so much at once, and so much more as time goes by.

Whoever is not remembered has a full bucket. So forgetting never refuses anybody: when there are more keys
than room, the one that was used longest ago goes first.
"""

ROOM = 20_000  # keys remembered by one set of buckets, about 250 octets each


class Buckets:
    """One bucket a key: holds `most`, and gets `most` back in `within_s` seconds, evenly. `now`: monotonic
    seconds."""

    def __init__(self, most: int, within_s: float = 1.0, *, room: int = ROOM) -> None:
        self._most, self._rate, self._room = float(most), most / within_s, room
        self._left: dict[str, tuple[float, float]] = {}  # what was left, and when; oldest use first

    def spent(self, key: str, now: float) -> bool:
        """Is there nothing left for `key`?"""
        return bool(self._left) and self._now(key, now) < 1.0

    def left(self, key: str, now: float) -> int:
        """How many are left for `key`?"""
        return int(self._now(key, now))

    def take(self, key: str, now: float) -> None:
        """One less for `key`."""
        left = self._now(key, now)
        self._left.pop(key, None)
        self._left[key] = (max(0.0, left - 1.0), now)
        if len(self._left) > self._room:
            del self._left[next(iter(self._left))]

    def __len__(self) -> int:
        return len(self._left)

    def _now(self, key: str, now: float) -> float:
        found = self._left.get(key)
        if found is None:
            return self._most
        return min(self._most, found[0] + (now - found[1]) * self._rate)
