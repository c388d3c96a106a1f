"""What goes over the wire for a mail: its envelope and octets; what the replies say of each recipient."""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from msgspec import Struct

from libs.mail.headers import head_length
from libs.mail.records import ContentRef, Kind, Mail, QueueEntry, Recipient
from libs.mail.reply import Foreign
from libs.mail.settings import DomainSettings
from libs.mail.speaks import Speaks, Stage, speaks
from libs.smtp.commands import Envelope, To, Visitor
from services.deliver.outcome import Lost, Unable

Answers = Mapping[int, tuple[str, Foreign | Lost | Unable]]  # recipient index -> stage and what came


class Job(Struct, frozen=True):
    """A waiting mail as read from the log: its record, decoded, and where its content is."""

    entry: QueueEntry
    mail: Mail
    ref: ContentRef


class Replies(Struct, frozen=True):
    """Those of one transaction: libs/smtp `Sent`, without its shell."""

    mail: Foreign
    recipients: Sequence[Foreign]
    data: Foreign | None
    dot: Foreign | None


def envelope(job: Job, open_: Sequence[int]) -> Envelope:
    """The envelope for the recipients `open_` (indexes). What was declared to be UTF-8 and is ASCII all
    through needs nobody who knows SMTPUTF8 (RFC 6531 section 3.4)."""
    mail = job.mail
    return Envelope(
        mail.reverse_path,
        tuple(_to(mail.recipients[index]) for index in open_),
        size=len(mail.prepend) + job.ref.size - sum(end - start for start, end in mail.strip),
        eightbit=job.ref.eightbit,
        smtputf8=mail.smtputf8 and (job.ref.eightbit or not mail.prepend.isascii()),
        ret=mail.ret,
        envid=mail.envid,
    )


def visitor(
    job: Job, settings: DomainSettings | None, relays: Sequence[IPv4Network | IPv6Network] = ()
) -> Visitor | None:
    """Whom the primary is told that the mail is of; None: nobody, the mail is ours or it is not wanted. A
    trusted relay (`relays`) had the mail from others: to be taken for it would help nobody."""
    mail = job.mail
    if settings is None or not settings.xclient or mail.kind is not Kind.RELAYED or not mail.client:
        return None
    client = ip_address(mail.client)
    return None if any(client in network for network in relays) else Visitor(mail.client, mail.helo)


def _to(recipient: Recipient) -> To:
    return To(recipient.mailbox, recipient.notify, recipient.orcpt)


def kept(chunk: bytes, at: int, strip: Sequence[tuple[int, int]]) -> bytes:
    """`chunk`, which begins at octet `at` of the content, without the octet ranges `strip` (in order)."""
    if not strip:
        return chunk
    return b"".join(chunk[start:end] for start, end in _gaps(at, len(chunk), strip))


def _gaps(at: int, size: int, strip: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    position = 0
    for start, end in strip:
        first, last = max(start - at, 0), min(end - at, size)
        if first < last:
            yield position, max(position, first)
            position = max(position, last)
    yield position, size


def late(open_: Sequence[int], got: Answers) -> list[int]:
    """Those of several recipients whom a refusal after the final dot may be about: it speaks of a mailbox,
    and nobody can tell of which."""
    if len(open_) < 2:
        return []
    return [
        index
        for index, (stage, reply) in got.items()
        if stage == Stage.DOT and isinstance(reply, Foreign) and speaks(stage, reply) is Speaks.NO_MAILBOX
    ]


def header(head: bytes) -> bytes:
    """The header of a content that begins with `head`: up to the empty line (RFC 5322 section 2.1)."""
    return head[: head_length(head)]


def answers(open_: Sequence[int], said: Replies, *, oversize: bool = False) -> Answers:
    """What was said to each recipient of `open_`, which the envelope named in this order: the reply that
    decided, with its stage. `oversize`: the mail is larger than EHLO allowed (RFC 1870), so a bare 552 to
    MAIL speaks of that."""
    if said.mail.code >= 300:
        too_large = oversize and said.mail.code == 552 and not said.mail.enhanced
        reply = said.mail._replace(enhanced="5.3.4") if too_large else said.mail
        return dict.fromkeys(open_, (Stage.MAIL, reply))
    found: dict[int, tuple[str, Foreign | Lost | Unable]] = {}
    for index, reply in zip(open_, said.recipients, strict=True):
        if reply.code >= 300:
            found[index] = (Stage.RCPT, reply)
        elif said.dot is not None:
            found[index] = (Stage.DOT, said.dot)
        elif said.data is not None:
            found[index] = (Stage.DATA, said.data)
        else:
            found[index] = (Stage.DATA, Lost("closed"))
    return found
