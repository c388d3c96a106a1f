"""Header fields: Received and Authentication-Results built, arriving fields found with their octet ranges
(those that claim to be ours: forged.py).

Everything that goes into a field of ours is made safe here: no octet of a stranger can end a line, a comment
or a quoted string. Everything that reads a stranger's header takes time linear in its length.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import NamedTuple

LINE = 78  # RFC 5322 section 2.1.1: where folding is possible, lines stay within this
_LONGEST = 900  # no unit that cannot be folded is longer: 998 is the limit of a line

PROTOCOLS = frozenset(  # RFC 5321 section 4.4, RFC 3848, RFC 6531 section 4.3
    "SMTP ESMTP ESMTPA ESMTPS ESMTPSA UTF8SMTP UTF8SMTPA UTF8SMTPS UTF8SMTPSA".split()
)
_DOMAIN = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_LITERAL = re.compile(r"\[[A-Za-z0-9.:-]+\]")
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")
# What stands in a value as it is: RFC 5322 section 3.2.3, RFC 2045 section 5.1, without the signs that some
# readers take for quotes. A dot-atom that is too long is cut, as a quoted-string.
_DOT_ATOM = re.compile(r"(?=.{1,200}\Z)[A-Za-z0-9!#$%&*+/=?^_{|}~-]+(?:\.[A-Za-z0-9!#$%&*+/=?^_{|}~-]+)*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&*+^_{|}~.-]+")


class Field(NamedTuple):
    """One header field of a head: octets `start` to `end` with its CR LF; its value begins at `value`.

    `name` is as sent, without blanks before the colon; b"" for a line that is no field at all.
    """

    name: bytes
    start: int
    value: int
    end: int


class Finding(NamedTuple):
    """One resinfo of RFC 8601 section 2.2: `properties` are (`ptype.property`, value) pairs."""

    method: str
    result: str
    properties: tuple[tuple[str, str], ...] = ()
    reason: str = ""


# --- fields of ours ---


def received(
    *,
    helo: str,
    client: str,
    by: str,
    protocol: str,
    id: str,  # noqa: A002 the clause's name
    tls: str,
    recipient: str,
    time: float,
) -> bytes:
    """The trace field of RFC 5321 section 4.4, folded, with CR LF.

    `helo`: as given; what is no domain and no address literal goes into a comment. `client`: the IP address,
    "" where unknown. `by`: our host name. `protocol`: one of PROTOCOLS (else ValueError). `id`: the mail's.
    `tls`: protocol and cipher, "" without. `recipient`: the mailbox of a mail with one recipient, "" leaves
    `for` out (RFC 5321 section 7.2: no blind copies told). `time`: wall seconds UTC.
    """
    if protocol not in PROTOCOLS or not _ATOM.fullmatch(id):
        raise ValueError(f"no protocol or id for a trace field: {protocol!r} {id!r}")
    literal = _literal(client)
    helo = helo[:255]
    if _DOMAIN.fullmatch(helo) or _LITERAL.fullmatch(helo):
        units = ["Received: from", helo, f"({literal})"]
    else:
        units = ["Received: from", literal, f"({literal})", _comment(f"helo {helo}")]
    units += [f"by {by}", f"with {protocol}"]
    if tls:
        units.append(_comment(tls[:200]))
    units.append(f"id {id}")
    if recipient and recipient.isprintable() and len(recipient.encode()) < _LONGEST:
        units.append(f"for <{recipient}>")
    units[-1] += ";"
    units.append(_date(int(time)))
    return _folded(units)


def authentication_results(authserv_id: str, findings: Iterable[Finding]) -> bytes:
    """The field of RFC 8601 section 2.2, one finding a line, with CR LF; `none` where there are no findings.

    `authserv_id`: fixed for the installation, on all its hosts. Values that are no token are quoted.
    """
    parts = [_resinfo(finding) for finding in findings] or [["none"]]
    for part in parts[:-1]:
        part[-1] += ";"
    lines = [_folded([f"Authentication-Results: {authserv_id};"])]
    lines += [b"\t" + _folded(part, 8) for part in parts]
    return b"".join(lines)


def received_spf(result: str, pairs: Iterable[tuple[str, str]]) -> bytes:
    """The field of RFC 7208 section 9.1, folded, with CR LF; `pairs`: keys of that section and their values,
    which are quoted where they are no dot-atom."""
    units = [f"Received-SPF: {result}"]
    units += [f"{key}={value if _DOT_ATOM.fullmatch(value) else _quoted(value)};" for key, value in pairs]
    return _folded(units)


def _resinfo(finding: Finding) -> list[str]:
    units = [f"{finding.method}={finding.result}"]
    if finding.reason:
        units.append(f"reason={_value(finding.reason)}")
    return units + [f"{name}={_value(value)}" for name, value in finding.properties]


@lru_cache(maxsize=8)
def _date(second: int) -> str:
    """RFC 5322 section 3.3, in UTC. Remembered: many mails of one second ask for it."""
    return format_datetime(datetime.fromtimestamp(second, UTC))


def _literal(client: str) -> str:
    """`[192.0.2.1]`, `[IPv6:2001:db8::1]` (RFC 5321 section 4.1.3) or `unknown`."""
    if not client or not _LITERAL.fullmatch(f"[{client}]"):
        return "unknown"
    return f"[IPv6:{client}]" if ":" in client else f"[{client}]"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[: _LONGEST // 4]


def _comment(text: str) -> str:
    """`text` as a comment (RFC 5322 section 3.2.2); brackets and backslashes are escaped."""
    return "(" + re.sub(r"([()\\])", r"\\\1", _printable(text)) + ")"


def _value(text: str) -> str:
    """A token as it is, anything else as a quoted-string (RFC 2045 section 5.1)."""
    text = _printable(text)
    return text if _TOKEN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", _printable(text)) + '"'


def _folded(units: list[str], used: int = 0) -> bytes:
    """The units joined by blanks; before one that would pass column 78 the line is folded."""
    text, column = units[0], used + len(units[0])
    for unit in units[1:]:
        if column + 1 + len(unit) <= LINE:
            text, column = f"{text} {unit}", column + 1 + len(unit)
        else:
            text, column = f"{text}\r\n\t{unit}", 8 + len(unit)
    return text.encode("utf-8", "replace") + b"\r\n"


# --- fields of strangers ---

# Possessive: no state is kept for a way back, so the time and the memory are linear.
_FIELD = re.compile(rb"[^\n]*+(?:\n[ \t][^\n]*+)*+\n?+")
_NAME = re.compile(rb"([!-9;-~]++)[ \t]*+:")  # RFC 5322 section 3.6.8, blanks as in section 4.5.8
_INNER = re.compile(rb"\([^()]*+\)")
_BY = re.compile(rb"(?<!\S)by\s++([A-Za-z0-9.-]++)", re.IGNORECASE)  # RFC 5321 section 4.4
_FOR = re.compile(rb"(?<!\S)for\s++<([^<>]*+)>", re.IGNORECASE)
_TRACE = re.compile(rb"^received[ \t]*+:", re.IGNORECASE | re.MULTILINE)
_COMMENT = re.compile(rb"[^()\\]*+(?:\\.[^()\\]*+)*+([()]?)", re.DOTALL)
_COMMENTS = 100  # in each other


def head_length(content: bytes) -> int:
    """How many octets of `content` are its header: up to the empty line, which is not counted; all of it
    where there is no empty line."""
    if content.startswith(b"\r\n"):
        return 0
    at = content.find(b"\r\n\r\n")
    return len(content) if at < 0 else at + 2


@lru_cache(maxsize=1)
def lowered(head: bytes) -> bytes:
    """A header in lower case, behind a line feed: where a field begins is found so ten times as fast as by an
    expression. Remembered, since all who look for fields of a mail ask for it."""
    return b"\n" + head.lower()


def fields(head: bytes) -> Iterator[Field]:
    """Each field of a header, in order; a line that is no field has the name b""."""
    for match in _FIELD.finditer(head):
        start, end = match.span()
        if start == end:
            return
        name = _NAME.match(head, start, end)
        yield Field(name[1], start, name.end(), end) if name else Field(b"", start, start, end)


def field_end(head: bytes, at: int) -> int:
    """Where the field that holds the octet at `at` ends, its CR LF included."""
    match = _FIELD.match(head, at)
    assert match is not None  # the expression matches anything
    return match.end()


def returned(head: bytes, hosts: Iterable[str], recipients: Iterable[str]) -> int:
    """How often one of `hosts` has had this content before, for one of `recipients`: Received fields that
    name it in `by` and, where they name a recipient at all, one of these."""
    names = [host.encode() for host in hosts]
    if not any(name in head for name in names):
        return 0  # nearly all mail
    wanted = {recipient.lower() for recipient in recipients}
    found = 0
    for match in _TRACE.finditer(head):
        field = _FIELD.match(head, match.end())
        assert field is not None  # the expression matches anything
        clauses = _INNER.sub(b" ", _INNER.sub(b" ", field[0]))  # comments may nest
        by, to = _BY.search(clauses), _FOR.search(clauses)
        ours = by is not None and by[1].lower() in names
        found += ours and (to is None or to[1].decode("utf-8", "replace").lower() in wanted)
    return found


def comment_end(head: bytes, at: int, end: int) -> int | None:
    """Where the comment whose bracket opened before `at` ends; comments nest (RFC 5322 section 3.2.2). None:
    not before `end`, or too many in each other."""
    return nested(_COMMENT, head, at, end)


def nested(part: re.Pattern[bytes], head: bytes, at: int, end: int) -> int | None:
    """The same, with what `part` finds up to the next bracket."""
    depth = 1
    while 0 < depth <= _COMMENTS:
        match = part.match(head, at, end)
        if match is None or not match[1]:
            return None
        at = match.end()
        depth += 1 if match[1] == b"(" else -1
    return None if depth else at
