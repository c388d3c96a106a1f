"""Canonical form of header fields and bodies (RFC 6376 section 3.4): what DKIM and ARC sign.

All of it in time linear in the message; dkimpy's is quadratic in blanks and in names.
"""

from collections.abc import Sequence
from hashlib import sha256

from libs.mail.headers import Field


class Body:
    """A body in both of its canonical forms, each made and hashed once for all who ask."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._hashed: dict[str, tuple[bytes, int]] = {}

    def hashed(self, form: str) -> tuple[bytes, int]:
        """(SHA-256, length in octets) of the body in `form`, simple or relaxed."""
        if form not in self._hashed:
            canonical = relaxed_body(self._octets) if form == "relaxed" else simple_body(self._octets)
            self._hashed[form] = sha256(canonical).digest(), len(canonical)
        return self._hashed[form]


def signed_fields(head: bytes, found: Sequence[Field], names: Sequence[bytes], *, relaxed: bool) -> bytes:
    """RFC 6376 section 5.4.2: the fields that h= names (lower case), each name from the bottom up. The
    signature itself comes behind them (section 3.7)."""
    below: dict[bytes, list[Field]] = {}
    for field in found:
        below.setdefault(field.name.lower(), []).append(field)
    parts = []
    for name in names:
        if left := below.get(name):
            parts.append(canonical_field(head, left.pop(), relaxed=relaxed))
    return b"".join(parts)


def unsigned(head: bytes, own: Field, *, relaxed: bool) -> bytes:
    """A field with a signature as it was when it was signed: b= is empty, no CR LF."""
    octets = head[own.start : own.value] + _without_b(head[own.value : own.end])
    field = Field(own.name, 0, own.value - own.start, len(octets))
    return canonical_field(octets, field, relaxed=relaxed).removesuffix(b"\r\n")


def _without_b(value: bytes) -> bytes:
    """The tag list with an empty b=, all white space around its value gone too (section 3.5)."""
    specs = value.split(b";")
    for index, spec in enumerate(specs):
        name, equals, _ = spec.partition(b"=")
        if name.strip() == b"b":
            specs[index] = name + equals
    return b";".join(specs)


def canonical_field(head: bytes, field: Field, *, relaxed: bool) -> bytes:
    """Section 3.4.1 (simple) or 3.4.2 (relaxed), with CR LF."""
    if not relaxed:
        return head[field.start : field.end]
    value = _single_blanks(head[field.value : field.end].replace(b"\r\n", b"")).strip(b" ")
    return field.name.lower() + b":" + value + b"\r\n"


def simple_body(body: bytes) -> bytes:
    """Section 3.4.3: without empty lines at the end; an empty body is one CR LF."""
    end = len(body)
    tail = len(body.rstrip(b"\r\n"))
    if body[tail:] == b"\r\n" * ((end - tail) // 2):
        end = tail
    else:  # single CRs or LFs in between: only whole CR LFs go
        while body.endswith(b"\r\n", 0, end):
            end -= 2
    return body[:end] + b"\r\n"


def relaxed_body(body: bytes) -> bytes:
    """Section 3.4.4: besides, blanks at line ends go, others become one; an empty body is empty."""
    if not body.endswith(b"\r\n"):
        body += b"\r\n"
    canonical = simple_body(_single_blanks(body).replace(b" \r\n", b"\r\n"))
    return b"" if canonical == b"\r\n" else canonical


def _single_blanks(text: bytes) -> bytes:
    """Each run of blanks and tabs as one blank. A pass halves every run, so there are at most log2(length) of
    them, all in C; a regular expression takes ten times as long on a large body."""
    text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text
