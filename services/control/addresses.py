"""Files of addresses read (one a line, a Postfix map, LDIF of RFC 2849, CSV with a header) and written.

Nothing is guessed: what is no address of the domain is told, line by line.
"""

import base64
import binascii
import csv
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from services.control.domains import Malformed, mailbox_of


class Wrong(NamedTuple):
    """A line (1 is the first) that cannot be used, and why, in one sentence."""

    line: int
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


class Found(NamedTuple):
    """`addresses`: mailboxes by their normal form, in the order of the file."""

    addresses: dict[str, str]
    wrong: list[Wrong]


_Item = tuple[int, str] | Wrong  # what stands in a line and should be an address

LDAP = frozenset({"mail", "mailalternateaddress", "maillocaladdress", "proxyaddresses"})  # attributes
COLUMNS = frozenset(
    {"mail", "email", "address", "emailaddress", "emailaddresses", "proxyaddresses", "primarysmtpaddress"}
)
_END = re.compile(r"\r\n|\n|\r")  # no other line ends, as with blanks
_BLANK = " \t\v\f"  # no other: a local part may hold what Unicode calls one
_KEY = re.compile(r'(?:"(?:[^"\\]|\\.)*")?[^ \t\v\f]*')  # of a Postfix map
_LONGEST = 1000  # characters of what is shown as it stands; an address has 254 octets
_PREFIX = re.compile(r"([A-Za-z0-9]+):")
_BETWEEN = re.compile(r"[;\r\n]|[, \t]+(?=[A-Za-z0-9]+:)")  # Exchange: SMTP:a@x;smtp:b@x
_SIGNS = (";", "\t", "|", ",")
_PLAIN = re.compile(r"[^a-z0-9]")


def read(data: bytes, domain: str) -> Found:
    """The addresses of `domain` (lower-case A-label) in a file, whatever form it has. Raises nothing."""
    lines = _END.split(_text(data))
    found = Found({}, [])
    for item in _items(lines):
        address = item if isinstance(item, Wrong) else _address(*item, domain)
        if isinstance(address, Wrong):
            found.wrong.append(address)
        else:
            key, spelt = address
            found.addresses.setdefault(key, spelt)
    return found


def write(addresses: Iterable[str], *, postfix: bool = False) -> Iterator[str]:
    """One address a line, without line ends; `postfix`: as source of a relay_recipient_maps table."""
    for address in addresses:
        local, _, domain = address.rpartition("@")
        line = f'"{local}"@{domain}' if local.startswith("#") else address  # it would be a comment
        yield f"{line} OK" if postfix else line


def _text(data: bytes) -> str:
    """Octets that are no UTF-8 may stand in a name, and make an address wrong."""
    for mark in (b"\xff\xfe", b"\xfe\xff"):
        if data.startswith(mark):
            return data.decode("utf-16", "replace")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def _items(lines: list[str]) -> Iterator[_Item]:
    head = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    if re.match(r"(version|dn)::?\s*\S", head, re.IGNORECASE):
        return _ldif(lines)
    sign = _sign(head)
    names = head.split(sign) if sign else [head]
    if "@" not in head and (len(names) > 1 or _plain(head) in COLUMNS):
        return _csv(lines, sign or ",")
    return _map(lines)


def _address(line: int, text: str, domain: str) -> tuple[str, str] | Wrong:
    """Normal form and spelling."""
    if len(text) > _LONGEST:
        return Wrong(line, f"{text[:60]!r}... is no mail address: it has {len(text)} characters")
    if text.startswith("@"):
        return Wrong(line, f"{text!r} stands for every address of a domain, and tells of none that it exists")
    try:
        found = mailbox_of(domain, text)
    except Malformed as error:
        return Wrong(line, str(error))
    return found.key, str(found)


def _map(lines: list[str]) -> Iterator[_Item]:
    """One address a line; what follows it is a comment, or the value of a Postfix table (postmap(1))."""
    for number, line in enumerate(lines, 1):
        text = line.strip(_BLANK)
        if not text or text.startswith("#"):
            continue
        if line[0] not in _BLANK:
            match = _KEY.match(text)
            yield number, match[0] if match else text
        elif "@" in text:
            yield Wrong(
                number, f"{text[:_LONGEST]!r} begins with a blank: for Postfix that goes on the line before"
            )


def _ldif(lines: list[str]) -> Iterator[_Item]:
    for number, line in _unfolded(lines):
        if not line.strip() or line.startswith("#") or line == "-":
            continue
        name, colon, value = line.partition(":")
        if not colon:
            yield Wrong(number, f"{line[:60]!r} is no line of LDIF")
            continue
        name = name.partition(";")[0].strip().lower()
        if name not in LDAP:
            continue
        if value.startswith("<"):
            yield Wrong(number, f"{name} names a file, and holds no address")
            continue
        if value.startswith(":"):
            try:
                octets = base64.b64decode(value[1:].strip(), validate=True)
            except (binascii.Error, ValueError):
                yield Wrong(number, f"{name} holds no base64")
                continue
            value = octets.decode("utf-8", "surrogateescape")
        address = _bare(value.strip(_BLANK))
        if address:
            yield number, address


def _unfolded(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Each line with those that go on with it: they begin with one blank (RFC 2849, note 2)."""
    begun, parts = 1, list[str]()
    for number, line in enumerate(lines, 1):
        if line.startswith(" "):
            parts.append(line[1:])
            continue
        if parts:
            yield begun, "".join(parts)
        begun, parts = number, [line]
    if parts:
        yield begun, "".join(parts)


def _csv(lines: list[str], sign: str) -> Iterator[_Item]:
    rows = csv.reader((f"{line}\n" for line in lines), delimiter=sign)
    columns: list[int] | None = None
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Wrong(number, f"it is no line of CSV: {error}")
            continue
        if not any(cell.strip() for cell in row) or (columns is None and row[0].startswith("#")):
            continue
        if columns is None:
            columns = [index for index, name in enumerate(row) if _plain(name) in COLUMNS]
            if not columns:
                yield Wrong(number, "no column is called mail, email, address or proxyAddresses")
                return
            continue
        for index in columns:
            for part in _BETWEEN.split(row[index]) if index < len(row) else ():
                if address := _bare(part.strip(_BLANK)):
                    yield number, address


def _bare(text: str) -> str:
    """Without `smtp:`; "" for what is no mail address by its own word, such as `sip:` or `X500:`."""
    prefix = _PREFIX.match(text)
    if prefix is None:
        return text
    return text[prefix.end() :].strip(_BLANK) if prefix[1].lower() == "smtp" else ""


def _sign(head: str) -> str:
    """What separates the columns of a header, or ""."""
    most = max(_SIGNS, key=head.count)
    return most if most in head else ""


def _plain(name: str) -> str:
    return _PLAIN.sub("", name.lower())
