"""What the shell tells a session, and what a session has it do.

Every effect that does not close yields exactly one input.
"""

from enum import StrEnum
from typing import NamedTuple

from libs.mail.address import Mailbox
from libs.mail.records import ContentRef
from libs.mail.replies import Receipt
from libs.mail.reply import Reply
from services.ingest.facts import Accept, Envelope
from services.ingest.limits import Limit


class Content(NamedTuple):
    """Content as stored. `head`: its header, for want of a verdict; `began`, `arrived`: log time of the first
    and the last chunk's acknowledgement; `began_mono`: the first one's on a clock that never jumps."""

    id: str
    ref: ContentRef
    head: bytes
    began: float
    began_mono: float
    arrived: float


# --- inputs ---


class Connected(NamedTuple):
    """`limit`: what is in the way, None where there is room; `early`: octets came before our banner."""

    limit: Limit | None
    early: bool


class Line(NamedTuple):
    """A command without its CR LF; `more`: further octets wait behind it."""

    octets: bytes
    more: bool


class Interrupted(StrEnum):
    TIMEOUT = "timeout"  # nothing came for too long
    OVERTIME = "overtime"  # the session has lasted too long
    DRAINING = "draining"  # this process is to end
    BAD_LINE = "bad line"  # longer than COMMAND_OCTETS, or a lone LF
    OURS = "ours"  # an exception of ours; logged by whoever caught it


class RcptAnswer(NamedTuple):
    answer: Reply | Accept


class ContentEnd(NamedTuple):
    """Either `content` or `reply` is there; `close`: nothing the client says can be trusted any more."""

    content: Content | None
    reply: Reply | None = None
    close: bool = False


class Committed(NamedTuple):
    receipt: Receipt


class Refused(NamedTuple):
    reply: Reply


class TlsStarted(NamedTuple):
    tls: str


class FlushAnswer(NamedTuple):
    reply: Reply


Input = (
    Connected | Line | Interrupted | RcptAnswer | ContentEnd | Committed | Refused | TlsStarted | FlushAnswer
)


# --- effects ---


class Say(NamedTuple):
    """Yields the next Line. `command`: what is answered; `recipient`: of a RCPT; no reply: say nothing.
    `sender`: mail from this domain is coming."""

    reply: Reply | None
    command: str = ""
    recipient: str = ""
    sender: str = ""


class SayAndClose(NamedTuple):
    """`linger`: the client may still be talking."""

    reply: Reply
    command: str = ""
    recipient: str = ""
    linger: bool = True


class StartTls(NamedTuple):
    """Say `reply`, forget all octets that came in clear, shake hands. Yields TlsStarted."""

    reply: Reply


class AskRcpt(NamedTuple):
    """Yields RcptAnswer."""

    to: Mailbox
    envelope: Envelope


class ReadContent(NamedTuple):
    """Say `reply` and read to the end of data. Yields ContentEnd."""

    reply: Reply
    envelope: Envelope


class Commit(NamedTuple):
    """Yields Committed or Refused."""

    envelope: Envelope
    content: Content


class RequestFlush(NamedTuple):
    """Ask for the mail of `domain` to be sent on now (lower-case A-label). Yields FlushAnswer."""

    domain: str


Effect = Say | SayAndClose | StartTls | AskRcpt | ReadContent | Commit | RequestFlush
