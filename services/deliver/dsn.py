"""A DSN as octets: multipart/report (RFC 6522), delivery-status (RFC 3464), codes (RFC 3463).

The original's header is returned, never its content: RFC 3461 section 6.2 lets us set the length up to which
RET=FULL is honoured, and a notice may go to somebody who never sent the mail. With non-ASCII addresses the
parts take the forms of RFC 6533. Nothing here reads a clock or draws a boundary: both are arguments.
"""

import re
from base64 import b32encode
from binascii import b2a_qp
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256

from msgspec import Struct

from libs.mail.records import Cause, Language, Mail
from libs.mail.reply import escaped
from services.deliver import wording

HEADER_OCTETS = 32_768  # so much of the original's header is returned
_WIDTH = 76


class Report(Struct, frozen=True):
    """What there is to say of one recipient (index into Mail.recipients). `status`: enhanced status code;
    `diagnostic`: the remote reply on one line, "" for none; `remote`: the MX host that said it, "" for none;
    `attempted`: that was just now."""

    index: int
    status: str
    diagnostic: str = ""
    remote: str = ""
    attempted: bool = False


class Written(Struct, frozen=True):
    """`boundary`: must not occur in the original's header; `now`: wall seconds; `host`: our name; `until`:
    when the mail expires, wall seconds."""

    id: str
    host: str
    now: float
    boundary: str
    until: float = 0.0
    language: Language = Language.EN


def dsn_id(mail_id: str, kind: str, recipients: Iterable[str]) -> str:
    """The id of a DSN follows from what it says: written twice, it is one mail."""
    text = "\n".join([mail_id, kind, *sorted(recipients)])
    return b32encode(sha256(text.encode()).digest()[:15]).decode().lower()


def build(
    mail: Mail,
    action: str,
    reports: Sequence[Report],
    header: bytes,
    by: Written,
    cause: Cause = Cause.REFUSED,
) -> bytes:
    """The whole message: what became of `mail` for the recipients in `reports`, lines ended by CR LF, at most
    998 octets long.

    `action`: failed, delayed or relayed (RFC 3464 section 2.3.3); `header`: the original's header fields as
    received; `cause`: why they failed.
    """
    utf8 = not all(text.isascii() for text in (mail.reverse_path, *(r.mailbox for r in mail.recipients)))
    parts = [
        _human(mail, action, reports, by, cause, utf8=utf8),
        _status(mail, action, reports, by, utf8=utf8),
        _original(header, utf8=utf8),
    ]
    lines = [
        field("From", f"Mail Delivery System <mailer-daemon@{by.host}>"),
        field("To", f"<{plain(mail.reverse_path)}>"),
        field("Subject", wording.subject(action, by.language)),
        field("Date", date(by.now)),
        field("Message-ID", f"<{by.id}@{by.host}>"),
        field("Auto-Submitted", "auto-replied"),
        field("MIME-Version", "1.0"),
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{by.boundary}"\r\n',
        "Content-Transfer-Encoding: 8bit\r\n" if not all(part.isascii() for part in parts) else "",
        "\r\n",
        "This is a report in MIME format (RFC 6522).\r\n",
    ]
    cut = f"\r\n--{by.boundary}\r\n".encode()
    end = f"\r\n--{by.boundary}--\r\n".encode()
    return "".join(lines).encode() + b"".join(cut + part for part in parts) + end


def _human(
    mail: Mail, action: str, reports: Sequence[Report], by: Written, cause: Cause, *, utf8: bool
) -> bytes:
    said = []
    for report in reports:
        said.append(f"<{plain(mail.recipients[report.index].mailbox)}>")
        if report.diagnostic:
            said += wrapped(
                wording.said(report.remote, mail.next_hop, report.diagnostic, by.language), "    "
            )
        said.append("")
    opening = wording.opening(by.host, mail.domain, by.language)
    what = wording.what(action, cause, mail.next_hop, by.until, by.language)
    lines = [*wrapped(opening), "", *wrapped(what), "", *said]
    return text_part("\r\n".join(lines).rstrip("\r\n") + "\r\n", eightbit=utf8)


def text_part(text: str, *, eightbit: bool) -> bytes:
    """`text`, lines ended by CR LF, as a MIME part. `eightbit`: what is not ASCII may go as it is; without,
    it goes over any server."""
    octets, charset, transfer = text.encode(), "us-ascii", "7bit"
    if not text.isascii():
        charset, transfer = "utf-8", "8bit" if eightbit else "quoted-printable"
    if transfer == "quoted-printable":
        octets = b"\r\n".join(_quoted(line) for line in octets.split(b"\r\n"))
    head = f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {transfer}\r\n\r\n"
    return head.encode() + octets


def _status(mail: Mail, action: str, reports: Sequence[Report], by: Written, *, utf8: bool) -> bytes:
    """RFC 3464 section 2: the fields of the message, then a group of fields for each recipient."""
    groups = [field("Reporting-MTA", f"dns; {by.host}")]
    if mail.envid:
        groups[0] = field("Original-Envelope-Id", plain(mail.envid)) + groups[0]
    if mail.helo:
        groups[0] += field("Received-From-MTA", f"dns; {plain(mail.helo)}")
    groups[0] += field("Arrival-Date", date(mail.arrived))
    for report in reports:
        recipient = mail.recipients[report.index]
        kind = "rfc822" if recipient.mailbox.isascii() else "utf-8"
        group = field("Original-Recipient", _typed(recipient.orcpt, utf8=utf8)) if recipient.orcpt else ""
        group += field("Final-Recipient", f"{kind}; {plain(recipient.mailbox)}")
        group += field("Action", action)
        group += field("Status", report.status)
        if report.remote:
            group += field("Remote-MTA", f"dns; {report.remote}")
        if report.diagnostic:
            group += field("Diagnostic-Code", f"smtp; {report.diagnostic}")
        if report.attempted:
            group += field("Last-Attempt-Date", date(by.now))
        group += field("Final-Log-ID", mail.id)
        if action == "delayed":
            group += field("Will-Retry-Until", date(by.until))
        groups.append(group)
    body = "\r\n".join(groups).encode()
    if not utf8:
        body = body.decode().encode("ascii", "backslashreplace")
    name = "global-delivery-status" if utf8 else "delivery-status"
    transfer = "7bit" if body.isascii() else "8bit"
    return f"Content-Type: message/{name}\r\nContent-Transfer-Encoding: {transfer}\r\n\r\n".encode() + body


def _original(header: bytes, *, utf8: bool) -> bytes:
    """The header fields of the original (RFC 6522 section 4; RFC 6533 section 4 for global-headers)."""
    lines = _cut(header)
    if lines.isascii() and all(len(line) <= 998 for line in lines.split(b"\r\n")):
        kind, transfer = "text/rfc822-headers", "7bit"
    elif utf8 and _is_utf8(lines) and all(len(line) <= 998 for line in lines.split(b"\r\n")):
        kind, transfer = "message/global-headers", "8bit"
    else:
        kind, transfer = "text/rfc822-headers", "quoted-printable"
        lines = b"\r\n".join(_quoted(line) for line in lines.split(b"\r\n"))
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {transfer}\r\n\r\n".encode() + lines


def _cut(header: bytes) -> bytes:
    """At most HEADER_OCTETS of `header`, ended at a line, without the empty line that ends it."""
    if len(header) > HEADER_OCTETS:
        header = header[: header.rfind(b"\r\n", 0, HEADER_OCTETS) + 2]
    return header.rstrip(b"\r\n") + b"\r\n" if header else b"\r\n"


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(line: bytes) -> bytes:
    return b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n")


def plain(text: str) -> str:
    """What a stranger sent, safe inside a header field."""
    return escaped(text, 900)


def _typed(orcpt: str, *, utf8: bool) -> str:
    """`rfc822;ann@office.example` -> `rfc822; ann@office.example`; where the notice is ASCII, an address of
    type utf-8 goes as utf-8-addr-xtext (RFC 6533 section 3)."""
    kind, _, address = plain(orcpt).partition(";")
    if not utf8:
        address = "".join(each if each.isascii() else f"\\x{{{ord(each):X}}}" for each in address)
    return f"{kind}; {address}"


def date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC))


def field(name: str, value: str) -> str:
    """One header field, folded at spaces; a single word longer than a line may be is left alone below 998."""
    first, *rest = wrapped(f"{name}: {value}", "\t")
    return "\r\n".join([first, *rest]) + "\r\n"


def wrapped(text: str, indent: str = "") -> list[str]:
    """`text` in lines of at most 76 characters where it has spaces; all but the first begin with `indent`."""
    lines = [""]
    for word in re.findall(r"\S+", text):
        candidate = f"{lines[-1]} {word}" if lines[-1].strip() else lines[-1] + word
        if len(candidate) > _WIDTH and lines[-1].strip():
            lines.append(indent + word)
        else:
            lines[-1] = candidate
    return lines
