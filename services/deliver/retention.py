"""What may be deleted: content that no mail needs any more (rule 5), parked mail after its time."""

from msgspec import Struct

from libs.mail.records import State

GRACE_S = 7200.0  # content younger than this may belong to a mail that is being committed
PARKED_S = 7 * 86_400.0


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


def young_since(log_time: float, own_time: float) -> float:
    """The time from which on content is too young: the older of both clocks counts."""
    return min(log_time, own_time) - GRACE_S


def truncate_before(seen: Seen, begin: int, *, clocks_agree: bool) -> int | None:
    """Content below this offset may go, None for nothing. `begin`: of the partition. Whether the claim is
    held is asked by the caller, last."""
    if seen.blind or not clocks_agree or seen.folded < seen.end:
        return None
    before = seen.young if seen.lowest is None else min(seen.young, seen.lowest)
    return before if before > begin else None


def ended(state: State, since: float, now: float, *, clocks_agree: bool) -> bool:
    """Has a parked mail been kept for its 7 days (wall seconds)?"""
    return state is State.PARKED and clocks_agree and now - since >= PARKED_S
