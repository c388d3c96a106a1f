"""A reply: ours to say (RFC 5321 section 4.2, RFC 2034), or a foreign server's as read."""

import re
from typing import NamedTuple

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?:\s+|$)")


class Reply(NamedTuple):
    """One reply of ours. `enhanced` "" only where the standard has none (banner, EHLO, 354).

    `text` may hold LF: then it is a multi-line reply, the enhanced code on each line (RFC 2034).
    """

    code: int
    enhanced: str
    text: str

    def wire(self) -> bytes:
        """The octets on the wire, each line ended by CR LF."""
        status = f"{self.enhanced} " if self.enhanced else ""
        lines = self.text.split("\n")
        body = [f"{self.code}-{status}{line}\r\n" for line in lines[:-1]]
        return "".join([*body, f"{self.code} {status}{lines[-1]}\r\n"]).encode("utf-8", "backslashreplace")


class Foreign(NamedTuple):
    """A foreign server's reply: `code` 200..599, `enhanced` "" where it gave none, `text` one line, escaped
    (control characters as \\xNN, at most 500 characters)."""

    code: int
    enhanced: str
    text: str

    def line(self) -> str:
        """For events, records and DSNs: `550 5.1.1 no such user`."""
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


def foreign(code: int, text: str) -> Foreign:
    """What a foreign server said: `text` is all lines without their codes, joined by LF."""
    lines = [line.strip() for line in text.split("\n")]
    match = _ENHANCED.match(lines[0])
    enhanced = ""
    if match and match[1] == str(code)[0]:
        enhanced = ".".join(match.groups())
        lines = [line.removeprefix(enhanced).strip() for line in lines]
    return Foreign(code, enhanced, escaped(" ".join(line for line in lines if line)))


def escaped(text: str, limit: int = 500) -> str:
    """`text` on one line, safe in a log, a record and a header: control characters as \\xNN."""
    safe = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return safe[:limit]


def parse_line(line: str) -> Foreign:
    """The inverse of Foreign.line(). Raises ValueError."""
    code, _, rest = line.partition(" ")
    return foreign(int(code), rest)
