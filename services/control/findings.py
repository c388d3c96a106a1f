"""What is wrong with a domain, from what an examination saw. What it means for people is in diagnoses.py."""

from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct

from libs.mail.knowledge import Callouts, Health
from libs.mail.speaks import Speaks, Stage, speaks
from libs.mail.stance import Stance, stance
from services.control.examined import Dns, Examined, Exchange, Heard, Visit

SLOW_S = 10.0  # a sender waits at RCPT for 20 s at most


class Light(StrEnum):
    """The five questions of an owner: is DNS right, is the server reached, does it answer about recipients,
    does it take mail of strangers from us, do we know who is there?"""

    MX = "mx"
    REACHABLE = "reachable"
    CALLOUTS = "callouts"
    SPF = "spf"
    RECIPIENTS = "recipients"


class Level(StrEnum):
    """WRONG: mail is lost to the domain or refused in an outage. WARNING: it will be, one day, or some of it.
    NOTE: worth knowing."""

    WRONG = "wrong"
    WARNING = "warning"
    NOTE = "note"


class Kind(StrEnum):
    NXDOMAIN = "nxdomain"
    DNS_TROUBLE = "dns-trouble"
    NULL_MX = "null-mx"
    NO_MX = "no-mx"
    NOT_NAMED = "not-named"
    HOST_MISSING = "host-missing"
    NOTHING_ABOVE = "nothing-above"
    EQUAL_PREFERENCE = "equal-preference"
    BELOW_US = "below-us"
    OWN_ALIAS = "own-alias"
    MX_ADDRESS = "mx-address"
    MX_ALIAS = "mx-alias"
    MX_WITHOUT_ADDRESS = "mx-without-address"
    MX_TROUBLE = "mx-trouble"
    FORBIDDEN = "forbidden"
    STS_WITHOUT_US = "sts-without-us"
    NOT_REGISTERED = "not-registered"
    PENDING = "pending"
    REFUSED = "refused"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    NO_SOURCE = "no-source"
    TURNED_AWAY = "turned-away"
    HUNG_UP = "hung-up"
    NO_SMTP = "no-smtp"
    OURSELVES = "ourselves"
    ONE_OF_SEVERAL = "one-of-several"
    NO_STARTTLS = "no-starttls"
    STARTTLS_FAILS = "starttls-fails"
    CERTIFICATE = "certificate"
    NO_PIPELINING = "no-pipelining"
    NO_8BITMIME = "no-8bitmime"
    NO_SMTPUTF8 = "no-smtputf8"
    NO_DSN = "no-dsn"
    SMALLER = "smaller"
    SLOW = "slow"
    BLOCKED = "blocked"
    GREYLISTED = "greylisted"
    DEFERS_ALL = "defers-all"
    ACCEPTS_ALL = "accepts-all"
    REFUSES_LATE = "refuses-late"
    UNCLEAR_DENIAL = "unclear-denial"
    NO_POSTMASTER = "no-postmaster"
    KNOWN_DENIED = "known-denied"
    CALLOUT_BRAKE = "callout-brake"
    SPF_CHECKED = "spf-checked"
    SPF_UNTRIED = "spf-untried"
    REFUSING = "refusing"
    BOUNCE_BRAKE = "bounce-brake"
    NOBODY_KNOWN = "nobody-known"


_W, _A, _N = Level.WRONG, Level.WARNING, Level.NOTE
# Which light each kind is about, and how bad it is.
KINDS: dict[Kind, tuple[Light, Level]] = {
    Kind.NXDOMAIN: (Light.MX, _W),
    Kind.DNS_TROUBLE: (Light.MX, _W),
    Kind.NULL_MX: (Light.MX, _W),
    Kind.NO_MX: (Light.MX, _W),
    Kind.NOT_NAMED: (Light.MX, _W),
    Kind.HOST_MISSING: (Light.MX, _A),
    Kind.NOTHING_ABOVE: (Light.MX, _W),
    Kind.EQUAL_PREFERENCE: (Light.MX, _W),
    Kind.BELOW_US: (Light.MX, _A),
    Kind.OWN_ALIAS: (Light.MX, _W),
    Kind.MX_ADDRESS: (Light.MX, _W),
    Kind.MX_ALIAS: (Light.MX, _A),
    Kind.MX_WITHOUT_ADDRESS: (Light.MX, _W),
    Kind.MX_TROUBLE: (Light.MX, _W),
    Kind.FORBIDDEN: (Light.MX, _W),
    Kind.STS_WITHOUT_US: (Light.MX, _W),
    Kind.NOT_REGISTERED: (Light.MX, _W),
    Kind.PENDING: (Light.MX, _W),
    Kind.REFUSED: (Light.REACHABLE, _W),
    Kind.SILENT: (Light.REACHABLE, _W),
    Kind.UNREACHABLE: (Light.REACHABLE, _W),
    Kind.NO_SOURCE: (Light.REACHABLE, _W),
    Kind.TURNED_AWAY: (Light.REACHABLE, _W),
    Kind.HUNG_UP: (Light.REACHABLE, _W),
    Kind.NO_SMTP: (Light.REACHABLE, _W),
    Kind.OURSELVES: (Light.REACHABLE, _W),
    Kind.ONE_OF_SEVERAL: (Light.REACHABLE, _A),
    Kind.NO_STARTTLS: (Light.REACHABLE, _A),
    Kind.STARTTLS_FAILS: (Light.REACHABLE, _A),
    Kind.CERTIFICATE: (Light.REACHABLE, _N),
    Kind.NO_PIPELINING: (Light.REACHABLE, _N),
    Kind.NO_8BITMIME: (Light.REACHABLE, _N),
    Kind.NO_SMTPUTF8: (Light.REACHABLE, _N),
    Kind.NO_DSN: (Light.REACHABLE, _N),
    Kind.SMALLER: (Light.REACHABLE, _A),
    Kind.SLOW: (Light.CALLOUTS, _A),
    Kind.BLOCKED: (Light.CALLOUTS, _W),
    Kind.GREYLISTED: (Light.CALLOUTS, _W),
    Kind.DEFERS_ALL: (Light.CALLOUTS, _W),
    Kind.ACCEPTS_ALL: (Light.CALLOUTS, _A),
    Kind.REFUSES_LATE: (Light.CALLOUTS, _A),
    Kind.UNCLEAR_DENIAL: (Light.CALLOUTS, _A),
    Kind.NO_POSTMASTER: (Light.CALLOUTS, _A),
    Kind.KNOWN_DENIED: (Light.CALLOUTS, _W),
    Kind.CALLOUT_BRAKE: (Light.CALLOUTS, _W),
    Kind.SPF_CHECKED: (Light.SPF, _W),
    Kind.SPF_UNTRIED: (Light.SPF, _A),
    Kind.REFUSING: (Light.REACHABLE, _W),
    Kind.BOUNCE_BRAKE: (Light.RECIPIENTS, _W),
    Kind.NOBODY_KNOWN: (Light.RECIPIENTS, _A),
}


class Finding(Struct, frozen=True):
    """`at`: the host or address that it is about, "" for the domain as a whole; `detail`: what was seen
    there: a reply, a name, a number."""

    kind: Kind
    at: str = ""
    detail: str = ""

    @property
    def light(self) -> Light:
        return KINDS[self.kind][0]

    @property
    def level(self) -> Level:
        return KINDS[self.kind][1]


def findings(seen: Examined) -> tuple[Finding, ...]:
    """In the order in which they are worth mending; each once."""
    found = [*_registered(seen), *_mx(seen), *_policy(seen), *_servers(seen), *_state(seen)]
    return tuple(dict.fromkeys(found))


def lights(found: tuple[Finding, ...], seen: Examined) -> dict[Light, Level | None]:
    """The worst of each; None: nothing is wrong. What could not be looked at as the server was not reached is
    a warning: nobody knows."""
    worst: dict[Light, Level | None] = dict.fromkeys(Light)
    for level in (Level.NOTE, Level.WARNING, Level.WRONG):
        for each in found:
            if each.level is level:
                worst[each.light] = level
    if not any(visit.reached for visit in seen.visits):
        for light in (Light.REACHABLE, Light.CALLOUTS, Light.SPF):
            worst[light] = worst[light] or Level.WARNING
    return worst


def _registered(seen: Examined) -> Iterator[Finding]:
    if not seen.known.registered:
        yield Finding(Kind.NOT_REGISTERED)


def _mx(seen: Examined) -> Iterator[Finding]:
    match seen.mx:
        case Dns.NXDOMAIN:
            yield Finding(Kind.NXDOMAIN)
        case Dns.TROUBLE:
            yield Finding(Kind.DNS_TROUBLE)
        case Dns.NONE:
            yield Finding(Kind.NO_MX)
        case Dns.OK if all(not each.host for each in seen.exchanges):
            yield Finding(Kind.NULL_MX)
        case Dns.OK:
            yield from _set(seen)


def _set(seen: Examined) -> Iterator[Finding]:
    """The MX set as a whole, then each record."""
    named = [each for each in seen.exchanges if each.ours]
    if not named:
        yield Finding(Kind.NOT_NAMED, detail=" ".join(seen.us))
    else:
        for host in seen.us:
            if host not in {each.host for each in named}:
                yield Finding(Kind.HOST_MISSING, host)
        ours = min(each.preference for each in named)
        others = [each for each in seen.exchanges if not each.ours]
        if not any(each.preference < ours for each in others) and not seen.elsewhere:
            yield Finding(Kind.NOTHING_ABOVE, detail=str(ours))
        for each in others:
            if each.preference == ours:
                yield Finding(Kind.EQUAL_PREFERENCE, each.host, str(ours))
            elif each.preference > ours:
                yield Finding(Kind.BELOW_US, each.host, str(each.preference))
        if seen.known.registered and not seen.known.active:
            yield Finding(Kind.PENDING)
    addresses = {address for each in named for address in each.addresses}
    for each in seen.exchanges:
        if not each.ours:
            yield from _exchange(each, addresses)


def _exchange(each: Exchange, ours: set[str]) -> Iterator[Finding]:
    if each.host.replace(".", "").isdigit() or each.host.startswith("["):
        yield Finding(Kind.MX_ADDRESS, each.host)
    elif each.trouble:
        yield Finding(Kind.MX_TROUBLE, each.host)
    elif not each.addresses:
        yield Finding(Kind.MX_WITHOUT_ADDRESS, each.host)
    elif ours.intersection(each.addresses):
        yield Finding(Kind.OWN_ALIAS, each.host, " ".join(sorted(ours.intersection(each.addresses))))
    elif each.alias:
        yield Finding(Kind.MX_ALIAS, each.host, each.alias)


def _policy(seen: Examined) -> Iterator[Finding]:
    if seen.policy is not None and seen.policy.enforced:
        for host in seen.policy.missing:
            yield Finding(Kind.STS_WITHOUT_US, host)


def _servers(seen: Examined) -> Iterator[Finding]:
    reached = [visit for visit in seen.visits if visit.reached]
    for visit in seen.visits:
        if not visit.reached:
            yield from _unreached(visit)
            if reached:
                yield Finding(Kind.ONE_OF_SEVERAL, visit.address, reached[0].address)
    for visit in reached:
        yield from _session(visit, seen)
        yield from _answers(visit)


_REASONS = {
    "refused": Kind.REFUSED,
    "timeout": Kind.SILENT,
    "unreachable": Kind.UNREACHABLE,
    "source": Kind.NO_SOURCE,
    "forbidden": Kind.FORBIDDEN,
    "ourselves": Kind.OURSELVES,
    "closed": Kind.HUNG_UP,
    "malformed": Kind.NO_SMTP,
    "tls": Kind.STARTTLS_FAILS,
}


def _unreached(visit: Visit) -> Iterator[Finding]:
    if visit.reply is not None:
        yield Finding(Kind.TURNED_AWAY, visit.address, visit.reply.line())
    else:
        yield Finding(_REASONS.get(visit.reason, Kind.HUNG_UP), visit.address, visit.stage)


def _session(visit: Visit, seen: Examined) -> Iterator[Finding]:
    offered = visit.capabilities
    if not visit.tls:
        wanted = "STARTTLS" in offered
        kind = Kind.STARTTLS_FAILS if wanted else Kind.NO_STARTTLS
        yield Finding(kind, visit.address, visit.certificate if wanted else "")
    elif visit.certificate:
        yield Finding(Kind.CERTIFICATE, visit.address, visit.certificate)
    for keyword, kind in (
        ("PIPELINING", Kind.NO_PIPELINING),
        ("8BITMIME", Kind.NO_8BITMIME),
        ("SMTPUTF8", Kind.NO_SMTPUTF8),
        ("DSN", Kind.NO_DSN),
    ):
        if keyword not in offered:
            yield Finding(kind, visit.address)
    size = offered.get("SIZE", "")
    if size.isdigit() and 0 < int(size) < seen.known.max_size:
        yield Finding(Kind.SMALLER, visit.address, size)
    if visit.took_s > SLOW_S:
        yield Finding(Kind.SLOW, visit.address, f"{visit.took_s:.0f}")


def _answers(visit: Visit) -> Iterator[Finding]:
    """What it said of mailboxes. Who speaks of us or of another time has said nothing of them."""
    asked = [heard for heard in (visit.postmaster, visit.nobody, visit.known) if heard is not None]
    stood = [(heard, stance(heard.stage, heard.reply)) for heard in asked]
    for heard, how in stood:
        if how is Stance.BLOCKING:
            yield Finding(Kind.BLOCKED, visit.address, heard.reply.line())
            return
        if how is Stance.GREYLISTING:
            yield Finding(Kind.GREYLISTED, visit.address, heard.reply.line())
            return
    if asked and all(heard.reply.code // 100 == 4 for heard in asked):
        yield Finding(Kind.DEFERS_ALL, visit.address, asked[0].reply.line())
        return
    if visit.nobody is not None and visit.nobody.reply.code < 300:
        yield Finding(Kind.ACCEPTS_ALL, visit.address, visit.nobody.reply.line())
    elif _unclear(visit.nobody):
        assert visit.nobody is not None
        yield Finding(Kind.UNCLEAR_DENIAL, visit.address, visit.nobody.reply.line())
    if _denied(visit.postmaster):
        assert visit.postmaster is not None
        yield Finding(Kind.NO_POSTMASTER, visit.address, visit.postmaster.reply.line())
    if _denied(visit.known):
        assert visit.known is not None
        yield Finding(Kind.KNOWN_DENIED, visit.address, visit.known.reply.line())
    if visit.foreign is None:
        yield Finding(Kind.SPF_UNTRIED, visit.address)
    elif visit.foreign.reply.code >= 400 and not _denied(visit.foreign):
        yield Finding(Kind.SPF_CHECKED, visit.address, visit.foreign.reply.line())


def _denied(heard: Heard | None) -> bool:
    """Did it say that there is no such mailbox?"""
    if heard is None or heard.stage is not Stage.RCPT:
        return False
    return heard.reply.code >= 500 and speaks(Stage.RCPT, heard.reply) is Speaks.NO_MAILBOX


def _unclear(heard: Heard | None) -> bool:
    """Did it deny a mailbox in words that do not speak of one?"""
    return heard is not None and heard.reply.code >= 500 and not _denied(heard)


def _state(seen: Examined) -> Iterator[Finding]:
    primary, facts = seen.known.primary, seen.known.facts
    if facts is not None:
        if facts.callouts is Callouts.LATE_REJECT:
            yield Finding(Kind.REFUSES_LATE, detail=facts.reply)
        if facts.braked:
            yield Finding(Kind.CALLOUT_BRAKE)
    if primary is not None and primary.health is Health.REFUSING:
        yield Finding(Kind.REFUSING, detail=primary.last_reply)
    if primary is not None and primary.braked:
        yield Finding(Kind.BOUNCE_BRAKE)
    if seen.known.registered and not seen.known.deliverable:
        yield Finding(Kind.NOBODY_KNOWN)
