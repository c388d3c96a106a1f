"""What the shell tells a session, and what a session has it do.

Every effect that does not close yields exactly one input.
"""

from enum import StrEnum

from msgspec import Struct

from libs.mail.address import Mailbox
from libs.mail.records import ContentRef
from libs.mail.replies import Receipt
from libs.mail.reply import Reply
from services.ingest.facts import Accept, Envelope
from services.ingest.limits import Limit


class Content(Struct, frozen=True):
    """Content as stored. `head`, `hides`: of its header, for want of a verdict (unstuff.Unstuff); `began`,
    `arrived`: log time of the first and the last chunk's acknowledgement; `began_mono`: the first one's on a
    clock that never jumps."""

    id: str
    ref: ContentRef
    head: bytes
    began: float
    began_mono: float
    arrived: float
    hides: bool = False


# --- inputs ---


class Connected(Struct, frozen=True):
    """`limit`: what is in the way, None where there is room; `early`: octets came before our banner; `relay`:
    the address of a trusted relay, "" for anybody else."""

    limit: Limit | None
    early: bool
    relay: str = ""


class Line(Struct, frozen=True):
    """A command without its CR LF; `more`: further octets wait behind it."""

    octets: bytes
    more: bool


class Interrupted(StrEnum):
    TIMEOUT = "timeout"  # nothing came for too long
    OVERTIME = "overtime"  # the session has lasted too long
    DRAINING = "draining"  # this process is to end
    BAD_LINE = "bad line"  # longer than COMMAND_OCTETS, or a lone LF
    OURS = "ours"  # an exception of ours; logged by whoever caught it


class RcptAnswer(Struct, frozen=True):
    answer: Reply | Accept


class ContentEnd(Struct, frozen=True):
    """Either `content` or `reply` is there; `close`: nothing the client says can be trusted any more."""

    content: Content | None
    reply: Reply | None = None
    close: bool = False


class Committed(Struct, frozen=True):
    receipt: Receipt


class Refused(Struct, frozen=True):
    reply: Reply


class TlsStarted(Struct, frozen=True):
    tls: str


class FlushAnswer(Struct, frozen=True):
    reply: Reply


Input = (
    Connected | Line | Interrupted | RcptAnswer | ContentEnd | Committed | Refused | TlsStarted | FlushAnswer
)


# --- effects ---


class Say(Struct, frozen=True):
    """Yields the next Line. `command`: what is answered; `recipient`: of a RCPT; no reply: say nothing.
    `sender`: mail from this domain is coming."""

    reply: Reply | None
    command: str = ""
    recipient: str = ""
    sender: str = ""


class SayAndClose(Struct, frozen=True):
    """`linger`: the client may still be talking."""

    reply: Reply
    command: str = ""
    recipient: str = ""
    linger: bool = True


class StartTls(Struct, frozen=True):
    """Say `reply`, forget all octets that came in clear, shake hands. Yields TlsStarted."""

    reply: Reply


class AskRcpt(Struct, frozen=True):
    """Yields RcptAnswer."""

    to: Mailbox
    envelope: Envelope


class ReadContent(Struct, frozen=True):
    """Say `reply` and read to the end of data. Yields ContentEnd."""

    reply: Reply
    envelope: Envelope


class Commit(Struct, frozen=True):
    """Yields Committed or Refused."""

    envelope: Envelope
    content: Content


class RequestFlush(Struct, frozen=True):
    """Ask for the mail of `domain` to be sent on now (lower-case A-label). Yields FlushAnswer."""

    domain: str


class Represent(Struct, frozen=True):
    """The trusted relay speaks for `client` from now on, "" for one that it does not know. Yields
    Connected."""

    client: str


Effect = Say | SayAndClose | StartTls | AskRcpt | ReadContent | Commit | RequestFlush | Represent
