"""A finding becomes what is known of the recipient; and when to ask again. For callouts and deliveries."""

from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from libs.mail.knowledge import OPERATOR, PrimaryState, RecipientStatus, RecipientTry, Status
from libs.mail.remembered import WITNESS_S
from libs.mail.settings import DAY_S
from services.verify.finding import Deliverable, Finding, Undeliverable, Unverifiable

HOUR_S = 3600.0
_GREYLIST_TIMES = 5


class Lifetimes(Struct, frozen=True):
    """Seconds. `deliverable_s`: asked again after, `forget_s`: forgotten without a confirmation for so long;
    `undeliverable_s`: a negative is valid; `recheck_s`: it is asked again after, while the primary is up;
    `try_s`: a try that told nothing is forgotten after, `unverifiable_s`: tried again after; `witness_s`:
    between the two callouts of a flip, `alone_s` when no other recipient could be asked in the same session;
    `greylist_s`: asked again in the background; `import_s`: an imported recipient is asked about for so
    long, again after `import_again_s`."""

    deliverable_s: float = 7 * DAY_S
    forget_s: float = 365 * DAY_S
    undeliverable_s: float = 3 * DAY_S
    try_s: float = DAY_S
    recheck_s: float = 3 * HOUR_S
    unverifiable_s: float = 60.0
    witness_s: float = WITNESS_S
    alone_s: float = DAY_S
    greylist_s: float = 310.0
    refresh_s: float = DAY_S  # a delivery confirms what is known; written at most so often
    import_s: float = 7 * DAY_S
    import_again_s: float = 900.0


LIFETIMES = Lifetimes()


class Learnt(NamedTuple):
    """What to write. `pending`: the recipient was deliverable, is contradicted, and the
    second witness is missing."""

    status: RecipientStatus | None
    tried: RecipientTry | None
    pending: bool = False

    @property
    def records(self) -> tuple[RecipientStatus | RecipientTry, ...]:
        """In the order of writing: nobody shall see the end of a doubt before the flip, nor a confirmation
        beside the doubt that it ends, nor the end of an import before the first status."""
        undeliverable = self.status is not None and self.status.status is Status.UNDELIVERABLE
        first = self.status is not None and self.status.since == self.status.confirmed
        both = (self.status, self.tried) if undeliverable or first else (self.tried, self.status)
        return tuple(record for record in both if record is not None)


class Known(NamedTuple):
    """What was known of `mailbox` before."""

    mailbox: str
    status: RecipientStatus | None
    tried: RecipientTry | None

    @property
    def deliverable(self) -> bool:
        return self.status is not None and self.status.status is Status.DELIVERABLE

    @property
    def answer(self) -> RecipientStatus | RecipientTry | None:
        """The newest of both."""
        if self.tried is None or (self.status is not None and self.status.confirmed >= self.tried.last_tried):
            return self.status
        return self.tried


class Circumstances(NamedTuple):
    """`now`: wall seconds; `host`: whose callout; `control`: was another known recipient accepted in the same
    session (None: none could be asked); `braked`: the callout brake is pulled; `source`: callout,
    delivery; `certain`: the log's clock agrees (rule 10), so that hours can be told from a clock that
    jumped."""

    now: float
    host: str
    control: bool | None = None
    braked: bool = False
    source: str = "callout"
    certain: bool = True


def learn(known: Known, finding: Finding, c: Circumstances, t: Lifetimes = LIFETIMES) -> Learnt:
    """What `finding` adds to what is known.

    A flip from deliverable to undeliverable needs two witnesses: two callouts at least `witness_s` apart, the
    last in a session that accepted a control recipient; without a control `alone_s` apart. A primary that
    refuses the control too has lost its users, not this one: nothing flips. The operator's word stands.
    """
    if known.status is not None and known.status.source == OPERATOR and not isinstance(finding, Unverifiable):
        return Learnt(known.status, _settled(known, known.status.status.value, c))
    match finding:
        case Deliverable(reply):
            return Learnt(_status(known, Status.DELIVERABLE, reply, c), _settled(known, "deliverable", c))
        case Undeliverable(reply):
            if known.deliverable:
                return _contradicted(known, reply, c, t)
            if c.braked:
                return Learnt(None, _in_vain(known, "braked", c))
            return Learnt(_status(known, Status.UNDELIVERABLE, reply, c), _settled(known, "undeliverable", c))
        case Unverifiable(reason, elsewhere=elsewhere):
            return Learnt(None, _in_vain(known, reason, c, elsewhere))


def _contradicted(known: Known, reply: str, c: Circumstances, t: Lifetimes) -> Learnt:
    if not c.certain:
        return Learnt(None, _in_vain(known, "uncertain", c))  # a witness must know when it speaks
    since = known.tried.against_since if known.tried is not None else 0.0
    host = known.tried.against_host if known.tried is not None else ""
    if since > c.now:
        since = 0.0  # the clock was set back: count anew
    apart = t.witness_s if c.control else t.alone_s
    believed = not c.braked and c.control is not False
    assert known.status is not None
    if since and believed and c.now - since >= apart and c.now >= known.status.confirmed:
        status = replace(_status(known, Status.UNDELIVERABLE, reply, c), against=since)
        return Learnt(status, _settled(known, "undeliverable", c))
    tried = RecipientTry(known.mailbox, c.now, "contradicted", since or c.now, host or c.host)
    return Learnt(None, tried, pending=True)


def _status(known: Known, status: Status, reply: str, c: Circumstances) -> RecipientStatus:
    same = known.status is not None and known.status.status is status
    since = known.status.since if known.status is not None and same else c.now
    return RecipientStatus(known.mailbox, status, since, c.now, c.source, reply)


def _in_vain(known: Known, reason: str, c: Circumstances, elsewhere: str = "") -> RecipientTry:
    before = known.tried or RecipientTry(known.mailbox, 0.0, "")
    if not known.deliverable:  # forgotten meanwhile: then a doubt of it doubts nothing
        before = replace(before, against_since=0.0, against_host="")
    return replace(before, last_tried=c.now, last_outcome=reason, elsewhere=elsewhere)


def _settled(known: Known, outcome: str, c: Circumstances) -> RecipientTry | None:
    """The end of a contradiction, of an import or of what a worse preference said, where there was one."""
    tried = known.tried
    if tried is None or not (tried.against_since or tried.imported or tried.elsewhere):
        return None
    return RecipientTry(known.mailbox, c.now, outcome)


def says_nothing(tried: RecipientTry) -> bool:
    """Is what was found the status itself? Then this record goes."""
    return tried.last_outcome in (Status.DELIVERABLE.value, Status.UNDELIVERABLE.value)


def worth_writing(known: Known, learnt: Learnt, t: Lifetimes = LIFETIMES) -> bool:
    """A delivery to a recipient that is known anyway teaches nothing for a day."""
    old, new = known.status, learnt.status
    if learnt.tried is not None or new is None or old is None or old.status is not new.status:
        return True
    return new.confirmed - old.confirmed >= t.refresh_s


def is_over(s: RecipientStatus, primary: PrimaryState | None, now: float, t: Lifetimes = LIFETIMES) -> bool:
    """Is a status to be forgotten at `now` (wall seconds)? While the primary is away nothing grows older, and
    the operator's word never does."""
    if s.source == OPERATOR:
        return False
    if primary is not None and primary.away:
        now = min(now, primary.since)
    return now - s.confirmed >= (t.forget_s if s.status is Status.DELIVERABLE else t.undeliverable_s)


def try_is_over(known: Known, now: float, t: Lifetimes = LIFETIMES) -> bool:
    """Is the last try to be forgotten? A doubt stays as long as what it doubts, an import until it ends, and
    its reason where it was never asked about."""
    if known.tried is None or known.tried.imported or not known.tried.last_tried:
        return False
    if now - known.tried.last_tried < t.try_s:
        return False
    return not (known.deliverable and known.tried.against_since)


def next_probe(s: RecipientStatus, primary: PrimaryState | None, t: Lifetimes = LIFETIMES) -> float | None:
    """From when (wall seconds) the status is worth another question; None: not while the primary is away,
    when nothing that was valid expires."""
    if primary is not None and primary.away:
        return None
    return s.confirmed + (t.deliverable_s if s.status is Status.DELIVERABLE else t.recheck_s)


def next_try(tried: RecipientTry, t: Lifetimes = LIFETIMES) -> float:
    """From when (wall seconds) a recipient that could not be verified is worth another question."""
    return tried.last_tried + (t.witness_s if tried.against_since else t.unverifiable_s)


def is_due(known: Known, primary: PrimaryState | None, now: float, t: Lifetimes = LIFETIMES) -> bool:
    """Is a question worth a callout, or is what is known the answer? `now`: wall seconds."""
    status, tried = known.status, known.tried
    if status is not None and status.source == OPERATOR:
        return False
    if tried is not None and (status is None or tried.against_since or tried.last_tried > status.confirmed):
        clock_was_set_back = now < tried.last_tried  # then it settles nothing
        for_others = tried.elsewhere != ""  # it served those who asked then
        return clock_was_set_back or for_others or now >= next_try(tried, t)
    if status is None:
        return True
    due = next_probe(status, primary, t)
    return due is not None and now >= due


def asked_just_now(known: Known, now: float, t: Lifetimes = LIFETIMES) -> bool:
    """Then another question would not tell any better whether the primary is up. `now`: wall seconds."""
    times = [0.0 if known.status is None else known.status.confirmed]
    times.append(0.0 if known.tried is None else known.tried.last_tried)
    return any(0 <= now - at < t.unverifiable_s for at in times)


def again_after(learnt: Learnt, attempts: int, t: Lifetimes = LIFETIMES) -> float | None:
    """In how many seconds to ask again in the background, though nobody waits; None: not at all. `attempts`:
    so often it was asked in the background already."""
    if learnt.pending:
        return t.witness_s  # a yes ends the doubt, however long a second no has to wait for its time
    greylisted = learnt.tried is not None and learnt.tried.last_outcome == "greylisted"
    return t.greylist_s if greylisted and attempts < _GREYLIST_TIMES else None
