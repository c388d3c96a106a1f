"""Mailboxes and paths: RFC 5321 sections 4.1.2 and 4.1.3, RFC 6531 section 3.3, parsed strictly from octets.

Nothing is decoded, guessed or repaired: no encoded words, comments or source routes. A local part is
opaque (`u%evil`, `evil!u` and `"u@evil"` are names like any other). A domain is compared as its lower-case
A-label without the trailing dot.
"""

import ipaddress
import re
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

import idna

LOCAL_OCTETS = 64  # RFC 5321 section 4.5.3.1.1
DOMAIN_OCTETS = 255  # RFC 5321 section 4.5.3.1.2
MAILBOX_OCTETS = 254  # section 4.5.3.1.3: a path has 256, two of them are angle brackets


class Bad(StrEnum):
    """What is wrong, as far as the reply depends on it."""

    SYNTAX = "syntax"
    SOURCE_ROUTE = "source route"
    UTF8 = "UTF-8 without SMTPUTF8"
    TOO_LONG = "too long"


class BadAddress(ValueError):  # noqa: N818 the contract's word
    """Not a mailbox, path or domain; `bad` says in which way."""

    def __init__(self, bad: Bad = Bad.SYNTAX) -> None:
        super().__init__(bad.value)
        self.bad = bad


_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]"
_ATEXT8 = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\x80-\xff]"
_LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
_PLAIN = re.compile(rb"<(%b++(?:\.%b++)*+)@(%b(?:\.%b)*+)\.?>" % (_ATEXT, _ATEXT, _LABEL, _LABEL))
_DOT_STRING = re.compile(rb"%b++(?:\.%b++)*+" % (_ATEXT8, _ATEXT8))
_QUOTED = re.compile(rb'"((?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*+)"')
_DOMAIN = re.compile(rb"%b(?:\.%b)*+" % (_LABEL, _LABEL))
_SOURCE_ROUTE = re.compile(rb"@[^:\"]+:")
_SPLIT = re.compile(rb'<(?:"(?:[^"\\]|\\.)*+"|[^">])*+>', re.DOTALL)
_UNESCAPE = re.compile(r"\\(.)")
_ESCAPE = re.compile(r'(["\\])')
_LITERAL = re.compile(r"\[(?:(IPv6):)?([0-9A-Fa-f:.]+)\]", re.IGNORECASE)
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# RFC 2047 section 2. It is plain atext, but in an envelope only an attack on decoding parsers looks so.
_ENCODED_WORD = re.compile(rb"=\?[^?]+\?[bBqQ]\?[^?]*\?=")
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER = str.maketrans(_UPPER, _UPPER.lower())


class Mailbox(NamedTuple):
    """`local`: as sent, in its shortest valid quoting; `domain`: lower-case A-label, an address literal in
    normal form such as `[192.0.2.1]` or `[IPv6:2001:db8::1]`, or "" for the bare `postmaster`."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}" if self.domain else self.local

    @property
    def key(self) -> str:
        """The normal form, key of `recipients`: ASCII letters of the local part in lower case."""
        return _key(self)


@lru_cache(maxsize=4096)  # an owner has few recipients, and most senders write again
def _key(of: Mailbox) -> str:
    local = of.local.translate(_LOWER)
    return f"{local}@{of.domain}" if of.domain else local


@lru_cache(maxsize=4096)
def split(raw: bytes) -> tuple[bytes, bytes]:
    """`<path> parameters` -> (`<path>`, `parameters`); a quoted string may hold `>` and spaces.

    Raises BadAddress where there is no path in angle brackets, or something else than a space follows it.
    """
    match = _SPLIT.match(raw)
    if match is None or raw[match.end() : match.end() + 1] not in (b"", b" "):
        raise BadAddress
    return match[0], raw[match.end() :].strip(b" ")


@lru_cache(maxsize=4096)
def path(raw: bytes, *, smtputf8: bool) -> Mailbox | None:
    """The path in `raw`, angle brackets included; None for the null path `<>`; Mailbox("postmaster", "") for
    the bare `<postmaster>` (RFC 5321 section 4.1.1.3).

    Raises BadAddress: SOURCE_ROUTE, UTF8 (without `smtputf8`), TOO_LONG, else SYNTAX.
    """
    match = _PLAIN.fullmatch(raw)
    if match is not None:
        local, domain = match.groups()
        if b"=?" in local and _ENCODED_WORD.search(local):
            raise BadAddress
        if len(local) > LOCAL_OCTETS or len(domain) > DOMAIN_OCTETS or len(raw) > MAILBOX_OCTETS + 2:
            raise BadAddress(Bad.TOO_LONG)
        return Mailbox(local.decode(), domain.decode().lower())
    if raw == b"<>":
        return None
    if len(raw) < 2 or raw[:1] != b"<" or raw[-1:] != b">":
        raise BadAddress
    inner = raw[1:-1]
    if inner.lower() == b"postmaster":
        return Mailbox(inner.decode(), "")
    if _SOURCE_ROUTE.match(inner):
        raise BadAddress(Bad.SOURCE_ROUTE)
    return _mailbox(inner, smtputf8=smtputf8)


def mailbox(text: str) -> Mailbox:
    """The mailbox `local@domain` in `text`, UTF-8 allowed. Raises BadAddress."""
    try:
        return _mailbox(text.encode(), smtputf8=True)
    except UnicodeEncodeError as error:
        raise BadAddress from error


def domain_name(text: str) -> str:
    """The lower-case A-label of the host or domain name in `text`, the trailing dot dropped; no address
    literal. Raises BadAddress."""
    if not text.isascii():
        # UTS 46 maps upper case and full-width letters and dots, as every user interface does.
        try:
            text = idna.encode(text, uts46=True, std3_rules=True).decode()
        except (idna.IDNAError, UnicodeError) as error:
            raise BadAddress from error
    name = text.removesuffix(".")
    if not _DOMAIN.fullmatch(name.encode()):
        raise BadAddress
    if len(name) > DOMAIN_OCTETS:
        raise BadAddress(Bad.TOO_LONG)
    return name.lower()


def _mailbox(raw: bytes, *, smtputf8: bool) -> Mailbox:
    quoted = _QUOTED.match(raw)
    end = quoted.end() if quoted else raw.find(b"@")
    if end < 0 or raw[end : end + 1] != b"@":
        raise BadAddress
    try:
        local, domain = raw[:end].decode(), raw[end + 1 :].decode()
    except UnicodeDecodeError as error:
        raise BadAddress from error
    if _UNSAFE.search(local) or _UNSAFE.search(domain) or _ENCODED_WORD.search(raw[:end]):
        raise BadAddress
    local = _unquoted(local[1:-1]) if quoted else local
    if not quoted and not _DOT_STRING.fullmatch(raw[:end]):
        raise BadAddress
    domain = _literal(domain) if domain.startswith("[") else domain_name(domain)
    # Only a well-formed address can be told that all it lacks is SMTPUTF8.
    if not smtputf8 and not raw.isascii():
        raise BadAddress(Bad.UTF8)
    if len(local.encode()) > LOCAL_OCTETS or len(local.encode()) + 1 + len(domain) > MAILBOX_OCTETS:
        raise BadAddress(Bad.TOO_LONG)
    return Mailbox(local, domain)


def _unquoted(inner: str) -> str:
    """The shortest valid form of a quoted string's inner text."""
    text = _UNESCAPE.sub(r"\1", inner)
    if _DOT_STRING.fullmatch(text.encode()):
        return text
    return '"' + _ESCAPE.sub(r"\\\1", text) + '"'


def _literal(text: str) -> str:
    """An address literal (RFC 5321 section 4.1.3) in normal form. IPv6 is the only registered tag."""
    match = _LITERAL.fullmatch(text)
    if match is None:
        raise BadAddress
    try:
        if match[1]:
            return f"[IPv6:{ipaddress.IPv6Address(match[2])}]"
        return f"[{ipaddress.IPv4Address(match[2])}]"
    except ValueError as error:
        raise BadAddress from error
