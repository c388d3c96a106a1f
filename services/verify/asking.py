"""May this primary be asked now, and what did asking teach about it: hold-offs, blocks, budgets, the
brake."""

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from libs.mail.knowledge import Callouts, PrimaryFacts, Status
from libs.mail.settings import DAY_S
from libs.mail.trouble import Server

UNREACHABLE_S = 15.0  # after all its addresses failed, nobody waits for another time-out
BLOCKED_S = 900.0  # a primary that blocks us is tried so often
NEGATIVES, NEGATIVES_S = 30, 3600.0  # more are a dictionary attack through us
FLIPS, FLIPS_S = 3, 3600.0  # so many contradicted recipients pull the callout brake
ACCEPTED = 30  # new recipients accepted, and it is time to ask for one that nobody has
POLICIES = 2  # different recipients refused for policy in a row: it is about us


class Asked(Struct, frozen=True):
    """What this process remembers of one primary. Times are monotonic seconds; `negatives`, `flips`: when
    (and who); `refused`: recipients refused for policy since the last that was not; `reply`: the
    last line of that kind; `probed`: when it was last asked about a mailbox that nobody has; `beside`: does
    a worse preference answer while the best one is held (None: it was not dialled since);
    `accepted`: how many unknown ones it accepted since it was last asked about a mailbox that nobody has."""

    held_until: float = 0.0
    hold: str = ""
    beside: bool | None = None
    negatives: tuple[float, ...] = ()
    flips: tuple[tuple[float, str], ...] = ()
    refused: frozenset[str] = frozenset()
    reply: str = ""
    probed: float = float("-inf")
    accepted: int = 0

    @property
    def suspect(self) -> bool:
        """May it be that it accepts everybody by now?"""
        return self.accepted >= ACCEPTED


class Heard(NamedTuple):
    """One answer about the recipient with `key`: `outcome` deliverable, undeliverable or an Unverifiable's
    reason; `blocked`: as in Unverifiable; `pending`: as in Learnt; `known`: the recipient has a status;
    `guess`: a client named it; `reply`: the line; `elsewhere`: as in RecipientTry."""

    key: str
    outcome: str
    blocked: bool = False
    pending: bool = False
    known: bool = False
    guess: bool = True
    reply: str = ""
    elsewhere: str = ""


def hold(
    asked: Asked, facts: PrimaryFacts | None, *, known: bool, now: float, anew: bool = False,
    elsewhere: bool = False,
) -> str:  # fmt: skip
    """Why a recipient is not asked about now, as RecipientTry.last_outcome; "": ask. `known`: it has a
    status; a spent budget never touches it; `anew`: the question is whether the primary is up; `elsewhere`:
    an MX of a worse preference may answer it."""
    if not anew and facts is not None and facts.callouts in (Callouts.CATCH_ALL, Callouts.LATE_REJECT):
        return facts.callouts.value
    if now < asked.held_until and not (elsewhere and held(asked, now)):
        return asked.hold
    if not known and len(_recent(asked.negatives, now - NEGATIVES_S)) >= NEGATIVES:
        return "budget"
    return ""


def unreachable(asked: Asked, reason: str, now: float) -> Asked:
    """No address of the best preference took us to RCPT."""
    return replace(asked, held_until=now + UNREACHABLE_S, hold=reason, beside=None)


def held(asked: Asked, now: float) -> str:
    """The reason why a worse preference is to be asked in the place of the best one now, or ""."""
    return asked.hold if asked.beside is not False and now < asked.held_until else ""


def heard(asked: Asked, h: Heard, now: float) -> Asked:
    """After an answer."""
    if h.outcome == "policy" and not h.blocked:
        return _held(replace(asked, refused=asked.refused | {h.key}, reply=h.reply), now)
    if h.blocked:
        return replace(asked, held_until=now + BLOCKED_S, hold="blocked", reply=h.reply, beside=False)
    if h.elsewhere == Status.UNDELIVERABLE.value and not h.known and h.guess:
        return replace(asked, negatives=(*_recent(asked.negatives, now - NEGATIVES_S), now))
    if h.outcome not in ("deliverable", "undeliverable", "contradicted"):
        return asked
    negatives = _recent(asked.negatives, now - NEGATIVES_S)
    if h.outcome == "undeliverable" and not h.known and h.guess:
        negatives = (*negatives, now)
    flips = tuple(flip for flip in asked.flips if flip[0] > now - FLIPS_S and flip[1] != h.key)
    if h.pending:
        flips = (*flips, (now, h.key))
    elif h.outcome == "deliverable" and h.known:
        flips = ()  # the primary still knows its users: the brake ends
    accepted = asked.accepted + (h.outcome == "deliverable" and not h.known and h.guess)
    return replace(
        asked,
        held_until=0.0,
        hold="",
        negatives=negatives,
        flips=flips,
        refused=frozenset(),
        accepted=accepted,
    )


def _held(asked: Asked, now: float) -> Asked:
    if len(asked.refused) < POLICIES:
        return asked
    return replace(asked, held_until=now + BLOCKED_S, hold="blocked", beside=False)


def _recent(times: tuple[float, ...], after: float) -> tuple[float, ...]:
    return tuple(time for time in times if time > after)


class Offered(NamedTuple):
    """What EHLO said, and which server the greeting names."""

    size: int = 0
    smtputf8: bool = False
    dsn: bool = False
    starttls: bool = False
    server: Server = Server.ANY


class Said(NamedTuple):
    """What an answer brought. `now`: wall seconds; `offered`: None where no EHLO was heard; `answered`: the
    primary spoke of a mailbox; `confirmed`: a recipient with a status was accepted, which ends the brake;
    `host`: who of us asked; `greylister`: it wants us to come again, and this is who says so."""

    now: float
    offered: Offered | None
    answered: bool
    confirmed: bool
    host: str = ""
    greylister: Server | None = None


def facts(old: PrimaryFacts | None, domain: str, asked: Asked, said: Said) -> PrimaryFacts:
    """What to publish about the primary."""
    before = old or PrimaryFacts(domain, Callouts.OPEN, said.now)
    callouts = before.callouts
    if callouts is Callouts.OPEN and asked.hold == "blocked":
        callouts = Callouts.BLOCKED
    elif callouts is Callouts.BLOCKED and said.answered:
        callouts = Callouts.OPEN
    braked = (before.braked or len(asked.flips) >= FLIPS) and not said.confirmed
    new = replace(before, callouts=callouts, braked=braked)
    if said.offered is not None:
        size, smtputf8, dsn, starttls, server = said.offered
        name = _name(server)
        new = replace(new, size=size, smtputf8=smtputf8, dsn=dsn, starttls=starttls, server=name)
    if said.greylister is not None:
        name = _name(said.greylister) or new.greylister
        if name != new.greylister or said.now - new.greylisted >= DAY_S:
            new = replace(new, greylisted=said.now, greylister=name)
    if callouts is before.callouts:
        return new
    blocked = callouts is Callouts.BLOCKED
    reply, host = (asked.reply, said.host) if blocked else ("", "")
    return replace(new, since=said.now, reply=reply, host=host)


def _name(server: Server) -> str:
    return "" if server is Server.ANY else server.value


def rejects_late(old: PrimaryFacts | None, domain: str, now: float, *, late: bool) -> PrimaryFacts:
    """A delivery saw an unknown mailbox after the final dot (`late`) or at RCPT."""
    before = old or PrimaryFacts(domain, Callouts.OPEN, now)
    if late:
        callouts = Callouts.LATE_REJECT
    else:
        callouts = Callouts.OPEN if before.callouts is Callouts.LATE_REJECT else before.callouts
    return before if callouts is before.callouts else replace(before, callouts=callouts, since=now)


def probed(old: PrimaryFacts | None, domain: str, now: float, *, accepted: bool) -> PrimaryFacts:
    """It answered for a mailbox that nobody has. Who accepts that one accepts everything, or rejects late, as
    only a delivery can tell. `now`: wall seconds."""
    before = old or PrimaryFacts(domain, Callouts.OPEN, now)
    callouts = before.callouts
    if accepted and callouts is not Callouts.LATE_REJECT:
        callouts = Callouts.CATCH_ALL
    elif not accepted and callouts is not Callouts.BLOCKED:  # facts() ends a block
        callouts = Callouts.OPEN
    if callouts is before.callouts:
        return replace(before, probed=now)
    return replace(before, callouts=callouts, since=now, probed=now, reply="", host="")


def since_start(doubts: Iterable[tuple[bytes, float]], wall: float, mono: float) -> Asked:
    """What is remembered of a primary whose partition is new here: who of it is in doubt, since when (wall
    seconds)."""
    return Asked(flips=tuple((mono - max(0.0, wall - since), key.decode()) for key, since in doubts))


class Pace(Struct, frozen=True):
    """A token bucket for one dialled address: `tokens` at `at` (monotonic)."""

    tokens: float
    at: float


PACE_PER_S, PACE_BURST = 100.0, 200.0  # recipients asked about, of all domains that share the address


def paced(
    pace: Pace | None, count: int, now: float, per_s: float = PACE_PER_S, burst: float = PACE_BURST
) -> tuple[Pace, float]:
    """Take `count` tokens; the seconds to wait before using them."""
    before = pace or Pace(burst, now)
    tokens = min(burst, before.tokens + (now - before.at) * per_s) - count
    return Pace(tokens, now), max(0.0, -tokens / per_s)
