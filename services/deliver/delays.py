"""Which mails will have been here for a day, and when: a few octets for each that waits.

A mail is looked at once, by whoever asks for what is due; how exact that is, is said by SLICE_S.
"""

AFTER_S = 86_400.0  # RFC 5321 section 4.5.4.1 leaves it to us; RFC 3461 section 4.1 has DELAY
SLICE_S = 600.0


class Delays:
    """Ids by the slice of time in which they become due."""

    def __init__(self) -> None:
        self._slices: dict[int, dict[str, None]] = {}

    def add(self, id_: str, at: float) -> None:
        """`at`: when it is due, wall seconds; it comes up to SLICE_S later."""
        self._slices.setdefault(_slice(at), {})[id_] = None

    def drop(self, id_: str, at: float) -> None:
        """A mail that was to be looked at then has ended."""
        if (ids := self._slices.get(_slice(at))) is not None:
            ids.pop(id_, None)

    def due(self, now: float, most: int) -> list[str]:
        """Up to `most` ids that are due at `now`, the oldest first; they are not known here any more."""
        found: list[str] = []
        for number in sorted(number for number in self._slices if number * SLICE_S <= now):
            ids = list(self._slices[number])
            room = most - len(found)
            found += ids[:room]
            if len(ids) > room:
                self._slices[number] = dict.fromkeys(ids[room:])
                break
            del self._slices[number]
        return found


def _slice(at: float) -> int:
    return int(at // SLICE_S) + 1
