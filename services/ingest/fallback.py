"""Admission `fallback`: who is sent back to a primary that is up, and how we know that it is."""

from libs.mail import replies
from libs.mail.knowledge import Callouts, RecipientRecord, RecipientStatus, RecipientTry
from libs.mail.records import Admission
from libs.mail.reply import Reply
from services.ingest.facts import Facts, Remember

# Outcomes of a callout in which the primary answered RCPT.
SPOKE = frozenset({"deliverable", "undeliverable", "contradicted", "greylisted", "up"})
UP_S = 60.0  # a primary confirmed within this is up
INTRODUCED_S = 300.0  # a second try that comes so long after the first is taken


def sent_back(f: Facts, now: float) -> Reply | Remember | None:
    """The 451 of whom we would take, while the primary is up and he is new."""
    if f.settings is None or f.settings.admission is Admission.ALWAYS or _introduced(f):
        return None
    if f.away or not _is_up(f, now):
        return None
    return Remember(replies.TRY_THE_PRIMARY) if f.sighted_s is None else replies.TRY_THE_PRIMARY


def worth_asking(f: Facts, now: float) -> bool:
    """Is it worth a question whether the primary is up? Not once nobody cares, nor while none is answered."""
    blocked = f.learnt is not None and f.learnt.callouts is Callouts.BLOCKED
    return not (_introduced(f) or f.away or blocked or f.tried_lately(now))


def heard_at(record: RecipientRecord) -> float:
    """When (wall seconds) the primary said what stands here; 0 where it did not speak of a mailbox."""
    match record:
        case RecipientStatus(confirmed=at):
            return at
        case RecipientTry(last_tried=at, last_outcome=outcome) if outcome in SPOKE:
            return at
        case _:
            return 0.0


def _introduced(f: Facts) -> bool:
    return f.sighted_s is not None and f.sighted_s >= INTRODUCED_S


def _is_up(f: Facts, now: float) -> bool:
    """Was it confirmed within UP_S, by whatever it said to us? A clock that was set back confirms nothing."""
    confirmed = 0.0 if f.primary is None else f.primary.confirmed
    times = (f.heard, confirmed, *(heard_at(said) for said in (f.status, f.tried) if said is not None))
    return any(abs(now - at) <= UP_S for at in times)
