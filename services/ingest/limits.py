"""How much of everything one session may do, and how every limit is called.

Who may connect is in connections.py.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum

from msgspec import Struct

from libs.mail import replies
from libs.mail.reply import Reply
from services.ingest.access import NO_RULES, Rules

COMMAND_OCTETS = 2048  # RFC 5321 section 4.5.3.1.4 (512), and what SIZE, DSN and SMTPUTF8 add to it
DATA_S = 50 * 60.0  # rule 5: DATA lasts at most so long
COMMIT_S = 60 * 60.0  # rule 5: and a commit comes within this of the first chunk's acknowledgement
HOUR_S = 3600.0
HOPS = 100  # RFC 5321 section 6.3: more Received fields are a loop


class Load(Struct, frozen=True):
    """What the installation can take now. `full`: the log's disk is; `failed`: an append to the domain's
    partition failed just now; `suspicious`: the budget of unverified recipients is spent; `harvesting`: the
    client's budget of unknown ones is."""

    full: bool = False
    failed: bool = False
    suspicious: bool = False
    harvesting: bool = False


class Limits(Struct, frozen=True):
    """What one session may do; sizes in octets, `max_size` 0: nobody knows. `capabilities`: keywords of EHLO
    but STARTTLS; `access`: what the operator said of clients and senders."""

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
