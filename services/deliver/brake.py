"""The bounce brake (rule 9): a primary that refuses recipients it confirmed has lost its list, not its
people.

For an hour after an outage no refusal of a mailbox is final, and in that hour refusals of confirmed
recipients are counted; without an outage they are counted over the last hour. All times are monotonic
seconds.
"""

from msgspec import Struct
from msgspec.structs import replace

HOUR_S = 3600.0
AGAIN_S = 900.0  # a refused recipient is tried again so often while its refusal is not final
PULLED_S = 72 * 3600.0
MANY = 5  # different confirmed recipients from which on the share counts
ROOM = 100  # mailboxes remembered of each sort
_NEVER = float("-inf")


class Brake(Struct, frozen=True):
    """`accepted` and `refused`: confirmed mailboxes since the outage ended (or in the last hour);
    `first`: when the first of them was seen; `pulled`: when, None for not; `released`: when a person ended
    it."""

    outage_ended: float = _NEVER
    accepted: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    first: float = _NEVER
    pulled: float | None = None
    released: float = _NEVER


def outage_ended(brake: Brake, now: float) -> Brake:
    """Begin to count anew. A brake that is pulled stays pulled."""
    return Brake(outage_ended=now, pulled=brake.pulled)


def accepted(brake: Brake, mailbox: str, now: float) -> Brake:
    """A confirmed recipient was accepted. When each one that was refused is accepted now, the list is
    back."""
    brake = _current(brake, now)
    if mailbox not in brake.refused and (mailbox in brake.accepted or len(brake.accepted) >= ROOM):
        return brake
    refused = brake.refused - {mailbox}
    back = brake.pulled is not None and bool(brake.refused) and not refused
    taken = brake.accepted if len(brake.accepted) >= ROOM else brake.accepted | {mailbox}
    return replace(
        brake,
        accepted=taken,
        refused=refused,
        first=_begun(brake, now),
        pulled=None if back else brake.pulled,
    )


def refused(brake: Brake, mailbox: str, now: float) -> Brake:
    """A confirmed recipient (accepted by us because the primary had said that it exists) was refused."""
    brake = _current(brake, now)
    every = brake.refused if len(brake.refused) >= ROOM else brake.refused | {mailbox}
    brake = replace(brake, refused=every, accepted=brake.accepted - {mailbox}, first=_begun(brake, now))
    if brake.pulled is None and not _let_go(brake, now) and _too_many(brake, now):
        return replace(brake, pulled=now)
    return brake


def released(brake: Brake, now: float) -> Brake:
    """A person says that the primary's list is right: for an hour its word is final, whomever it refuses.
    That is longer than those take who wait because it was not."""
    return Brake(outage_ended=brake.outage_ended, released=now)


def final(brake: Brake, now: float) -> bool:
    """Is the refusal of a mailbox final now? While the brake is pulled and in the hour after an outage,
    no."""
    if _let_go(brake, now):
        return True
    return not braked(brake, now) and now - brake.outage_ended >= HOUR_S


def braked(brake: Brake, now: float) -> bool:
    """Is the brake pulled? It ends by itself after 72 h."""
    return brake.pulled is not None and now - brake.pulled < PULLED_S


def _too_many(brake: Brake, now: float) -> bool:
    different = len(brake.refused) + len(brake.accepted)
    after_outage = now - brake.outage_ended < HOUR_S
    return (
        (after_outage and not brake.accepted)
        or len(brake.refused) >= 2
        or (different >= MANY and 2 * len(brake.refused) > different)
    )


def _current(brake: Brake, now: float) -> Brake:
    """Without an outage in the last hour only what was seen in the last hour counts."""
    if braked(brake, now) or now - brake.outage_ended < HOUR_S or now - brake.first < HOUR_S:
        return brake
    return Brake(outage_ended=brake.outage_ended, released=brake.released)


def _let_go(brake: Brake, now: float) -> bool:
    return now - brake.released < HOUR_S


def _begun(brake: Brake, now: float) -> float:
    return now if brake.first == _NEVER else brake.first
