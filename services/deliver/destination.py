"""The health of one next hop: when it is probed, how many connections it may have, when its gate opens.

One health state for a primary, not one backoff for each mail: while it is down its mail costs nothing.
All times are monotonic seconds; shares in [-1, 1] called `jitter` are drawn by the caller.
"""

from msgspec import Struct
from msgspec.structs import replace

from libs.mail.knowledge import Health

PROBE_LATE_AFTER_S = 6 * 3600.0  # so long an outage is probed often
REFUSING_S = 900.0  # a refusing primary gets one mail so often
MOST_IN_ROW = 100
MANY_DEFERRED = 5  # different mails in a row: it is the primary, not the mails
WITNESS_GAP_S, WITNESSES = 900.0, 24  # failures remembered for rule 10: one in 15 min, the last 6 h
PATIENT_EACH = 20  # of so many probes that failed in a row one is patient: every 5 to 10 min of an outage
REMOTE_S, REMOTE_LONGEST_S = 60.0, 3600.0
_NEVER = float("-inf")


class Pace(Struct, frozen=True):
    """How a next hop is treated. `probe_s`: seconds between probes in the first 6 h of an outage,
    `probe_late_s` after; `remote`: not a primary of ours (a DSN's way, the operators): never probed, its
    own exponential backoff."""

    probe_s: float = 15.0
    probe_late_s: float = 60.0
    remote: bool = False


class Destination(Struct, frozen=True):
    """`since`: when `health` began; `window`: connections it may have; `next_try`: of the next probe (or of
    the next single attempt); `probing`: a probe is under way; `confirmed`: last seen up; `accepted`: when a
    mail was last accepted; `row`: mails deferred one after the other; `spoilt`: there was an outage since the
    last accepted mail; `refusers`: reverse-paths refused one after the other; `failures`: of tries and probes
    since it was last up, thinned out; `failed`: how many."""

    since: float
    health: Health = Health.UP
    window: int = 1
    next_try: float = _NEVER
    probing: bool = False
    confirmed: float = _NEVER
    accepted: float = _NEVER
    outage_ended: float = _NEVER
    row: tuple[str, ...] = ()
    spoilt: bool = False
    refusers: tuple[str, ...] = ()
    failures: tuple[float, ...] = ()
    failed: int = 0
    last_reply: str = ""


# --- what is seen of it ---


class Probing(Struct, frozen=True):
    """A probe (or the single attempt of a remote or refusing next hop) begins."""


class Unseen(Struct, frozen=True):
    """A probe or single attempt ended without showing anything."""


class Opened(Struct, frozen=True):
    """A probe, a callout or the like showed that it is up."""


class Succeeded(Struct, frozen=True):
    """It accepted a mail (250 after the final dot)."""


class Answered(Struct, frozen=True):
    """It dealt with a mail without accepting it: a recipient does not exist, say. It is up all the same."""


class Closed(Struct, frozen=True):
    """No connection, no usable MX, no banner."""

    reply: str


class Overloaded(Struct, frozen=True):
    """421, 4.3.x, or 4yz at banner, EHLO or MAIL."""

    reply: str


class Deferred(Struct, frozen=True):
    """It deferred one mail (`id`), or lost the connection in the middle of it."""

    id: str
    reply: str


class Refused(Struct, frozen=True):
    """It refused us, not the mail: policy, relaying, block list. `reverse_path` of the mail; None: refused
    before any mail was named (banner, EHLO)."""

    reverse_path: str | None
    reply: str


class Flushed(Struct, frozen=True):
    """A person or a primary asked for its mail now."""


Seen = Probing | Unseen | Opened | Succeeded | Answered | Closed | Overloaded | Deferred | Refused | Flushed


def on(d: Destination, seen: Seen, now: float, jitter: float, pace: Pace, *, most: int) -> Destination:
    """`d` after `seen` at `now`; `most`: connections that the settings allow."""
    match seen:
        case Probing():
            return replace(d, probing=True, next_try=now + _pause(d, now, jitter, pace))
        case Unseen():
            return replace(d, probing=False)
        case Opened() | Answered():
            return _up(d, now, window=1 if d.health is not Health.UP else d.window)
        case Succeeded():
            doubled = 1 if d.health is not Health.UP else min(2 * d.window, most)
            opened = _up(d, now, window=max(1, min(doubled, most)), accepted=True)
            return replace(opened, accepted=now, row=(), refusers=(), spoilt=False)
        case Closed(reply):
            return _shut(d, Health.DOWN, reply, now, jitter, pace)
        case Overloaded(reply):
            return _shut(d, Health.DEFERRING, reply, now, jitter, pace)
        case Deferred(id_, reply):
            row = d.row if id_ in d.row else (*d.row, id_)[-MOST_IN_ROW:]
            noted = replace(d, row=row, window=1, probing=False, last_reply=reply)
            if len(row) >= MANY_DEFERRED and d.health is Health.UP:
                return _shut(noted, Health.DEFERRING, reply, now, jitter, pace)
            return noted
        case Refused(reverse_path, reply):
            refusers = d.refusers
            if reverse_path is not None and reverse_path not in refusers:
                refusers = (*refusers, reverse_path)[-2:]
            noted = replace(d, refusers=refusers, window=1, probing=False, last_reply=reply)
            if reverse_path is None or len(refusers) >= 2 or d.health is not Health.UP:
                return _shut(noted, Health.REFUSING, reply, now, jitter, pace)
            return noted
        case Flushed():
            return replace(d, next_try=now, failed=0)


def _up(d: Destination, now: float, *, window: int, accepted: bool = False) -> Destination:
    if d.health is Health.REFUSING and not accepted:
        # Only an accepted mail ends this; what shows that it answers is known already.
        return replace(d, probing=False, confirmed=now)
    ended = now if d.health is not Health.UP else d.outage_ended
    return replace(
        d,
        health=Health.UP,
        since=d.since if d.health is Health.UP else now,
        window=window,
        probing=False,
        confirmed=now,
        outage_ended=ended,
        failures=(),
        failed=0,
    )


def _shut(d: Destination, health: Health, reply: str, now: float, jitter: float, pace: Pace) -> Destination:
    """An outage begins, goes on, or changes its kind: its beginning stays."""
    failures = d.failures
    if not failures or now - failures[-1] >= WITNESS_GAP_S:
        failures = (*failures, now)[-WITNESSES:]
    shut = replace(
        d,
        health=health,
        since=d.since if d.health is not Health.UP else now,
        window=1,
        probing=False,
        failures=failures,
        failed=d.failed + 1,
        last_reply=reply,
        spoilt=True,
    )
    # A probe that failed was given its successor's time when it began; what stragglers say changes nothing.
    planned = health is d.health and not pace.remote and d.next_try > now
    return replace(shut, next_try=d.next_try if planned else now + _pause(shut, now, jitter, pace))


def _pause(d: Destination, now: float, jitter: float, pace: Pace) -> float:
    if d.health is Health.REFUSING:
        pause = REFUSING_S
    elif pace.remote:
        pause = min(REMOTE_LONGEST_S, REMOTE_S * 2.0 ** min(d.failed - 1, 16)) if d.failed else REMOTE_S
    else:
        late = d.health is not Health.UP and now - d.since >= PROBE_LATE_AFTER_S
        pause = pace.probe_late_s if late else pace.probe_s
    return pause * (1 + 0.1 * jitter)


# --- who may send ---


class Gates(Struct, frozen=True):
    """What else decides: the domain's settings (`known`: there are some, and it is active)."""

    known: bool = True
    suspended: bool = False
    held: bool = False


class Shut(Struct, frozen=True):
    """Nothing now; look again at `until` (monotonic seconds), or when something is seen."""

    until: float = float("inf")


class ProbeNow(Struct, frozen=True):
    """Ask it whether it is up."""


class Send(Struct, frozen=True):
    """Up to `connections` may carry mail; `single`: one mail only, and tell `on` Probing first."""

    connections: int
    single: bool = False


def permit(d: Destination, gates: Gates, now: float, pace: Pace) -> Shut | ProbeNow | Send:
    """What may be done with this next hop at `now`."""
    if not gates.known or gates.suspended or gates.held:
        return Shut()
    if d.health is Health.UP:
        return Send(d.window)
    if d.probing:
        return Shut()
    if now < d.next_try:
        return Shut(d.next_try)
    if d.health is Health.REFUSING or pace.remote:
        return Send(1, single=True)
    return ProbeNow()


def spaced(now: float, per_minute: int) -> float:
    """When the next mail may be handed over after one at `now`; `per_minute` 0: at once. They come evenly: it
    is bursts that such a limit is for."""
    return now + 60.0 / per_minute if per_minute else now


def patient(d: Destination) -> bool:
    """Is it the turn of a probe that waits for a greeting as long as RFC 5321 section 4.5.3.2 has it? Without
    one, a server that needs a minute under load would be down for ever."""
    return d.failed % PATIENT_EACH == PATIENT_EACH - 1


def accepted_within(d: Destination, now: float, seconds: float) -> bool:
    """Was a mail accepted in the last `seconds`?"""
    return now - d.accepted <= seconds


def void(before: Destination, seen: Seen) -> tuple[str, ...]:
    """The mails whose backoff is void with `seen`: the first mail was accepted after an outage, and it was
    the primary's trouble that deferred them, not theirs."""
    return before.row if isinstance(seen, Succeeded) and before.spoilt else ()
