"""How much of everything: what one session may do, and how every limit is called.

Who may connect is in connections.py. Whoever has a clock passes `now` (monotonic seconds).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum

from msgspec import Struct

from libs.mail import replies
from libs.mail.reply import Reply
from services.ingest.access import NO_RULES, Rules

COMMAND_OCTETS = 2048  # RFC 5321 section 4.5.3.1.4 (512), and what SIZE, DSN and SMTPUTF8 add to it
DATA_S = 50 * 60.0  # rule 5: DATA lasts at most so long
COMMIT_S = 60 * 60.0  # rule 5: and a commit comes within this of the first chunk's acknowledgement
FAILED_S = 5.0  # rule 2: a partition that failed answers 451 at RCPT for so long
HOUR_S = 3600.0
HOPS = 100  # RFC 5321 section 6.3: more Received fields are a loop
RETURNS = 3  # a content that was here so often before is held
DOMAIN_HOLDS = 10  # of a domain within an hour
CLIENT_FLUSHES = 30  # ETRN of one client network within an hour
FLUSH_S, FLUSH_OWN_S = 300.0, 15.0  # between two requests for a domain; those of its primary
FLUSHED = 10_000  # clients, and domains, that are remembered
TIMEOUTS, RETRY_S = 3, 15.0  # so many in a row and nobody waits any more, but one every so often


class Load(Struct, frozen=True):
    """What the installation can take now. `full`: the log's disk is; `failed`: an append to the domain's
    partition failed just now; `suspicious`: the budget of unverified recipients is spent; `harvesting`: the
    client's budget of unknown ones is."""

    full: bool = False
    failed: bool = False
    suspicious: bool = False
    harvesting: bool = False


class Limits(Struct, frozen=True):
    """What one session may do; sizes in octets. `capabilities`: keywords of EHLO but STARTTLS; `access`: what
    the operator said of clients and senders."""

    host: str
    capabilities: tuple[str, ...]
    max_size: int
    max_errors: int
    max_recipients: int
    tls: bool
    load: Load = Load()
    access: Rules = NO_RULES


class Limit(StrEnum):
    """Every limit by the name that the metric `limited` has for it."""

    CONNECTIONS = "connections"
    CLIENT_CONNECTIONS = "client_connections"
    CONNECTION_RATE = "connection_rate"
    CLIENT_CONNECTION_RATE = "client_connection_rate"
    BLOCKED_CLIENTS = "blocked_clients"
    BLOCKED_SENDERS = "blocked_senders"
    ERRORS = "errors"
    RECIPIENTS = "recipients"
    SIZE = "size"
    DATA_RATE = "data_rate"
    SESSION_TIME = "session_time"
    SILENCE = "silence"
    SPOOL = "spool"
    DOMAIN_SPOOL = "domain_spool"
    SUSPICIONS = "suspicions"
    UNKNOWN_RECIPIENTS = "unknown_recipients"


NO_ROOM: Mapping[Limit, Callable[[str], Reply]] = {
    Limit.CONNECTIONS: replies.too_many_connections,
    Limit.CLIENT_CONNECTIONS: replies.too_many_client_connections,
    Limit.CONNECTION_RATE: replies.too_many_new_connections,
    Limit.CLIENT_CONNECTION_RATE: replies.too_many_new_client_connections,
    Limit.BLOCKED_CLIENTS: replies.client_blocked,
}


def limits_by_reply(host: str) -> dict[Reply, Limit]:
    """The replies that say that a limit is reached, each with the limit."""
    return {
        **{say(host): limit for limit, say in NO_ROOM.items()},
        replies.SENDER_BLOCKED: Limit.BLOCKED_SENDERS,
        replies.too_many_errors(host): Limit.ERRORS,
        replies.TOO_MANY_RECIPIENTS: Limit.RECIPIENTS,
        replies.TOO_LARGE: Limit.SIZE,
        replies.too_slow(host): Limit.DATA_RATE,
        replies.overtime(host): Limit.SESSION_TIME,
        replies.timed_out(host): Limit.SILENCE,
        replies.SPOOL_FULL: Limit.SPOOL,
        replies.DOMAIN_FULL: Limit.DOMAIN_SPOOL,
        replies.TOO_MANY_UNVERIFIED: Limit.SUSPICIONS,
        replies.too_many_unknown(host): Limit.UNKNOWN_RECIPIENTS,
        replies.TOO_MANY_UNKNOWN: Limit.UNKNOWN_RECIPIENTS,
    }


def patience_s(octets: int, waited_s: float, *, rate: int, grace_s: float) -> float:
    """How much longer to wait for a content that has brought `octets` and was waited for `waited_s` seconds,
    `grace_s` of them for nothing. Only the client's time counts: our log may be slow."""
    return grace_s + octets / rate - waited_s if rate else grace_s


class Holds:
    """Mails held for their loops: so many an hour and domain. Whoever writes trace fields with our name into
    his mails shall not fill the log with what nobody delivers."""

    def __init__(self) -> None:
        self._until = 0.0
        self._domains: Counter[str] = Counter()

    def one_more(self, domain: str, now: float) -> bool:
        """Count one of `domain`; False: too many within the hour."""
        if now >= self._until:
            self._until = now + HOUR_S
            self._domains.clear()
        self._domains[domain] += 1
        return self._domains[domain] <= DOMAIN_HOLDS


class Flushes:
    """Requests to flush a domain: how often one client network may ask, and when the next is written. More
    would give every stranger a way to void the backoff of a primary that defers."""

    def __init__(self) -> None:
        self._until = 0.0
        self._clients: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def client(self, network: str, now: float) -> bool:
        """Count one more of `network`; False: too many within the hour, of it or of all."""
        if now >= self._until:
            self._until = now + HOUR_S
            self._clients.clear()
        if network not in self._clients and len(self._clients) >= FLUSHED:
            return False
        self._clients[network] += 1
        return self._clients[network] <= CLIENT_FLUSHES

    def due(self, domain: str, now: float, *, own: bool) -> bool:
        """Is another request to be written? `own`: the domain's primary asks. Otherwise the last one is still
        what is being done."""
        last = self._last.get(domain)
        return last is None or now - last >= (FLUSH_OWN_S if own else FLUSH_S)

    def began(self, domain: str, now: float) -> None:
        """A request is on the log."""
        if len(self._last) > FLUSHED:
            self._last = {name: at for name, at in self._last.items() if now - at < FLUSH_S}
        self._last[domain] = now


class Patience(Struct, frozen=True):
    """With something that should answer: after TIMEOUTS in a row only one waits every RETRY_S."""

    timeouts: int = 0
    retry_at: float = 0.0

    def waits(self, now: float) -> bool:
        return self.timeouts < TIMEOUTS or now >= self.retry_at

    def began(self, now: float) -> "Patience":
        """Somebody waits: who comes next while it does, and patience is over, does not."""
        return Patience(self.timeouts, now + RETRY_S) if self.timeouts >= TIMEOUTS else self

    def timed_out(self, now: float) -> "Patience":
        return Patience(self.timeouts + 1, now + RETRY_S)


FULL_PATIENCE = Patience()


class Breakdowns:
    """Partitions whose last append failed; each is left alone for FAILED_S."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def failed(self, partition: int, now: float) -> None:
        self._until[partition] = now + FAILED_S

    def broken(self, partition: int, now: float) -> bool:
        return bool(self._until) and self._until.get(partition, 0.0) > now
