"""What a client is told, from facts alone: at connect, MAIL, RCPT, a callout's deadline and the final dot.

A permanent no about a recipient needs a fresh and whole table (rule 7); whatever is not known is temporary,
or accepted on suspicion.
"""

from typing import TypeVar

from libs.mail import replies
from libs.mail.address import Mailbox
from libs.mail.knowledge import Callouts, Health, RecipientStatus, Status
from libs.mail.records import Action, Admission, Basis, Kind, Unverified, Verdict
from libs.mail.reply import Reply
from libs.mail.settings import DAY_S, DomainSettings
from services.ingest import fallback
from services.ingest.facts import (
    UNVERIFIABLE_S,
    Accept,
    Ask,
    Envelope,
    Facts,
    FindOut,
    FlushFacts,
    Remember,
    Whose,
)
from services.ingest.limits import HOUR_S, NO_ROOM, Limit, Load

T = TypeVar("T")

OWN = frozenset({"postmaster", "abuse", "mailer-daemon"})  # RFC 5321 section 4.5.1, RFC 2142
NEGATIVE_S = 3 * HOUR_S  # while the primary is up an older negative is asked again before a 550
HOMELESS_S = 30 * DAY_S  # so long a domain without a usable MX counts as down
CLOCKS_S = 120.0  # the clocks of two processes may differ by so much (rule 10)
NEGATIVE_LATE_S = DAY_S  # when it cannot be asked, an older one is not enough for a 550


def at_connect(limit: Limit | None, host: str) -> Reply:
    """`limit`: the one that is in the way of this connection."""
    return replies.banner(host) if limit is None else NO_ROOM[limit](host)


def at_mail(envelope: Envelope, max_size: int, load: Load) -> Reply:
    """RFC 1870 section 6.1: a declared size that is too large for whomever is refused at once; `max_size` 0:
    nobody knows."""
    if max_size and envelope.size > max_size:
        return replies.TOO_LARGE
    return replies.SPOOL_FULL if load.full else replies.SENDER_OK


def at_rcpt(
    to: Mailbox, f: Facts, envelope: Envelope, now: float
) -> Reply | Accept | Ask | FindOut | Remember:
    """`now`: wall seconds."""
    if not to.domain or to.domain in f.names.hosts:
        return _own(to, f, envelope)  # RFC 5321 section 4.5.1: whoever sends it
    if envelope.blocked:
        return replies.SENDER_BLOCKED
    if f.settings is None:
        return _strange(to, whole=f.whole)
    if envelope.recipients and envelope.domain != to.domain:
        return replies.ANOTHER_DOMAIN
    answer = (
        _unready(f.settings)
        or _homeless(f, now)
        or (replies.STORAGE_TROUBLE if f.load.failed else None)
        or _full(f, envelope)
        or _incapable(f, envelope)
        or _known(to, f, now)
    )
    if f.settings.admission is Admission.FALLBACK and isinstance(answer, Accept):
        return fallback.sent_back(f, now) or (Ask(anew=True) if fallback.worth_asking(f, now) else answer)
    return answer


def at_deadline(to: Mailbox, f: Facts, envelope: Envelope, now: float) -> Reply | Accept | Remember:
    """No callout told anything, or none was worth waiting for."""
    return _incapable_now(f, envelope) or _in_vain(to, f, now)


def at_answer(to: Mailbox, f: Facts, envelope: Envelope, now: float) -> Reply | Accept | Remember:
    """A callout was answered since we asked, `f` is what is known after it."""
    if (incapable := _incapable_now(f, envelope)) is not None:
        return incapable
    if f.settings is not None and f.fresh and f.status is not None and _unready(f.settings) is None:
        answer = _doubted(f) or _said(to, f, f.status, now, "callout")
        if isinstance(answer, Accept):
            return fallback.sent_back(f, now) or answer
        if answer is not None:
            return answer
    answer = _elsewhere(to, f, _unverified(to, f, now), now)
    return (fallback.sent_back(f, now) or answer) if isinstance(answer, Accept) else answer


def _elsewhere(to: Mailbox, f: Facts, answer: Reply | Accept, now: float) -> Reply | Accept:
    """`answer`, or, where that only says that nothing is known, what an MX of a worse preference has just
    said. Its yes is no more than a suspicion: often it is a relay that takes anything."""
    said = "" if f.tried is None or not f.fresh else f.tried.elsewhere
    if f.tried is None or not -CLOCKS_S <= now - f.tried.last_tried < UNVERIFIABLE_S:
        return answer
    unsure = answer in (replies.CANNOT_VERIFY, replies.TOO_MANY_UNVERIFIED)
    suspected = isinstance(answer, Accept) and answer.basis is Basis.SUSPICION
    if said == Status.UNDELIVERABLE.value and (unsure or suspected):
        return replies.UNKNOWN_RECIPIENT
    if said == Status.DELIVERABLE.value and answer is replies.CANNOT_VERIFY and not f.load.suspicious:
        return _accept(to, f, Basis.SUSPICION, "callout")
    return answer


def _in_vain(to: Mailbox, f: Facts, now: float) -> Reply | Accept | Remember:
    answer = _unverified(to, f, now)
    return (fallback.sent_back(f, now) or answer) if isinstance(answer, Accept) else answer


def _unverified(to: Mailbox, f: Facts, now: float) -> Reply | Accept:
    if f.settings is None:
        return replies.DOMAINS_NOT_READY  # it went away while we waited
    if (unready := _unready(f.settings)) is not None:
        return unready
    if f.status is not None and f.status.status is Status.DELIVERABLE:
        return _accept(to, f, Basis.DELIVERABLE, "cache")
    if _braked(f):
        return replies.RECIPIENT_IN_DOUBT
    if f.status is not None and f.fresh and _is_late_enough(f.status, f, now):
        return replies.UNKNOWN_RECIPIENT
    if f.settings.unverified is Unverified.DEFER:
        return replies.CANNOT_VERIFY
    if f.load.suspicious or _over_budget(f, now):
        return replies.TOO_MANY_UNVERIFIED
    return _accept(to, f, Basis.SUSPICION, "suspicion")


def at_budget(answer: T, f: Facts, envelope: Envelope) -> T | Whose:
    """`answer`, as long as the client's budgets allow it. One that was told of so many unknown recipients is
    not told of another, and nobody is asked for it; with a recipient accepted its transaction goes on."""
    if f.load.suspicious and answer is replies.TOO_MANY_UNVERIFIED:
        return Whose(replies.TOO_MANY_UNVERIFIED)
    if f.load.harvesting and (answer is replies.UNKNOWN_RECIPIENT or _of_unknown(answer)):
        known = bool(envelope.recipients)
        return Whose(replies.TOO_MANY_UNKNOWN if known else replies.too_many_unknown(f.names.host))
    return answer


def _of_unknown(answer: object) -> bool:
    """A question about the recipient; one whether the primary is up is about a known one."""
    return isinstance(answer, Ask) and not answer.anew


def at_sender(answer: Accept, *, null_mx: bool) -> Reply | Accept:
    """RFC 7505 section 4.2: nobody can answer a sender whose domain takes no mail. Our own names hear all."""
    return replies.NULL_MX if null_mx and answer.kind is not Kind.OPERATOR else answer


def at_look_up(*, trouble: bool, names_us: bool) -> Reply:
    """What DNS says of a domain that we do not serve."""
    if trouble:
        return replies.DNS_TROUBLE
    return replies.DOMAIN_NOT_READY if names_us else replies.RELAYING_DENIED


def at_etrn(f: FlushFacts) -> Reply:
    """RFC 1985 section 5.3; with 25x the request is to be written. Whoever asks learns no more of our domains
    than RCPT tells, and how much waits is told to the primary alone. Temporary all of it: 458 and 459 are."""
    if f.spent:
        return replies.TOO_MANY_FLUSHES
    if f.settings is None:
        return replies.FLUSH_NOT_ALLOWED if f.whole else replies.CANNOT_FLUSH
    if _unready(f.settings) is not None:
        return replies.CANNOT_FLUSH
    if not f.own or f.primary is None:
        return replies.FLUSH_BEGUN
    return replies.flush_of(f.primary.waiting) if f.primary.waiting else replies.NOTHING_WAITS


def at_dot(verdict: Verdict | None, *, hides: bool) -> Reply | None:
    """None: the mail is accepted; without a verdict, too (DNS trouble and time-outs are temperror), but not
    where its long header `hides` a field that nobody has looked at and that may forge our results."""
    if hides and (verdict is None or verdict.unread):
        return replies.HEADER_UNREAD
    if verdict is None or verdict.action is Action.ACCEPT:
        return None
    return replies.policy(verdict.reply, permanent=verdict.action is Action.REJECT)


def _own(to: Mailbox, f: Facts, envelope: Envelope) -> Reply | Accept:
    host = f.names.hosts.get(to.domain, f.names.host)
    if to.local.lower() not in OWN:
        return replies.UNKNOWN_RECIPIENT
    if envelope.recipients and envelope.domain != host:
        return replies.ANOTHER_DOMAIN
    if not f.whole:
        return replies.DOMAINS_NOT_READY  # rule 7: nothing goes into a log that may be another installation's
    if f.load.failed:
        return replies.STORAGE_TROUBLE
    operators = f.names.operators
    return Accept(host, operators.domain, str(operators), Basis.DELIVERABLE, "own", Kind.OPERATOR)


def _strange(to: Mailbox, *, whole: bool) -> Reply | FindOut:
    """No domain of ours, as far as the table knows. A literal or a single label never is one."""
    if to.domain.startswith("[") or "." not in to.domain:
        return replies.RELAYING_DENIED
    return FindOut(to.domain) if whole else replies.DOMAINS_NOT_READY


def _unready(settings: DomainSettings) -> Reply | None:
    if settings.suspended:
        return replies.DOMAIN_SUSPENDED
    if settings.leaving:
        return replies.DOMAIN_NOT_READY  # as for one that is not ours and names us
    return None if settings.active else replies.DOMAIN_NOT_READY


def _homeless(f: Facts, now: float) -> Reply | None:
    """DNS alone never costs a mail for as long as the last working MX set is remembered; a domain that has
    had none since, or ever, has no server to keep mail for."""
    state = f.primary
    if state is None or state.health is not Health.DOWN:
        return None
    return replies.NO_PRIMARY if now - max(state.mx_seen, state.confirmed) > HOMELESS_S else None


def _full(f: Facts, envelope: Envelope) -> Reply | None:
    """Does as much mail wait for this domain as may? What it has is seconds old: a few may be too many."""
    if f.primary is None:
        return None
    assert f.settings is not None
    full = f.primary.waiting >= f.settings.max_waiting
    full = full or f.primary.bytes + envelope.size >= f.settings.max_waiting_size
    return replies.DOMAIN_FULL if full else None


def _incapable(f: Facts, envelope: Envelope) -> Reply | None:
    """What the domain or its primary is known not to take."""
    assert f.settings is not None
    if envelope.size > f.settings.max_size:
        return replies.TOO_LARGE if f.whole else replies.DOMAINS_NOT_READY
    if f.learnt is None:
        return None
    if f.fresh and f.learnt.size and envelope.size > f.learnt.size:
        return replies.PRIMARY_TAKES_LESS
    if f.fresh and envelope.smtputf8 and f.learnt.smtputf8 is False:
        return replies.PRIMARY_LACKS_UTF8
    if f.learnt.callouts is Callouts.LATE_REJECT and envelope.recipients:
        return replies.TOO_MANY_RECIPIENTS  # its 5yz after the dot must speak of one recipient
    return None


def _incapable_now(f: Facts, envelope: Envelope) -> Reply | None:
    """The first question to a primary tells what it does not take, and counts for whom it was asked."""
    return None if f.settings is None or _unready(f.settings) else _incapable(f, envelope)


def _known(to: Mailbox, f: Facts, now: float) -> Reply | Accept | Ask | Remember:
    away = f.away
    if f.status is not None and f.fresh:
        answer: Reply | Accept | None = _doubted(f)
        if answer is None and (f.status.status is Status.DELIVERABLE or not away):
            answer = _said(to, f, f.status, now, "cache")
        if answer is not None:
            return answer
    if f.status is not None and f.status.status is Status.DELIVERABLE:
        return _accept(to, f, Basis.DELIVERABLE, "cache")
    if _braked(f):
        return replies.RECIPIENT_IN_DOUBT  # nobody new is believed, nobody is refused
    if away or f.tried_lately(now) or (f.learnt is not None and f.learnt.callouts is Callouts.CATCH_ALL):
        return _in_vain(to, f, now)
    return Ask(wait=f.learnt is None or f.learnt.callouts is not Callouts.BLOCKED)


def _over_budget(f: Facts, now: float) -> bool:
    """verify did not ask: too many unknown recipients of this primary within the hour (a dictionary
    attack)."""
    return f.tried is not None and f.tried.last_outcome == "budget" and f.tried_lately(now)


def _said(to: Mailbox, f: Facts, status: RecipientStatus, now: float, source: str) -> Reply | Accept | None:
    """What a status says as long as it can be asked again; None: ask again."""
    if status.status is Status.DELIVERABLE:
        return _accept(to, f, Basis.DELIVERABLE, source)
    believed = -CLOCKS_S <= now - status.confirmed <= NEGATIVE_S and not (_braked(f) or _overtaken(f, status))
    return replies.UNKNOWN_RECIPIENT if believed else None


def _doubted(f: Facts) -> Reply | None:
    """A recipient once deliverable that a callout contradicts is in doubt until a second witness comes. Where
    none can come, as nobody is asked, what was known stands: a doubt would last as long as that does."""
    if f.tried is None or not f.tried.against_since or _braked(f):
        return None
    nobody_is_asked = f.away or (f.learnt is not None and f.learnt.callouts is not Callouts.OPEN)
    return None if nobody_is_asked else replies.RECIPIENT_IN_DOUBT


def _braked(f: Facts) -> bool:
    """The callout brake is pulled: the primary denies recipients that it had."""
    return f.learnt is not None and f.learnt.braked


def _overtaken(f: Facts, status: RecipientStatus) -> bool:
    """The primary began to accept everybody after this was said."""
    learnt = f.learnt
    return learnt is not None and learnt.callouts is Callouts.CATCH_ALL and learnt.since > status.confirmed


def _is_late_enough(status: RecipientStatus, f: Facts, now: float) -> bool:
    """Is a no that cannot be asked again believed? The time of an outage does not count: nothing expires
    during one. Nor is a no believed that comes from the future: a clock was wrong."""
    if _overtaken(f, status):
        return False
    until = min(now, f.primary.since) if f.primary is not None and f.away else now
    return now - status.confirmed >= -CLOCKS_S and until - status.confirmed <= NEGATIVE_LATE_S


def _accept(to: Mailbox, f: Facts, basis: Basis, source: str) -> Accept:
    era = None if f.settings is None else f.settings.era
    return Accept(to.domain, to.domain, str(to), basis, source, era=era)
