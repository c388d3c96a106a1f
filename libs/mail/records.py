"""What crosses topics, and its codec: msgspec structs, in msgpack (events: event.py).

Times are wall seconds UTC, sizes octets; a float that is a duration ends in `_s`. Mailboxes, HELO, ENVID and
ORCPT are `str` (the parser lets only ASCII or valid UTF-8 through); bytes are content and `prepend`, nothing
else. A new field is optional with a default and never renamed; a value that steers (state, kind, action) is
closed: an unknown one is `Undecodable` and the record is quarantined, never guessed.
"""

from enum import StrEnum
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

FORMAT = b"1"  # the record header `format`: readable by every version


class Undecodable(ValueError):  # noqa: N818 the word of the failure catalogue
    """The record cannot be read by this version: keep it, count it, step over it."""


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
    (start, end) octet ranges of the content that are not relayed (forged fields with our authserv-id).
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


class State(StrEnum):
    """The states of a mail that a record can have (docs/states.md)."""

    QUEUED = "queued"
    DEFERRED = "deferred"
    HELD = "held"
    PARKED = "parked"
    CONTENT_LOST = "content-lost"


class Progress(Struct, frozen=True, omit_defaults=True):
    """What changes while a mail waits. `done`: indexes into Mail.recipients that need nothing more (delivered
    or notified); `failed`: indexes that failed for good and of whom nobody was told yet; `next_attempt`: wall
    seconds, 0 for now; `last_reply`: the primary's, one line, escaped; `dsn_id`: set from the moment a DSN is
    being written until its outcome is settled; `request`: offset of the last request applied, -1 for none;
    `since`: when `state` began."""

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


class QueueEntry(Struct, frozen=True):
    """The value of a `queue` record. `mail` is an encoded Mail: a rewrite copies it, so an older version that
    rewrites `progress` loses nothing of a newer one's."""

    mail: Raw
    progress: Progress


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

    `chunks`: how many there are; `client`: IP address."""

    chunks: int
    domain: str
    client: str
    helo: str
    reverse_path: str
    smtputf8: bool = False


class Action(StrEnum):
    ACCEPT = "accept"
    REJECT = "reject"
    DEFER = "defer"


class Verdict(Struct, frozen=True, omit_defaults=True):
    """`fields`: header fields to prepend, each with CR LF; `strip`: (start, end) octet ranges of the content:
    arriving fields that claim our authserv-id and must not be relayed; `may_notify`: rule 12; `results`:
    method -> result, for events and metrics; `reply`: enhanced code and text for reject and defer."""

    id: str
    action: Action
    fields: bytes
    may_notify: bool
    strip: tuple[tuple[int, int], ...] = ()
    results: dict[str, str] = {}
    reply: str = ""


# --- recipients (topics `callouts`, `recipients`) ---


class Callout(Struct, frozen=True, omit_defaults=True, tag="callout"):
    """A question. `asked_by`: the host name of the asking process; `anew`: whether the primary is up is the
    question, so it is asked though what is known of the mailbox is still valid."""

    mailbox: str
    asked_by: str
    anew: bool = False


class Observed(Struct, frozen=True, tag="observed"):
    """What a delivery saw: `stage`: a speaks.Stage; `reply`: a line of a Foreign, such as
    `550 5.1.1 no such user`."""

    mailbox: str
    stage: str
    reply: str


class Sight(Struct, frozen=True, tag="sight"):
    """Somebody's first try at a domain with admission `fallback`. Key: `sight:` + a hash of who it was
    (ingest/sights.py); the record's time says when. `seen_by`: the host name of the process that saw it."""

    seen_by: str


class Imported(Struct, frozen=True, tag="imported"):
    """The operator says that this recipient may exist: asked about in the background, believed when the
    primary says so. `by`: who said it."""

    mailbox: str
    by: str


class Allowed(Struct, frozen=True, tag="allowed"):
    """The operator says that this recipient exists, whatever callouts say. `by`: who said it."""

    mailbox: str
    by: str


class Forgotten(Struct, frozen=True, tag="forgotten"):
    """Nothing is known of this recipient any more. `by`: who said it."""

    mailbox: str
    by: str


Told = Imported | Allowed | Forgotten  # by the operator
CalloutRecord = Callout | Observed | Sight | Told


class Status(StrEnum):
    DELIVERABLE = "deliverable"
    UNDELIVERABLE = "undeliverable"


OPERATOR = "operator"  # a status that no callout changes


class RecipientStatus(Struct, frozen=True, omit_defaults=True, tag="status"):
    """Key: the mailbox in normal form. `since`: when `status` began; `confirmed`: when last said;
    `source`: callout, delivery or OPERATOR; `reply`: the primary's, for events only; `against`: when the
    first of two witnesses said that it is deliverable no more (0: it never was). A status of the operator's
    was never confirmed (0). Which record counts: remembered.py."""

    mailbox: str
    status: Status
    since: float
    confirmed: float
    source: str = "callout"
    reply: str = ""
    against: float = 0.0


class RecipientTry(Struct, frozen=True, omit_defaults=True, tag="try"):
    """Key: `try:` + mailbox. When last tried and with which outcome; never overwrites what is known.
    `against_since`: since when the primary contradicts the status (0: it does not). `imported`: when the
    operator imported it, as long as it is asked about in the background (0: it is not)."""

    mailbox: str
    last_tried: float
    last_outcome: str
    against_since: float = 0.0
    against_host: str = ""
    imported: float = 0.0


class Callouts(StrEnum):
    OPEN = "open"
    BLOCKED = "blocked"
    CATCH_ALL = "catch_all"
    LATE_REJECT = "late_reject"


class PrimaryFacts(Struct, frozen=True, omit_defaults=True, tag="facts"):
    """Key: `@` + domain. What callouts learnt about the primary. `size` 0: unknown or none. `reply`: the line
    that says it blocks us, "" while it does not; `host`: which of ours it blocks; `server`: a trouble.Server,
    by its greeting, "" unknown; `greylisted`: when it last greylisted us, to the day; `probed`: when it last
    answered for a mailbox that nobody has (0: never)."""

    domain: str
    callouts: Callouts
    since: float
    braked: bool = False
    size: int = 0
    smtputf8: bool | None = None
    dsn: bool | None = None
    starttls: bool | None = None
    reply: str = ""
    host: str = ""
    server: str = ""
    greylisted: float = 0.0
    probed: float = 0.0


RecipientRecord = RecipientStatus | RecipientTry | PrimaryFacts


# --- primaries, domains, requests ---


class Health(StrEnum):
    UP = "up"
    DOWN = "down"
    DEFERRING = "deferring"
    REFUSING = "refusing"


class PrimaryState(Struct, frozen=True, omit_defaults=True):
    """Key: domain. `since`: when `health` began; `confirmed`: last seen up; `mx`: the last working MX hosts,
    seen at `mx_seen`; `waiting`, `bytes`, `oldest`: the mail that waits (oldest: its arrival, 0 for none)."""

    domain: str
    health: Health
    since: float
    confirmed: float = 0.0
    braked: bool = False
    mx: tuple[str, ...] = ()
    mx_seen: float = 0.0
    waiting: int = 0
    bytes: int = 0
    oldest: float = 0.0
    last_reply: str = ""

    @property
    def away(self) -> bool:
        """Known to be down or deferring."""
        return self.health in (Health.DOWN, Health.DEFERRING)


class Unverified(StrEnum):
    """What a recipient that cannot be verified gets."""

    ACCEPT = "accept"  # 250 on suspicion
    DEFER = "defer"  # 451 4.4.1


class Admission(StrEnum):
    """When mail for a domain is taken."""

    ALWAYS = "always"
    FALLBACK = "fallback"  # while the primary is up a first try is sent back to it


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


class Domain(Struct, frozen=True, omit_defaults=True):
    """Key: domain (lower-case A-label). `active_since` 0: pending (its DNS has not named us yet)."""

    domain: str
    added: float
    active_since: float = 0.0
    suspended: bool = False
    held: bool = False
    overrides: Overrides = Overrides()


class Installation(Struct, frozen=True):
    """Key: `@installation` in partition 0 of `domains`. `count`: at least so many domains must be seen for
    the table to be whole (rule 7); `partitions`: N, never changed."""

    id: str
    partitions: int
    count: int


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


class Release(Struct, frozen=True, tag="release"):
    """Let the held mail `id` of `domain` be delivered. `by`: who asked."""

    request_id: str
    domain: str
    id: str
    by: str


class Delete(Struct, frozen=True, tag="delete"):
    """End the mail `id` of `domain` undelivered; nobody is told. `by`: who asked."""

    request_id: str
    domain: str
    id: str
    by: str


class Unbrake(Struct, frozen=True, tag="unbrake"):
    """End the callout brake of `domain`: what its primary says of recipients is believed again. `by`: who
    asked."""

    request_id: str
    domain: str
    by: str


RequestRecord = Flush | Release | Delete | Unbrake


# --- codec ---

_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[object, msgspec.msgpack.Decoder[object]] = {
    type_: msgspec.msgpack.Decoder(type_)
    for type_ in (
        Mail,
        QueueEntry,
        ContentRef,
        Trace,
        Verdict,
        CalloutRecord,
        RecipientRecord,
        PrimaryState,
        Domain,
        Installation,
        Access,
        RequestRecord,
    )
}


def encode(record: Struct) -> bytes:
    """The msgpack form of any record of this file."""
    return _encoder.encode(record)


def decode(value: bytes, type_: type[_T]) -> _T:
    """The record of `type_` in `value`. Raises Undecodable."""
    try:
        return _decoders[type_].decode(value)  # type: ignore[return-value]
    except msgspec.MsgspecError as error:
        raise Undecodable(str(error)) from error


def decode_callout(value: bytes) -> CalloutRecord:
    """Raises Undecodable."""
    return decode(value, CalloutRecord)  # type: ignore[arg-type]


def decode_request(value: bytes) -> RequestRecord:
    """Raises Undecodable."""
    return decode(value, RequestRecord)  # type: ignore[arg-type]


def decode_recipient(value: bytes) -> RecipientRecord:
    """Raises Undecodable."""
    return decode(value, RecipientRecord)  # type: ignore[arg-type]


def new_entry(mail: Mail, state: State = State.QUEUED) -> QueueEntry:
    """A fresh `queue` entry, due now; HELD: somebody must look at it first."""
    return QueueEntry(Raw(encode(mail)), Progress(state, since=mail.arrived))


def mail_of(entry: QueueEntry) -> Mail:
    """The mail of an entry. Raises Undecodable."""
    return decode(bytes(entry.mail), Mail)


def queue_headers(ref: ContentRef) -> tuple[tuple[str, bytes], ...]:
    """The headers of a `queue` record (rule 5: readable by every version)."""
    return (("format", FORMAT), ("content", encode(ref)))
