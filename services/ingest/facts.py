"""What a recipient is judged by, and what can be the answer."""

from typing import NamedTuple

from msgspec import Struct

from libs.mail.address import Mailbox
from libs.mail.knowledge import PrimaryFacts, PrimaryState, RecipientStatus, RecipientTry
from libs.mail.records import Basis, Kind, Recipient
from libs.mail.reply import Reply
from libs.mail.settings import DomainSettings
from services.ingest.limits import Load

UNVERIFIABLE_S = 60.0  # a recipient that could not be verified is tried again after this


class OurNames(Struct, frozen=True):
    """`host`: this host; `hosts`: the names of all our hosts and the address literals of this one, each with
    the host name it stands for; `operators`: who reads the mail to them."""

    host: str
    hosts: dict[str, str]
    operators: Mailbox


class Origin(Struct, frozen=True):
    """Whom a trusted relay had a mail from. `relay`: its address; `client`, `helo`: "" for what it did not
    say."""

    relay: str
    client: str = ""
    helo: str = ""


class Envelope(Struct, frozen=True):
    """The transaction so far. `reverse_path` "" for <>; `size`: declared, 0 where not. `domain`, `next_hop`,
    `kind` and `era` are those of the recipients, "" before the first. `blocked`: the operator takes no mail
    from this reverse-path; `origin`: of mail from a trusted relay."""

    reverse_path: str
    size: int = 0
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    recipients: tuple[Recipient, ...] = ()
    domain: str = ""
    next_hop: str = ""
    kind: Kind = Kind.RELAYED
    era: int | None = None
    blocked: bool = False
    origin: Origin | None = None

    @property
    def sender(self) -> str:
        """The domain of the reverse-path, "" for <>."""
        return self.reverse_path.rpartition("@")[2]


class Facts(Struct, frozen=True):
    """All that is known when a recipient is judged. `whole`: the table of domains is fresh and complete;
    `fresh`: what is known of recipients is, too; `tried`: the last callout, with or without a result.

    For admission `fallback` only: `heard`: when (wall seconds) the primary last spoke of another one;
    `sighted_s`: how long ago this client first came with this sender and recipient, None: it never did."""

    names: OurNames
    whole: bool
    settings: DomainSettings | None
    fresh: bool = False
    status: RecipientStatus | None = None
    tried: RecipientTry | None = None
    primary: PrimaryState | None = None
    learnt: PrimaryFacts | None = None
    load: Load = Load()
    heard: float = 0.0
    sighted_s: float | None = None

    @property
    def away(self) -> bool:
        """The primary is known to be down or deferring."""
        return self.primary is not None and self.primary.away

    def tried_lately(self, now: float) -> bool:
        """A callout told nothing just now: another one is not worth its time yet. Where a worse MX answered
        it is: that was for those who asked then."""
        tried = self.tried
        return tried is not None and not tried.elsewhere and 0 <= now - tried.last_tried < UNVERIFIABLE_S


class FlushFacts(NamedTuple):
    """What is known when a client asks for a domain's mail to be sent on. `own`: it has an address of the
    domain's primary; `spent`: it asked too often. `settings`, `whole`: as in Facts."""

    whole: bool
    settings: DomainSettings | None = None
    primary: PrimaryState | None = None
    own: bool = False
    spent: bool = False


class Accept(Struct, frozen=True):
    """The recipient is taken. `mailbox`: whom the mail is for (mail to our own names: the operators);
    `source`: own, cache, callout or suspicion, for metrics; `era`: of the relay domain."""

    domain: str
    next_hop: str
    mailbox: str
    basis: Basis
    source: str
    kind: Kind = Kind.RELAYED
    era: int | None = None


class Ask(Struct, frozen=True):
    """Only a callout can tell. `wait`: it is worth waiting for; `anew`: it shall tell whether the primary is
    up, what is known of the recipient does not answer it."""

    wait: bool = True
    anew: bool = False


class Remember(Struct, frozen=True):
    """Say `reply`, and remember that this client came with this sender and recipient."""

    reply: Reply


class Whose(Struct, frozen=True):
    """A budget of the client's is spent. Is it the primary itself? `answer`: what it hears if not."""

    answer: Reply


class FindOut(Struct, frozen=True):
    """We do not serve this domain: does its MX set name us?"""

    domain: str
