"""What the operator says of a recipient becomes records of `recipients`."""

from libs.mail.knowledge import (
    OPERATOR,
    Allowed,
    Forgotten,
    Imported,
    RecipientRecord,
    RecipientStatus,
    Status,
    Told,
)
from services.verify.learning import Known
from services.verify.warming import imported

Keyed = tuple[bytes, RecipientRecord | None]  # key in `recipients` and the record, None for a tombstone


def carried_out(told: Told, key: bytes, known: Known, now: float, *, due: bool) -> list[Keyed]:
    """The records that answer `told`, in the order of writing: who said it sees by them that it was done.

    `key`: of the mailbox in normal form; `now`: wall seconds; `due`: what is known is worth a question. An
    import of a recipient that is known changes nothing.
    """
    match told:
        case Imported():
            if known.status is not None and not due:
                return [(key, known.status)]
            return [(b"try:" + key, imported(known, now))]
        case Allowed():
            word = RecipientStatus(known.mailbox, Status.DELIVERABLE, now, 0.0, OPERATOR)
            standing = known.status is not None and known.status.source == OPERATOR
            return [(b"try:" + key, None), (key, known.status if standing else word)]
        case Forgotten():
            return [(b"try:" + key, None), (key, None)]


def sentence(told: Told, known: Known) -> str:
    """What changed, for an event; "" where nothing did."""
    before = "unknown" if known.status is None else known.status.status.value
    match told:
        case Allowed() if known.status is None or known.status.source != OPERATOR:
            return f"{before} -> deliverable: allowed by {told.by}"
        case Forgotten() if known.status is not None:
            return f"{before} -> unknown: forgotten by {told.by}"
        case _:
            return ""
