"""The daily notice to a domain's contact about what is parked, as octets.

Whoever reads it is no programmer: whose mail, since when, why, until when. Nothing of it is taken from a
content, and what strangers wrote is escaped.
"""

from base64 import b32encode
from collections.abc import Sequence
from hashlib import sha256

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


def notice_id(domain: str, cause: str, day: str) -> str:
    """One notice for a domain, a cause and a day, however often it is written."""
    text = "\n".join(["notice", domain, cause, day])
    return b32encode(sha256(text.encode()).digest()[:15]).decode().lower()


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
    text = "\r\n".join(lines).rstrip("\r\n") + "\r\n"
    head = [
        field("From", f"Mail Delivery System <mailer-daemon@{by.host}>"),
        field("To", f"<{plain(contact)}>"),
        field("Subject", wording.digest_subject(domain, count, language)),
        field("Date", date(by.now)),
        field("Message-ID", f"<{by.id}@{by.host}>"),
        field("Auto-Submitted", "auto-generated"),
        field("MIME-Version", "1.0"),
    ]
    return "".join(head).encode() + text_part(text, eightbit=False)
