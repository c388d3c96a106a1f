"""What stands between us and a primary, and which server it is: two tables of words, for the owner's hint."""

import re
from enum import StrEnum

from libs.mail.reply import Foreign
from libs.mail.stance import Stance


class Trouble(StrEnum):
    """What stands in our way. ADDRESS: our address is refused, by whatever rule. LISTED: by a block list.
    NAME: for our EHLO name or reverse DNS. SENDER: for the reverse-path of a callout. SPF: for that of a mail
    that we hand over. RATE: we ask too often. RELAY: it does not serve the domain. LOGIN: it wants TLS or a
    login. DROPPED: no connection, or one that is cut off."""

    ADDRESS = "address"
    LISTED = "listed"
    NAME = "name"
    SENDER = "sender"
    SPF = "spf"
    RATE = "rate"
    RELAY = "relay"
    LOGIN = "login"
    GREYLIST = "greylist"
    DROPPED = "dropped"
    CATCH_ALL = "catch-all"
    LATE = "late"


class Server(StrEnum):
    """Whose manual says where an address is allowed. ANY: not recognised."""

    POSTSCREEN = "postscreen"
    ZIMBRA = "zimbra"
    POSTFIX = "postfix"
    EXIM = "exim"
    MICROSOFT_365 = "microsoft 365"
    EXCHANGE = "exchange"
    GOOGLE = "google"
    HMAILSERVER = "hmailserver"
    MDAEMON = "mdaemon"
    KERIO = "kerio"
    SENDMAIL = "sendmail"
    COURIER = "courier"
    QMAIL = "qmail"
    RSPAMD = "rspamd"
    POSTGREY = "postgrey"
    SQLGREY = "sqlgrey"
    MILTER_GREYLIST = "milter-greylist"
    ANY = "any"


# The first whose words are in the reply.
TROUBLES: tuple[tuple[Trouble, str], ...] = (
    (Trouble.SPF, r"\bspf\b|\bdmarc\b|\bdkim\b|sender ?id\b|5\.7\.2[0-46-9]\b"),
    (
        Trouble.RELAY,
        r"\brelay(?! recipient (table|map))|does not accept mail|rcpthosts|not (a )?local"
        r"|not (hosted|served) here",
    ),
    (
        Trouble.LISTED,
        r"spamhaus|spamcop|sorbs|uceprotect|barracuda|nixspam|abusix|\brbls?\b|dnsbl|blocked using|delist"
        r"|(black|block|deny)[- ]?list|listed (in|on|by|at)\b|ban+ed sending ip|reputation|sperrliste",
    ),
    (Trouble.RATE, r"too (many|fast|much)|\brate\b|throttl|concurren|frequen|flood"),
    (
        Trouble.NAME,
        r"\b(helo|ehlo|ptr|rdns)\b|reverse|cannot (find|resolve) your|(no|invalid) host ?name|5\.7\.25\b",
    ),
    (Trouble.LOGIN, r"authenticat|\bauth\b|log ?in\b|starttls|\btls\b|encrypt"),
    (
        Trouble.SENDER,
        r"\bsenders?\b|\babsender|mail ?from\b|call(back|out)|verification failed|return[- ]path"
        r"|domain (of|does not exist)|5\.1\.[78]\b",
    ),
)

# The first whose marks are in the greeting or in the reply.
SERVERS: tuple[tuple[Server, str], ...] = (
    (Server.MILTER_GREYLIST, r"greylisting in action, please come back in|milter-greylist"),
    (Server.POSTGREY, r"postgrey"),
    (Server.SQLGREY, r"gr[ae]ylisted for \d+ (minutes|seconds)|sqlgrey"),
    (
        Server.MICROSOFT_365,
        r"(protection|eo)\.outlook\.com|sender\.office\.com|delist@microsoft|EXOSmtpErrors",
    ),
    (Server.GOOGLE, r"\bgsmtp\b|support\.google\.com|mx\.google\.com"),
    (Server.ZIMBRA, r"zimbra"),
    (Server.RSPAMD, r"rspamd"),
    (Server.HMAILSERVER, r"hmailserver"),
    (Server.MDAEMON, r"mdaemon|dynamic screening"),
    (Server.KERIO, r"kerio"),
    (
        Server.EXCHANGE,
        r"microsoft (esmtp|smtp)|\bSMTP; |external client with ip address|\bexchange\b|RESOLVER\.|SMTPSEND\.",
    ),
    (Server.EXIM, r"\bexim\b"),
    (Server.SENDMAIL, r"\bsendmail\b"),
    (Server.COURIER, r"\bcourier\b"),
    (Server.QMAIL, r"qmail|rblsmtpd|\(#[45]\.\d+\.\d+\)"),
    (Server.POSTSCREEN, r"service unavailable; client \[|service currently unavailable$"),
    (
        Server.POSTFIX,
        r"\bpostfix\b|client host rejected|client host \[[^\]]*\] blocked using|helo command rejected"
        r"|(sender|recipient) address rejected: (?!access denied\. for)",
    ),
)

_TROUBLES = tuple((trouble, re.compile(pattern, re.IGNORECASE)) for trouble, pattern in TROUBLES)
_CUT_OFF = ("refused", "timeout", "unreachable", "closed")
_LIMITED = re.compile(  # by the client, not by the recipient or the transaction
    r"too many (concurrent |simultaneous |open |smtp )*(connections|sessions|errors|invalid|unknown)"
    r"|connection (rate|count|frequency|limit)|connections? .{0,40}\bip\b|rate limit|throttl"
    r"|too much mail from|rate for this client",
    re.IGNORECASE,
)
_ORDER = (*(server for server, _ in SERVERS), Server.ANY)
_SERVERS = tuple((server, re.compile(pattern, re.IGNORECASE)) for server, pattern in SERVERS)


def trouble(stance: Stance, reply: Foreign | None, reason: str = "") -> Trouble | None:
    """What the owner can do something about; None: nothing, or nobody knows. `reply` None: there was none,
    for `reason` (a Fault's)."""
    match stance:
        case Stance.FINE:
            return None
        case Stance.GREYLISTING:
            return Trouble.GREYLIST
        case Stance.CATCH_ALL:
            return Trouble.CATCH_ALL
        case Stance.LATE_REJECTING:
            return Trouble.LATE
        case Stance.NOTHING if reply is None:
            return Trouble.DROPPED if reason in _CUT_OFF else None
    line = "" if reply is None else reply.line()
    if stance is Stance.NOTHING:
        return Trouble.RATE if _LIMITED.search(line) else None
    return next((each for each, pattern in _TROUBLES if pattern.search(line)), Trouble.ADDRESS)


def server(greeting: str, reply: Foreign | None) -> Server:
    """Which server greeted with `greeting` ("" unknown) and said `reply`."""
    return before(_recognised(greeting), Server.ANY if reply is None else _recognised(reply.line()))


def before(one: Server, other: Server) -> Server:
    """The more particular of two: a filter before its mail server, a name before words that others have."""
    return min(one, other, key=_ORDER.index)


def _recognised(text: str) -> Server:
    return next((server for server, marks in _SERVERS if marks.search(text)), Server.ANY)
