"""What crosses topics of recipients and primaries: what is asked, heard, known and told of them.

As in records.py: times are wall seconds UTC, a new field is optional with a default and never renamed.
`era`: that of the relay domain (records.py: Domain) of whose recipients this is said or known. What is known
of another era counts for nobody: the domain was removed meanwhile, and its owner may be another one.
"""

from enum import StrEnum

from msgspec import Struct

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
    era: int = 0


class Sight(Struct, frozen=True, tag="sight"):
    """Somebody's first try at a domain with admission `fallback`. Key: `sight:` + a hash of who it was
    (ingest/sights.py); the record's time says when. `seen_by`: the host name of the process that saw it."""

    seen_by: str


class Imported(Struct, frozen=True, tag="imported"):
    """The operator says that this recipient may exist: asked about in the background, believed when the
    primary says so. `by`: who said it."""

    mailbox: str
    by: str
    era: int = 0


class Allowed(Struct, frozen=True, tag="allowed"):
    """The operator says that this recipient exists, whatever callouts say. `by`: who said it."""

    mailbox: str
    by: str
    era: int = 0


class Forgotten(Struct, frozen=True, tag="forgotten"):
    """Nothing is known of this recipient any more. `by`: who said it."""

    mailbox: str
    by: str
    era: int = 0


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
    era: int = 0


class RecipientTry(Struct, frozen=True, omit_defaults=True, tag="try"):
    """Key: `try:` + mailbox. When last tried and with which outcome; never overwrites what is known.
    `against_since`: since when the primary contradicts the status (0: it does not). `imported`: when the
    operator imported it, as long as it is asked about in the background (0: it is not). `elsewhere`: what an
    MX of a worse preference said, a Status, for those who asked then and nobody else ("": none was asked)."""

    mailbox: str
    last_tried: float
    last_outcome: str
    against_since: float = 0.0
    against_host: str = ""
    imported: float = 0.0
    elsewhere: str = ""
    era: int = 0


class Callouts(StrEnum):
    OPEN = "open"
    BLOCKED = "blocked"
    CATCH_ALL = "catch_all"
    LATE_REJECT = "late_reject"


class PrimaryFacts(Struct, frozen=True, omit_defaults=True, tag="facts"):
    """Key: `@` + domain. What callouts learnt about the primary. `size` 0: unknown or none. `reply`: the line
    that says it blocks us, "" while it does not; `host`: which of ours it blocks; `server`: a trouble.Server,
    by its greeting, "" unknown; `greylisted`: when it last greylisted us, to the day; `greylister`: the
    trouble.Server that did, by its reply, "" unknown; `probed`: when it last answered for a mailbox that
    nobody has (0: never)."""

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
    greylister: str = ""
    probed: float = 0.0
    era: int = 0


RecipientRecord = RecipientStatus | RecipientTry | PrimaryFacts


# --- primaries (topic `primaries`) ---


class Health(StrEnum):
    UP = "up"
    DOWN = "down"
    DEFERRING = "deferring"
    REFUSING = "refusing"


class PrimaryState(Struct, frozen=True, omit_defaults=True):
    """Key: domain. `since`: when `health` began; `confirmed`: last seen up; `mx`: the last working MX hosts,
    seen at `mx_seen`; `waiting`, `bytes`, `oldest`: the mail that waits (oldest: its arrival, 0 for none);
    `braked_since`: when the bounce brake was pulled (0: it is not, or nobody knows); `waited`: how many mails
    waited when the last outage ended, of which `handed` were handed over since;
    `era`: of the relay domain."""

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
    braked_since: float = 0.0
    waited: int = 0
    handed: int = 0
    era: int = 0

    @property
    def away(self) -> bool:
        """Known to be down or deferring."""
        return self.health in (Health.DOWN, Health.DEFERRING)
