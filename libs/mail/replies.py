"""Every reply that ingest ever gives, by name: RFC 5321 section 4.2, enhanced codes of RFC 3463 and RFC 5248.

A permanent code speaks of this mail, this recipient or the client's own fault; whatever is trouble of ours is
a 4yz. No reply repeats what a client or a foreign server said.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from libs.mail.reply import Reply, escaped

_ENHANCED = re.compile(r"([45]\.\d{1,3}\.\d{1,3}) (.+)", re.DOTALL)


class Receipt(NamedTuple):
    """The proof that the `queue` record of mail `id` is acknowledged. Constructed by commit.py only."""

    id: str


def queued(receipt: Receipt) -> Reply:
    """The final 250, earned by a Receipt and by nothing else."""
    return Reply(250, "2.0.0", f"Ok: queued as {receipt.id}")


# --- a connection begins and ends ---


def banner(host: str) -> Reply:
    return Reply(220, "", f"{host} ESMTP backupmx")


def helo(host: str) -> Reply:
    return Reply(250, "", host)


def ehlo(host: str, capabilities: Sequence[str]) -> Reply:
    """RFC 5321 section 4.1.1.1: the host first, one keyword a line."""
    return Reply(250, "", "\n".join((host, *capabilities)))


def bye(host: str) -> Reply:
    return Reply(221, "2.0.0", f"{host} closing connection")


def too_many_connections(host: str) -> Reply:
    return Reply(421, "4.7.0", f"{host} Too many connections")


def too_many_client_connections(host: str) -> Reply:
    return Reply(421, "4.7.0", f"{host} Too many connections from your network")


def too_many_new_connections(host: str) -> Reply:
    return Reply(421, "4.7.0", f"{host} Too many new connections, try again later")


def too_many_new_client_connections(host: str) -> Reply:
    return Reply(421, "4.7.0", f"{host} Too many new connections from your network, try again later")


def client_blocked(host: str) -> Reply:
    return Reply(554, "5.7.1", f"{host} Access denied: your network is blocked here")


def too_many_errors(host: str) -> Reply:
    return Reply(421, "4.7.0", f"{host} Too many errors")


def too_many_unknown(host: str) -> Reply:
    return Reply(421, "4.7.0", f"{host} Too many unknown recipients, try again later")


def timed_out(host: str) -> Reply:
    return Reply(421, "4.4.2", f"{host} Timeout exceeded")


def too_slow(host: str) -> Reply:
    return Reply(421, "4.4.2", f"{host} Content comes too slowly")


def overtime(host: str) -> Reply:
    return Reply(421, "4.4.2", f"{host} Session lasted too long, connect again")


def draining(host: str) -> Reply:
    return Reply(421, "4.3.2", f"{host} Shutting down, try again or another host")


# --- commands ---

OK = Reply(250, "2.0.0", "Ok")
HELP = Reply(214, "2.0.0", "RFC 5321; questions to postmaster")
CANNOT_VRFY = Reply(252, "2.1.5", "Send some mail and it will be tried")
READY_FOR_TLS = Reply(220, "2.0.0", "Ready to start TLS")
SENDER_OK = Reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient ok")
SEND_CONTENT = Reply(354, "", "End data with <CR><LF>.<CR><LF>")

# RFC 1985 section 5.3; no name is repeated
FLUSH_BEGUN = Reply(250, "2.0.0", "Ok, queuing started")
NOTHING_WAITS = Reply(251, "2.0.0", "Ok, no messages waiting")
CANNOT_FLUSH = Reply(458, "4.3.0", "Unable to queue messages, try again later")
TOO_MANY_FLUSHES = Reply(458, "4.7.1", "Unable to queue messages: too many requests, try again later")
FLUSH_NOT_ALLOWED = Reply(459, "4.7.1", "Not allowed: not served here")
ONE_BY_ONE = Reply(459, "4.7.1", "Not allowed: name one domain, without @ or #")
IN_TRANSACTION = Reply(503, "5.5.1", "Not within a mail transaction")

UNKNOWN_COMMAND = Reply(500, "5.5.2", "Command not recognized")
BAD_LINE = Reply(500, "5.5.2", "Line too long or not ended by CR LF")
EARLY = Reply(554, "5.5.0", "Protocol error: data before our reply")
EARLY_NOW = Reply(451, "4.5.0", "Protocol error: data before our reply, try again later")
SYNTAX = Reply(501, "5.5.4", "Syntax error in parameters")
BAD_HELO = Reply(501, "5.5.4", "Host name or address literal wanted")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameter not recognized")
HELO_FIRST = Reply(503, "5.5.1", "Send EHLO first")
MAIL_FIRST = Reply(503, "5.5.1", "Send MAIL first")
NESTED_MAIL = Reply(503, "5.5.1", "Sender already given")
NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
NO_RECIPIENTS_NOW = Reply(451, "4.5.1", "No valid recipients now, try again later")
ONLY_QUIT = Reply(503, "5.5.1", "Access denied: only QUIT is possible")
TLS_ALREADY = Reply(503, "5.5.1", "TLS already active")
TLS_NOT_AVAILABLE = Reply(502, "5.5.1", "TLS not available")


def flush_of(waiting: int) -> Reply:
    return Reply(253, "2.0.0", f"Ok, {waiting} pending messages started")


# --- senders ---

BAD_SENDER = Reply(501, "5.1.7", "Bad sender address syntax")
SENDER_NEEDS_UTF8 = Reply(553, "5.6.7", "UTF-8 in the address needs SMTPUTF8")
NULL_MX = Reply(550, "5.7.27", "The sender's domain takes no mail (null MX)")
SENDER_BLOCKED = Reply(550, "5.7.1", "Mail from this sender is blocked here")
TOO_LARGE = Reply(552, "5.3.4", "Message too large")
SPOOL_FULL = Reply(452, "4.3.1", "Insufficient system storage, try again later")

# --- recipients ---

BAD_RECIPIENT = Reply(501, "5.1.3", "Bad recipient address syntax")
RECIPIENT_NEEDS_UTF8 = Reply(553, "5.6.7", "UTF-8 in the address needs SMTPUTF8")
PRIMARY_LACKS_UTF8 = Reply(553, "5.6.7", "The destination does not take SMTPUTF8")
PRIMARY_TAKES_LESS = Reply(552, "5.3.4", "Message too large for the destination")
RELAYING_DENIED = Reply(550, "5.7.1", "Relaying denied")
UNKNOWN_RECIPIENT = Reply(550, "5.1.1", "No such recipient here")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
ANOTHER_DOMAIN = Reply(452, "4.5.3", "One recipient domain a transaction, send this one again")
DOMAIN_NOT_READY = Reply(451, "4.3.5", "Domain not ready here, try again later")
DOMAIN_SUSPENDED = Reply(451, "4.3.2", "Domain suspended, try again later")
DOMAINS_NOT_READY = Reply(451, "4.3.2", "Not ready to answer for this domain, try again later")
NO_PRIMARY = Reply(451, "4.4.4", "This domain has no mail server now, try again later")
DNS_TROUBLE = Reply(451, "4.4.3", "Temporary DNS trouble, try again later")
CANNOT_VERIFY = Reply(451, "4.4.1", "Recipient cannot be verified now, try again later")
RECIPIENT_IN_DOUBT = Reply(451, "4.2.1", "Recipient in doubt, try again later")
TOO_MANY_UNVERIFIED = Reply(451, "4.7.1", "Too many recipients that cannot be verified, try again later")
DOMAIN_FULL = Reply(452, "4.2.2", "Too much mail waits for this domain, try again later")
TOO_MANY_UNKNOWN = Reply(451, "4.7.0", "Too many unknown recipients, try this one again later")
TRY_THE_PRIMARY = Reply(451, "4.7.1", "First try: use the better MX, or come back here in five minutes")
STORAGE_TROUBLE = Reply(451, "4.3.0", "Temporary storage trouble, try again later")

# --- content ---

BARE_LINE_END = Reply(554, "5.6.11", "Bare CR or LF in the message")
LOOP = Reply(554, "5.4.6", "Too many hops: routing loop")
NOT_STORED = Reply(451, "4.3.0", "Not stored, try again later")
HEADER_UNREAD = Reply(451, "4.3.0", "Results in so large a header cannot be looked at now, try again later")
ROUTING_LOOP = Reply(451, "4.4.6", "Routing loop: this message was here before, try again later")
OUR_FAULT = Reply(451, "4.3.0", "Local error, try again later")
DMARC_FAILED = Reply(
    550, "5.7.1", "Rejected by the DMARC policy of the domain in From"
)  # RFC 9989 section 7.2
SPF_FAILED = Reply(550, "5.7.23", "SPF validation failed")  # RFC 7372 section 3.2
REJECTED = Reply(550, "5.7.1", "Message rejected by policy")
DEFERRED = Reply(451, "4.7.0", "Message deferred by policy, try again later")


# What each 4yz says that is a fault of ours, or of what we stand on.
FAULTS = {
    STORAGE_TROUBLE: "log",
    NOT_STORED: "log",
    SPOOL_FULL: "disk",
    DOMAINS_NOT_READY: "domains",
    DNS_TROUBLE: "dns",
    HEADER_UNREAD: "verify",
    OUR_FAULT: "bug",
}


def policy(said: str, *, permanent: bool) -> Reply:
    """The reply of a verdict: `said` is an enhanced code and a text of ours; without the code that fits
    `permanent` the words are not used."""
    match = _ENHANCED.fullmatch(said)
    if match is None or match[1].startswith("5") != permanent:
        return REJECTED if permanent else DEFERRED
    return Reply(550 if permanent else 451, match[1], escaped(match[2]).encode("ascii", "replace").decode())
