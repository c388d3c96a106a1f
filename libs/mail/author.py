"""Whose mail the From field says it is: the domains of its mailboxes, for DMARC (RFC 9989 section 5.3.1).

The field is read as RFC 5322 writes it, with the obsolete forms (section 4.4), groups (RFC 6854) and UTF-8
(RFC 6532): comments, quoted strings and encoded words name nobody. What two readers could take for two
different authors is a defect, not a guess. All is linear in the length of the header, and nothing raises.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from libs.mail.address import BadAddress, domain_name
from libs.mail.headers import comment_end, field_end, lowered

DOMAINS = 8  # RFC 9989 section 11.5: of more author domains nothing is known
OCTETS = 8192  # of a From field; nobody has so many names
_REMEMBERED_OCTETS = 512


class Author(NamedTuple):
    """`domains`: distinct, in order; lower-case A-labels without final dot, or address literals in brackets.
    None of them where the field has a `defect`, or where it holds empty groups only."""

    domains: tuple[str, ...] = ()
    defect: str = ""


class _Malformed(Exception):  # noqa: N818
    """The value is nothing that RFC 5322 allows in a From field."""


def author(head: bytes) -> Author:
    """The authors that a header (without the empty line) names."""
    if b"\0" in head:
        return Author(defect="NUL in the header")
    if head[:1] in (b" ", b"\t"):
        return Author(defect="malformed header")  # some readers take the first line for a field all the same
    found = _values(head)
    if len(found) != 1:
        return Author(defect="several From fields" if found else "no From field")
    value = found[0]
    if value is None:
        return Author(defect="malformed From field")
    if len(value) > OCTETS:
        return Author(defect="From field too long")
    return _remembered(value) if len(value) <= _REMEMBERED_OCTETS else _read(value)


# --- the field ---

_FROM = re.compile(rb"from((?:[ \t]|\r?\n[ \t])*+):", re.IGNORECASE)  # RFC 5322 section 4.5.2


def _values(head: bytes) -> list[bytes | None]:
    """The values of the first two From fields; None where the name is folded: readers do not agree on it."""
    low = lowered(head)
    found: list[bytes | None] = []
    at = low.find(b"\nfrom")
    while at >= 0 and len(found) < 2:
        if match := _FROM.match(head, at):
            value = head[match.end() : field_end(head, match.end())]
            found.append(None if b"\n" in match[1] else value)
        at = low.find(b"\nfrom", at + 1)
    return found


# --- its value ---

_TOKEN = re.compile(
    rb"""(?P<blank>[ \t\r\n]++)
    |(?P<comment>\()
    |(?P<quoted>"(?:[^"\\]|\\.)*+")
    |(?P<literal>\[(?:[^\[\]\\]|\\.)*+\])
    |(?P<atom>[A-Za-z0-9!\#$%&'*+\-/=?^_`{|}~\x80-\xff]++)
    |(?P<special>[<>@,;:.])""",
    re.VERBOSE | re.DOTALL,
)
_KINDS = {"quoted": "q", "literal": "l", "atom": "a"}
# Over the kinds of tokens, comments and blanks left out: section 3.4, with the obsolete forms of section 4.4.
# A final dot is no RFC 5322, but every reader takes it for the same domain.
_LOCAL = r"[aq](?:\.[aq])*+"
_DOMAIN = r"(?:a(?:\.a)*+\.?|l)"
_ROUTE = rf",*+@{_DOMAIN}(?:,(?:@{_DOMAIN})?)*+:"
_MAILBOX = re.compile(rf"(?:[aq][aq.]*+)?<(?:{_ROUTE})?{_LOCAL}@({_DOMAIN})>|{_LOCAL}@({_DOMAIN})")
_GROUP = re.compile(r"[aq][aq.]*+:")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*+")
_LITERAL_OCTETS = 255  # RFC 5321 section 4.5.3.1.2
_UTF8_OCTETS = 1000  # of a domain; an A-label of its length would not fit DNS


def _read(value: bytes) -> Author:
    try:
        raw = _domains(*_tokens(value))
        if len(raw) > DOMAINS:
            return Author(defect="too many author domains")
        return Author(tuple(dict.fromkeys(_normal(domain) for domain in raw)))
    except _Malformed:
        return Author(defect="malformed From field")


_remembered = lru_cache(maxsize=4096)(_read)  # a sender's mails share the field


def _tokens(value: bytes) -> tuple[str, list[bytes]]:
    """(a letter for the kind of each token, its octets); without comments and blanks. Raises _Malformed."""
    kinds: list[str] = []
    texts: list[bytes] = []
    at = 0
    while at < len(value):
        match = _TOKEN.match(value, at)
        if match is None:
            raise _Malformed
        at = match.end()
        if match.lastgroup == "comment":
            closed = comment_end(value, at, len(value))
            if closed is None:
                raise _Malformed
            at = closed
        elif match.lastgroup != "blank":
            assert match.lastgroup is not None  # each alternative has a name
            kinds.append(_KINDS.get(match.lastgroup) or match[0].decode())
            texts.append(match[0])
    return "".join(kinds), texts


def _domains(kinds: str, texts: list[bytes]) -> list[bytes]:
    """The domain of each mailbox, each once. Raises _Malformed."""
    found: dict[bytes, None] = {}
    at, grouped, ended, anybody = 0, False, True, False
    while at < len(kinds):
        if kinds[at] == ",":
            at, ended = at + 1, True  # lists may have empty places (section 4.4)
        elif kinds[at] == ";" and grouped:
            at, grouped, ended = at + 1, False, False
        elif not ended:
            raise _Malformed
        elif match := _MAILBOX.match(kinds, at):
            start, end = match.span(match.lastindex or 0)
            found[b"".join(texts[start:end])] = None
            at, ended, anybody = match.end(), False, True
        elif not grouped and (match := _GROUP.match(kinds, at)):
            at, grouped, anybody = match.end(), True, True
        else:
            raise _Malformed
    if grouped or not anybody:
        raise _Malformed
    return list(found)


def _normal(raw: bytes) -> str:
    """Raises _Malformed for what no DNS can hold."""
    if raw[:1] == b"[" and len(raw) <= _LITERAL_OCTETS:
        return raw.decode("ascii", "replace")
    try:
        if raw.isascii():
            name = raw.decode().removesuffix(".").lower()
        elif len(raw) <= _UTF8_OCTETS:
            name = domain_name(raw.decode())
        else:
            raise _Malformed
    except (UnicodeDecodeError, BadAddress) as error:
        raise _Malformed from error
    if not _NAME.fullmatch(name):
        raise _Malformed
    return name
