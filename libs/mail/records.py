"""What crosses topics: msgspec structs (what is known of recipients and primaries: knowledge.py; events:
event.py; in msgpack: codec.py).

Times are wall seconds UTC, sizes octets; a float that is a duration ends in `_s`. Mailboxes, HELO, ENVID and
ORCPT are `str` (the parser lets only ASCII or valid UTF-8 through); bytes are content and `prepend`, nothing
else. A new field is optional with a default and never renamed; a value that steers (state, kind, action) is
closed: an unknown one is `Undecodable` and the record is quarantined, never guessed.
"""

from enum import StrEnum

from msgspec import Raw, Struct

# --- a mail and its place in the queue (topic `queue`) ---


class Kind(StrEnum):
    RELAYED = "relayed"  # a stranger's mail for a relay domain
    OPERATOR = "operator"  # mail to one of our own names, for the operators
    DSN = "dsn"  # a delivery status notification of ours
    NOTICE = "notice"  # a notice of ours to a domain's contact

    @property
    def ours(self) -> bool:
        """Is it mail of our own making: tried for days only, and nobody is told when it fails?"""
        return self in (Kind.DSN, Kind.NOTICE)


class Basis(StrEnum):
    """Why a recipient was accepted."""

    DELIVERABLE = "deliverable"
    SUSPICION = "suspicion"
    DSN = "dsn"


class Recipient(Struct, frozen=True, omit_defaults=True):
    """`notify`: subset of NEVER SUCCESS FAILURE DELAY, empty where not given; `orcpt`: as received, decoded
    form `type;address` or empty (RFC 3461 section 4)."""

    mailbox: str
    basis: Basis
    notify: tuple[str, ...] = ()
    orcpt: str = ""


class Mail(Struct, frozen=True, omit_defaults=True):
    """The envelope and all that is known when the mail is committed; written once, copied byte for byte.

    `domain`: the relay domain (kind operator: our host name); `next_hop`: whose MX takes it; `reverse_path`:
    "" for <>; `prepend`: header fields to put before the content, each with CR LF; `arrived`: log time of the
    last content acknowledgement; `may_notify`: the return path authenticated (rule 12); `size`, `eightbit`
    are in the ContentRef. `client`: IP address of the sender; `tls`: protocol and cipher, or ""; `strip`:
    (start, end) octet ranges of the content that are not relayed (forged fields with our authserv-id); `era`:
    of the relay domain that took it, None where nobody noted it.
    """

    id: str
    domain: str
    next_hop: str
    kind: Kind
    reverse_path: str
    recipients: tuple[Recipient, ...]
    prepend: bytes
    arrived: float
    may_notify: bool
    ret: str = ""
    envid: str = ""
    smtputf8: bool = False
    client: str = ""
    helo: str = ""
    tls: str = ""
    strip: tuple[tuple[int, int], ...] = ()
    era: int | None = None


class State(StrEnum):
    """The states of a mail that a record can have (docs/states.md)."""

    QUEUED = "queued"
    DEFERRED = "deferred"
    HELD = "held"
    PARKED = "parked"
    CONTENT_LOST = "content-lost"


class Cause(StrEnum):
    """Why the recipients in `failed` failed."""

    REFUSED = "refused"  # a mail server said no
    EXPIRED = "expired"  # the lifetime of the mail ended
    GIVEN_UP = "given-up"  # a person asked for it


class Progress(Struct, frozen=True, omit_defaults=True):
    """What changes while a mail waits. `done`: indexes into Mail.recipients that need nothing more (delivered
    or notified); `failed`: indexes that failed for good and of whom nobody was told yet; `next_attempt`: wall
    seconds, 0 for now; `last_reply`: the primary's, one line, escaped; `dsn_id`: set from the moment a DSN is
    being written until its outcome is settled; `request`: offset of the last request applied, -1 for none;
    `since`: when `state` began; `cause`: why `failed` failed; `relayed`: indexes that were delivered to a
    server which tells the sender nothing, though he asked to be told, and of which he was not told yet."""

    state: State = State.QUEUED
    attempts: int = 0
    next_attempt: float = 0.0
    done: tuple[int, ...] = ()
    last_reply: str = ""
    dsn_id: str = ""
    request: int = -1
    since: float = 0.0
    delay_told: bool = False
    failed: tuple[int, ...] = ()
    cause: Cause = Cause.REFUSED
    relayed: tuple[int, ...] = ()


class QueueEntry(Struct, frozen=True):
    """The value of a `queue` record. `mail` is an encoded Mail: a rewrite copies it, so an older version that
    rewrites `progress` loses nothing of a newer one's."""

    mail: Raw
    progress: Progress


class OnlyMail(Struct, frozen=True):
    """As much of a QueueEntry as can be read where its progress cannot."""

    mail: Raw


class ContentRef(Struct, frozen=True):
    """Where the content is: the record header `content` of a `queue` record and nowhere else.

    `offsets`: of each chunk, in order; `size`: octets in all; `eightbit`: has octets over 127.
    """

    partition: int
    offsets: tuple[int, ...]
    size: int
    eightbit: bool = False


# --- content on its way to a verdict (headers of `content`, topic `verdicts`) ---


class Trace(Struct, frozen=True, omit_defaults=True):
    """The record header `trace` of the last chunk: what authentication needs to know of the session.

    `chunks`: how many there are; `client`: IP address; `relay`: of a trusted relay that had it from `client`,
    whose `helo` it was: "" where it did not say."""

    chunks: int
    domain: str
    client: str
    helo: str
    reverse_path: str
    smtputf8: bool = False
    relay: str = ""


class Action(StrEnum):
    ACCEPT = "accept"
    REJECT = "reject"
    DEFER = "defer"


class Verdict(Struct, frozen=True, omit_defaults=True):
    """`fields`: header fields to prepend, each with CR LF; `above`: those that go above our Received;
    `strip`: (start, end) octet ranges of the content: arriving fields that claim our authserv-id and must not
    be relayed; `may_notify`: rule 12; `results`: method -> result, for events and metrics; `reply`: enhanced
    code and text for reject and defer; `unread`: verify could not read the header to its end, so that `strip`
    says nothing."""

    id: str
    action: Action
    fields: bytes
    may_notify: bool
    strip: tuple[tuple[int, int], ...] = ()
    results: dict[str, str] = {}
    reply: str = ""
    above: bytes = b""
    unread: bool = False


# --- domains (topic `domains`), requests (topic `requests`) ---


class Unverified(StrEnum):
    """What a recipient that cannot be verified gets."""

    ACCEPT = "accept"  # 250 on suspicion
    DEFER = "defer"  # 451 4.4.1


class Admission(StrEnum):
    """When mail for a domain is taken."""

    ALWAYS = "always"
    FALLBACK = "fallback"  # while the primary is up a first try is sent back to it


class Enforce(StrEnum):
    """Which failed authentication is refused at the final dot."""

    OFF = "off"  # none: the results are in the header, the primary decides
    DMARC = "dmarc"  # DMARC fail where the author's domain wishes reject
    SPF = "spf"  # besides, SPF fail of MAIL FROM


class Language(StrEnum):
    """Of what people read."""

    EN = "en"
    DE = "de"


class Overrides(Struct, frozen=True, omit_defaults=True):
    """Settings of one domain that differ from the installation's; None: not set (settings.py completes)."""

    lifetime_s: float | None = None
    unverified: Unverified | None = None
    contact: str | None = None
    max_size: int | None = None
    max_connections: int | None = None
    max_waiting: int | None = None
    max_waiting_size: int | None = None
    admission: Admission | None = None
    enforce: Enforce | None = None
    max_rate: int | None = None
    primary_host: str | None = None
    tls_name: str | None = None
    xclient: bool | None = None
    language: Language | None = None
    contact_secret: str | None = None


class Domain(Struct, frozen=True, omit_defaults=True):
    """Key: domain (lower-case A-label). `active_since` 0: pending (its DNS has not named us yet). `era`: of
    two domains of one name, of which the first was removed, the later one has the higher. `leaving`: since
    then (wall seconds) no mail is taken, and when none waits the domain is removed; 0: it stays."""

    domain: str
    added: float
    active_since: float = 0.0
    suspended: bool = False
    held: bool = False
    overrides: Overrides = Overrides()
    era: int = 0
    leaving: float = 0.0


class Installation(Struct, frozen=True):
    """Key: `@installation` in partition 0 of `domains`. `count`: at least so many domains must be seen for
    the table to be whole (rule 7); `partitions`: N, never changed; `era`: that of the next domain that is
    added, higher than that of any domain that was removed."""

    id: str
    partitions: int
    count: int
    era: int = 0


class Permission(StrEnum):
    BLOCK = "block"
    ALLOW = "allow"


class Access(Struct, frozen=True, omit_defaults=True):
    """Key: `access:` + subject, in partition 0 of `domains`. What the operator said of a client or a sender.
    `subject`: an IP address or network, a mailbox in normal form, or `@` and a domain; `lasts_s`: counted
    from the record's time, 0 for ever; `by`: who said so. Read as a Domain it is Undecodable."""

    subject: str
    permission: Permission
    lasts_s: float = 0.0
    by: str = ""


class Flush(Struct, frozen=True, tag="flush"):
    """Attempt the mail of `domain` now: its gate opens as by a probe. `by`: who asked."""

    request_id: str
    domain: str
    by: str


class Which(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The mails that a request is about: those for which all that is given holds. `sender`: reverse-path, <>
    for the null one; `recipient`: one that needs something still; either is a mailbox in normal form, or `@`
    and a domain; `older_s`: it arrived so long before the request. Empty: every mail of the domain."""

    sender: str = ""
    recipient: str = ""
    older_s: float = 0.0


class Retry(Struct, frozen=True, tag="retry"):
    """Attempt deferred mails now. Of this and the other verbs: `domain`: of the mails, "" for whatever is in
    the partition; `id`: of the one mail, "" for all that `which` selects; `by`: who asked."""

    request_id: str
    domain: str
    id: str
    by: str
    which: Which = Which()


class Hold(Struct, frozen=True, tag="hold"):
    """No attempts until Release."""

    request_id: str
    domain: str
    id: str
    by: str
    which: Which = Which()


class Release(Struct, frozen=True, tag="release"):
    """Let held mails be delivered."""

    request_id: str
    domain: str
    id: str
    by: str
    which: Which = Which()


class Delete(Struct, frozen=True, tag="delete"):
    """End mails undelivered; nobody is told. With an `id`: also what no version here can read."""

    request_id: str
    domain: str
    id: str
    by: str
    which: Which = Which()


class Bounce(Struct, frozen=True, tag="bounce"):
    """Give mails up now: their senders are told as if it had been the primary's word."""

    request_id: str
    domain: str
    id: str
    by: str
    which: Which = Which()


class Redeliver(Struct, frozen=True, tag="redeliver"):
    """Take parked mails up again."""

    request_id: str
    domain: str
    id: str
    by: str
    which: Which = Which()


class Unbrake(Struct, frozen=True, tag="unbrake"):
    """End the callout brake of `domain`: what its primary says of recipients is believed again. `by`: who
    asked."""

    request_id: str
    domain: str
    by: str


class Notify(Struct, frozen=True, omit_defaults=True, tag="notify"):
    """Write to the contact of `domain` about `cause` ("parked": what is in its vault), once for `day` (UTC,
    2026-12-01). `by`: who decided so. Of a cause with a `key`: once for that, whatever the day, the `text`
    (paragraphs, LF between them) and `subject`, to `to`: a mail address, a URL that control posts to, or ""
    for nobody but the events. `since`: when the cause began; `details`: what is in the text, for
    programs."""

    request_id: str
    domain: str
    by: str
    cause: str
    day: str
    key: str = ""
    to: str = ""
    subject: str = ""
    text: str = ""
    since: float = 0.0
    details: dict[str, str | int | float] = {}


class Posted(Struct, frozen=True, tag="posted"):
    """What became of a Notify to a URL: it was taken there, or (`taken` False) given up, for `why`."""

    request_id: str
    domain: str
    by: str
    cause: str
    key: str
    taken: bool
    why: str = ""


MailRequest = Retry | Hold | Release | Delete | Bounce | Redeliver
RequestRecord = Flush | Unbrake | Notify | Posted | MailRequest
