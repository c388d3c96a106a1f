"""When a deferred mail is tried again, and when a mail may expire (rule 10)."""

from collections.abc import Sequence

from libs.mail.records import Kind
from libs.mail.settings import DAY_S

FIRST_S, LONGEST_S = 300.0, 7200.0
LIFETIME_S = 30 * DAY_S  # of mail for the operators
OWN_LIFETIME_S = 5 * DAY_S  # of a DSN and a notice
TRIES, SPAN_S = 3, 3600.0
TRUSTED_S = 4 * 3600.0  # what is due later than any backoff was written by a clock that has jumped back since


def backoff_s(attempts: int, jitter: float) -> float:
    """Seconds after attempt number `attempts` (1 the first): 5 min, doubled up to 2 h, ±10 % by `jitter` in
    [-1, 1]."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(max(attempts - 1, 0), 16)) * (1 + 0.1 * jitter)


def is_due(moment: float, wall: float) -> bool:
    """Is a mail due at `wall` whose next attempt is at `moment`?"""
    return moment <= wall or moment > wall + TRUSTED_S


def lifetime_s(kind: Kind, setting: float | None) -> float | None:
    """The lifetime of a mail; `setting`: of its relay domain, None where there is none in force. None: the
    mail does not expire now."""
    match kind:
        case Kind.RELAYED:
            return setting
        case Kind.OPERATOR:
            return LIFETIME_S
        case Kind.DSN | Kind.NOTICE:
            return OWN_LIFETIME_S


def over(arrived: float, lifetime: float | None, wall: float) -> float | None:
    """For how many seconds the lifetime has been over at `wall`; None: it is not."""
    if lifetime is None or wall <= arrived + lifetime:
        return None
    return wall - arrived - lifetime


def noted(tries: tuple[float, ...], now: float) -> tuple[float, ...]:
    """A mail's own failed tries (monotonic seconds) with one at `now`; the first and the latest are kept."""
    return (*tries[:1], *tries[1:][-(TRIES - 1) :], now)


def witnessed(tries: Sequence[float], over_s: float, now: float) -> bool:
    """Did TRIES or more of `tries` (monotonic, oldest first; a mail's own, or probes of its primary) fail
    since its lifetime was over (`over_s` ago), over SPAN_S or more?"""
    since = [at for at in tries if now - over_s <= at <= now]
    return len(since) >= TRIES and since[-1] - since[0] >= SPAN_S
