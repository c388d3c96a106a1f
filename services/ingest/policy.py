"""What a client is told, from facts alone: at connect, MAIL, RCPT, a callout's deadline and the final dot.

A permanent no about a recipient needs a fresh and whole table (rule 7); whatever is not known is temporary,
or accepted on suspicion.
"""

from typing import NamedTuple, TypeVar

from msgspec import Struct

from libs.mail import replies
from libs.mail.address import Mailbox
from libs.mail.records import (
    Action,
    Admission,
    Basis,
    Callouts,
    Health,
    Kind,
    PrimaryFacts,
    PrimaryState,
    Recipient,
    RecipientRecord,
    RecipientStatus,
    RecipientTry,
    Status,
    Unverified,
    Verdict,
)
from libs.mail.reply import Reply
from libs.mail.settings import DomainSettings
from services.ingest.limits import NO_ROOM, Limit, Load

T = TypeVar("T")

OWN = frozenset({"postmaster", "abuse", "mailer-daemon"})  # RFC 5321 section 4.5.1, RFC 2142
HOUR_S, DAY_S = 3600.0, 86_400.0
NEGATIVE_S = 3 * HOUR_S  # while the primary is up an older negative is asked again before a 550
NEGATIVE_LATE_S = DAY_S  # when it cannot be asked, an older one is not enough for a 550
UNVERIFIABLE_S = 60.0  # a recipient that could not be verified is tried again after this
SPOKE = frozenset(
    {"deliverable", "undeliverable", "contradicted", "greylisted", "up"}
)  # a try's outcomes at RCPT
UP_S = 60.0  # admission `fallback`: a primary confirmed within this is up
INTRODUCED_S = 300.0  # admission `fallback`: a second try that comes so long after the first is taken


class OurNames(Struct, frozen=True):
    """`host`: this host; `hosts`: the names of all our hosts and the address literals of this one, each with
    the host name it stands for; `operators`: who reads the mail to them."""

    host: str
    hosts: dict[str, str]
    operators: Mailbox


class Envelope(Struct, frozen=True):
    """The transaction so far. `reverse_path` "" for <>; `size`: declared, 0 where not. `domain`, `next_hop`
    and `kind` are those of the recipients, "" before the first. `blocked`: the operator takes no mail from
    this reverse-path."""

    reverse_path: str
    size: int = 0
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    recipients: tuple[Recipient, ...] = ()
    domain: str = ""
    next_hop: str = ""
    kind: Kind = Kind.RELAYED
    blocked: bool = False

    @property
    def sender(self) -> str:
        """The domain of the reverse-path, "" for <>."""
        return self.reverse_path.rpartition("@")[2]


class Facts(Struct, frozen=True):
    """All that is known when a recipient is judged. `whole`: the table of domains is fresh and complete;
    `fresh`: what is known of recipients is; `tried`: the last callout, with or without a result.

    For admission `fallback` only: `heard`: when (wall seconds) the primary last spoke of another one;
    `sighted_s`: how long ago this client first came with this sender and recipient, None: it never did."""

    names: OurNames
    whole: bool
    settings: DomainSettings | None
    fresh: bool = False
    status: RecipientStatus | None = None
    tried: RecipientTry | None = None
    primary: PrimaryState | None = None
    learnt: PrimaryFacts | None = None
    load: Load = Load()
    heard: float = 0.0
    sighted_s: float | None = None


class FlushFacts(NamedTuple):
    """What is known when a client asks for a domain's mail to be sent on. `own`: it has an address of the
    domain's primary; `spent`: it asked too often. `settings`, `whole`: as in Facts."""

    whole: bool
    settings: DomainSettings | None = None
    primary: PrimaryState | None = None
    own: bool = False
    spent: bool = False


class Accept(Struct, frozen=True):
    """The recipient is taken. `mailbox`: whom the mail is for (mail to our own names: the operators);
    `source`: own, cache, callout or suspicion, for metrics."""

    domain: str
    next_hop: str
    mailbox: str
    basis: Basis
    source: str
    kind: Kind = Kind.RELAYED


class Ask(Struct, frozen=True):
    """Only a callout can tell. `wait`: it is worth waiting for; `anew`: it shall tell whether the primary is
    up, what is known of the recipient does not answer it."""

    wait: bool = True
    anew: bool = False


class Remember(Struct, frozen=True):
    """Say `reply`, and remember that this client came with this sender and recipient."""

    reply: Reply


class Whose(Struct, frozen=True):
    """A budget of the client's is spent. Is it the primary itself? `answer`: what it hears if not."""

    answer: Reply


class FindOut(Struct, frozen=True):
    """We do not serve this domain: does its MX set name us?"""

    domain: str


def at_connect(limit: Limit | None, host: str) -> Reply:
    """`limit`: the one that is in the way of this connection."""
    return replies.banner(host) if limit is None else NO_ROOM[limit](host)


def at_mail(envelope: Envelope, max_size: int, load: Load) -> Reply:
    """RFC 1870 section 6.1: a declared size that is too large is refused at once."""
    if envelope.size > max_size:
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
        or (replies.STORAGE_TROUBLE if f.load.failed else None)
        or _full(f, envelope)
        or _incapable(f, envelope)
        or _known(to, f, now)
    )
    if f.settings.admission is Admission.FALLBACK and isinstance(answer, Accept):
        return _sent_back(f, now) or (Ask(anew=True) if _is_it_up(f, now) else answer)
    return answer


def at_deadline(to: Mailbox, f: Facts, now: float) -> Reply | Accept | Remember:
    """No callout told anything, or none was worth waiting for."""
    answer = _unverified(to, f, now)
    return (_sent_back(f, now) or answer) if isinstance(answer, Accept) else answer


def at_answer(to: Mailbox, f: Facts, now: float) -> Reply | Accept | Remember:
    """A callout was answered since we asked, `f` is what is known after it."""
    if f.settings is not None and f.fresh and f.status is not None and _unready(f.settings) is None:
        answer = _doubted(f) or _said(to, f.status, now, "callout")
        if isinstance(answer, Accept):
            return _sent_back(f, now) or answer
        if answer is not None:
            return answer
    return at_deadline(to, f, now)


def _unverified(to: Mailbox, f: Facts, now: float) -> Reply | Accept:
    if f.settings is None:
        return replies.DOMAINS_NOT_READY  # it went away while we waited
    if (unready := _unready(f.settings)) is not None:
        return unready
    if f.status is not None and f.status.status is Status.DELIVERABLE:
        return _accept(to, Basis.DELIVERABLE, "cache")
    if f.status is not None and f.fresh and _age_s(f.status, f.primary, now) <= NEGATIVE_LATE_S:
        return replies.UNKNOWN_RECIPIENT
    if f.settings.unverified is Unverified.DEFER:
        return replies.CANNOT_VERIFY
    if f.load.suspicious or _over_budget(f, now):
        return replies.TOO_MANY_UNVERIFIED
    return _accept(to, Basis.SUSPICION, "suspicion")


def heard_at(record: RecipientRecord) -> float:
    """When (wall seconds) the primary said what stands here; 0 where it did not speak of a mailbox."""
    match record:
        case RecipientStatus(confirmed=at):
            return at
        case RecipientTry(last_tried=at, last_outcome=outcome) if outcome in SPOKE:
            return at
        case _:
            return 0.0


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


def at_dot(verdict: Verdict | None) -> Reply | None:
    """None: the mail is accepted; without a verdict always (DNS trouble and time-outs are temperror)."""
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
    return None if settings.active else replies.DOMAIN_NOT_READY


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
        return replies.TOO_LARGE
    if f.learnt is None:
        return None
    if f.fresh and f.learnt.size and envelope.size > f.learnt.size:
        return replies.PRIMARY_TAKES_LESS
    if f.fresh and envelope.smtputf8 and f.learnt.smtputf8 is False:
        return replies.PRIMARY_LACKS_UTF8
    if f.learnt.callouts is Callouts.LATE_REJECT and envelope.recipients:
        return replies.TOO_MANY_RECIPIENTS  # its 5yz after the dot must speak of one recipient
    return None


def _known(to: Mailbox, f: Facts, now: float) -> Reply | Accept | Ask | Remember:
    away = _away(f.primary)
    if f.status is not None and f.fresh:
        answer: Reply | Accept | None = _doubted(f)
        if answer is None and (f.status.status is Status.DELIVERABLE or not away):
            answer = _said(to, f.status, now, "cache")
        if answer is not None:
            return answer
    if f.status is not None and f.status.status is Status.DELIVERABLE:
        return _accept(to, Basis.DELIVERABLE, "cache")
    if f.learnt is not None and f.learnt.braked:
        return replies.RECIPIENT_IN_DOUBT  # callout brake: nobody new is believed, nobody is refused
    if away or _lately(f, now) or (f.learnt is not None and f.learnt.callouts is Callouts.CATCH_ALL):
        return at_deadline(to, f, now)
    return Ask(wait=f.learnt is None or f.learnt.callouts is not Callouts.BLOCKED)


def _away(primary: PrimaryState | None) -> bool:
    return primary is not None and primary.health in (Health.DOWN, Health.DEFERRING)


def _lately(f: Facts, now: float) -> bool:
    """A callout told nothing just now: another one is not worth its time yet."""
    return f.tried is not None and 0 <= now - f.tried.last_tried < UNVERIFIABLE_S


def _sent_back(f: Facts, now: float) -> Reply | Remember | None:
    """Admission `fallback`: the 451 of whom we would take, while the primary is up and he is new."""
    if f.settings is None or f.settings.admission is Admission.ALWAYS or _introduced(f):
        return None
    if _away(f.primary) or not _is_up(f, now):
        return None
    return Remember(replies.TRY_THE_PRIMARY) if f.sighted_s is None else replies.TRY_THE_PRIMARY


def _introduced(f: Facts) -> bool:
    return f.sighted_s is not None and f.sighted_s >= INTRODUCED_S


def _is_up(f: Facts, now: float) -> bool:
    """Was it confirmed within UP_S, by whatever it said to us? A clock that was set back confirms nothing."""
    confirmed = 0.0 if f.primary is None else f.primary.confirmed
    times = (f.heard, confirmed, *(heard_at(said) for said in (f.status, f.tried) if said is not None))
    return any(abs(now - at) <= UP_S for at in times)


def _is_it_up(f: Facts, now: float) -> bool:
    """Is that worth a question? Not once nobody cares, and not while none is answered."""
    blocked = f.learnt is not None and f.learnt.callouts is Callouts.BLOCKED
    return not (_introduced(f) or _away(f.primary) or blocked or _lately(f, now))


def _over_budget(f: Facts, now: float) -> bool:
    """verify did not ask: too many unknown recipients of this primary within the hour (a dictionary
    attack)."""
    tried = f.tried
    return (
        tried is not None and tried.last_outcome == "budget" and 0 <= now - tried.last_tried < UNVERIFIABLE_S
    )


def _said(to: Mailbox, status: RecipientStatus, now: float, source: str) -> Reply | Accept | None:
    """What a status says as long as it can be asked again; None: ask again."""
    if status.status is Status.DELIVERABLE:
        return _accept(to, Basis.DELIVERABLE, source)
    return replies.UNKNOWN_RECIPIENT if now - status.confirmed <= NEGATIVE_S else None


def _doubted(f: Facts) -> Reply | None:
    """A recipient once deliverable that a callout contradicts is in doubt until a second witness comes."""
    if f.tried is None or not f.tried.against_since or (f.learnt is not None and f.learnt.braked):
        return None
    return replies.RECIPIENT_IN_DOUBT


def _age_s(status: RecipientStatus, primary: PrimaryState | None, now: float) -> float:
    """How old a status is, not counting the time of an outage: nothing expires during one."""
    if primary is not None and _away(primary):
        now = min(now, primary.since)
    return now - status.confirmed


def _accept(to: Mailbox, basis: Basis, source: str) -> Accept:
    return Accept(to.domain, to.domain, str(to), basis, source)
