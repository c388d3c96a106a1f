"""A notice to a domain's contact, as octets; the daily one about what is parked is put into words here.

Whoever reads it is no programmer: whose mail, since when, why, until when. Nothing of it is taken from a
content, and what strangers wrote is escaped.
"""

from collections.abc import Sequence

from msgspec import Struct

from libs.mail.records import Cause
from services.deliver import wording
from services.deliver.dsn import Written, date, field, plain, text_part, wrapped

MOST = 100  # mails that are listed


class Parked(Struct, frozen=True):
    """One mail. `recipients`: those that failed; `until`: when it is deleted, wall seconds as `arrived`."""

    id: str
    sender: str
    recipients: tuple[str, ...]
    arrived: float
    until: float
    cause: Cause
    reply: str


def build(domain: str, contact: str, parked: Sequence[Parked], count: int, by: Written) -> bytes:
    """The whole message, ASCII only unless `contact` is not. `parked`: those to be listed, of `count` in
    all."""
    language = by.language
    lines = [*wrapped(wording.digest_opening(domain, by.host, language)), ""]
    for each in parked:
        lines += wrapped(" ".join(f"<{plain(name)}>" for name in each.recipients))
        said = wording.digest_row(
            plain(each.sender), each.arrived, each.until, each.cause, plain(each.reply), language
        )
        lines += ["    " + line.strip() for line in wrapped(said, "    ")]
        lines += [f"    {each.id}", ""]
    if count > len(parked):
        lines += [wording.digest_more(count - len(parked), language), ""]
    return _message(contact, wording.digest_subject(domain, count, language), lines, by)


def letter(to: str, subject: str, paragraphs: Sequence[str], by: Written) -> bytes:
    """The whole message, ASCII only unless `to` is not; an empty paragraph is an empty line."""
    return _message(to, subject, [line for each in paragraphs for line in wrapped(each)], by)


def _message(to: str, subject: str, lines: Sequence[str], by: Written) -> bytes:
    text = "\r\n".join(lines).rstrip("\r\n") + "\r\n"
    head = [
        field("From", f"Mail Delivery System <mailer-daemon@{by.host}>"),
        field("To", f"<{plain(to)}>"),
        field("Subject", subject),
        field("Date", date(by.now)),
        field("Message-ID", f"<{by.id}@{by.host}>"),
        field("Auto-Submitted", "auto-generated"),
        field("MIME-Version", "1.0"),
    ]
    return "".join(head).encode() + text_part(text, eightbit=False)
