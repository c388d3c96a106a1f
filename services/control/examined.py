"""What an examination of a domain saw: its MX set, each server of the best preference, what is known here."""

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from libs.mail.knowledge import PrimaryFacts, PrimaryState
from libs.mail.reply import Foreign
from libs.mail.speaks import Stage


class Dns(StrEnum):
    """What became of the question for the MX records. NONE: the domain is there, and has none."""

    OK = "ok"
    NONE = "none"
    NXDOMAIN = "nxdomain"
    TROUBLE = "trouble"


class Exchange(Struct, frozen=True):
    """One MX record. `alias`: the name that it is an alias of, "" for none; `trouble`: its addresses could
    not be looked up; `ours`: one of our host names."""

    preference: int
    host: str
    addresses: tuple[str, ...] = ()
    alias: str = ""
    trouble: bool = False
    ours: bool = False


class Heard(Struct, frozen=True):
    """What was said to one RCPT, or to the MAIL before it."""

    stage: Stage
    reply: Foreign


class Visit(Struct, frozen=True):
    """A session with one address. `stage`, `reply`, `reason`: where and how it ended too early, as
    smtp.session.Fault has them; `reason` "" where it did not. `capabilities`: keywords of EHLO with their
    parameters; `tls`: protocol and cipher; `certificate`: what is wrong with its certificate, "" for nothing;
    `took_s`: until all was said. What was heard of postmaster, of a mailbox that is not there, of one that is
    known, and of a sender whom only his own servers may have sent (the exemption from SPF)."""

    host: str
    address: str
    stage: str = ""
    reply: Foreign | None = None
    reason: str = ""
    greeting: str = ""
    capabilities: dict[str, str] = {}
    tls: str = ""
    certificate: str = ""
    took_s: float = 0.0
    postmaster: Heard | None = None
    nobody: Heard | None = None
    known: Heard | None = None
    foreign: Heard | None = None

    @property
    def reached(self) -> bool:
        return not self.reason


class Policy(Struct, frozen=True):
    """MTA-STS. `missing`: hosts of the MX set that it does not cover."""

    enforced: bool = False
    missing: tuple[str, ...] = ()


class Known(Struct, frozen=True):
    """What stands in the tables. `registered`: it is a relay domain; `active`: mail is taken for it;
    `max_size`: octets that we take; `deliverable`: recipients that are known to exist."""

    registered: bool = False
    active: bool = False
    max_size: int = 0
    deliverable: int = 0
    primary: PrimaryState | None = None
    facts: PrimaryFacts | None = None


class Examined(Struct, frozen=True):
    """`us`: our host names; `elsewhere`: where the operator says that the primary is, "" for where its MX
    records say; `visits`: to the servers of the best preference above us; `policy`: None where there is
    none."""

    domain: str
    us: tuple[str, ...]
    mx: Dns
    exchanges: tuple[Exchange, ...] = ()
    elsewhere: str = ""
    visits: tuple[Visit, ...] = ()
    policy: Policy | None = None
    known: Known = Known()


def seen(visit: Visit, certificate: str, took_s: float) -> Visit:
    """The visit with what came to light after it."""
    return replace(visit, certificate=certificate, took_s=took_s)
