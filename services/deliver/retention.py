"""What may be deleted: content that no mail needs any more (rules 5 and 6), parked mail after its time."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from libs.mail.records import State

GRACE_S = 7200.0  # content younger than this may belong to a mail that is being committed
OLD_S = 86_400.0  # content so old that keeps dead content from going is written again
QUIET_S = 12 * 3600.0  # Kafka frees no segment that is still written to: a quiet partition gets a record


class Seen(Struct, frozen=True):
    """What is known at one moment, in the order of rule 5. `young`: Y, the first offset younger than GRACE_S;
    `end`: E, the end of `queue` read after it; `folded`: the index has everything below this offset;
    `lowest`: L, the lowest content offset that any record refers to, None for none; `blind`: some record's
    reference cannot be read."""

    young: int
    end: int
    folded: int
    lowest: int | None
    blind: bool


def younger_than(log_time: float, own_time: float, age_s: float) -> float:
    """The time from which on content is younger than `age_s`: the older of both clocks counts."""
    return min(log_time, own_time) - age_s


def truncate_before(seen: Seen, begin: int, *, clocks_agree: bool) -> int | None:
    """Content below this offset may go, None for nothing. `begin`: of the partition. Whether the claim is
    held is asked by the caller, last."""
    if seen.blind or not clocks_agree or seen.folded < seen.end:
        return None
    before = seen.young if seen.lowest is None else min(seen.young, seen.lowest)
    return before if before > begin else None


def ended(state: State, since: float, now: float, kept_s: float, *, clocks_agree: bool) -> bool:
    """Has a parked mail been kept for `kept_s` since it was parked (wall seconds)?"""
    return state is State.PARKED and clocks_agree and now - since >= kept_s


class Live(NamedTuple):
    """Content that is needed: its lowest offset, and how many chunks it has."""

    content: int
    chunks: int


def pins(lives: Sequence[Live], before: int) -> int:
    """How many of `lives` (by offset, the lowest first) have dead content above them and below `before`: when
    all of those are written again at the end, it can go. What lies close together up to `before` may stay."""
    end = before
    for count in range(len(lives), 0, -1):
        live = lives[count - 1]
        if live.content + live.chunks < end:
            return count
        end = live.content
    return 0
