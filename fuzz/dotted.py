"""What a content on the wire means, read one octet after the other: the standard's own words, made slow.

Written apart from services/ingest/unstuff.py, which works on blocks with regular expressions: two that were
written differently seldom err in the same way. RFC 5321 section 4.5.2 (dots), section 2.3.8 (line ends).
"""

from typing import NamedTuple


class Meaning(NamedTuple):
    """`state`: "open" (more is to come), "ended" or "false" (a bare CR, or an end of data that only some
    servers believe); `content`: dots taken off, each line ended by CR LF; `length`: octets of the wire that
    were read, the end of data included."""

    state: str
    content: bytes
    length: int


def meaning(wire: bytes) -> Meaning:
    """Of what follows the CR LF of the DATA line."""
    content = bytearray()
    line = bytearray()
    began_after = "CRLF"  # what ended the line before
    at = 0
    while at < len(wire):
        octet = wire[at]
        if octet == 13:
            if at + 1 == len(wire):
                return Meaning("open", bytes(content), at)
            if wire[at + 1] != 10:
                return Meaning("false", b"", at)
            ended_by, at = "CRLF", at + 2
        elif octet == 10:
            ended_by, at = "LF", at + 1
        else:
            line.append(octet)
            at += 1
            continue
        if line == b".":
            if began_after == ended_by == "CRLF":
                return Meaning("ended", bytes(content), at)
            return Meaning("false", b"", at)
        content += (line[1:] if line[:1] == b"." else line) + b"\r\n"
        line.clear()
        began_after = ended_by
    return Meaning("open", bytes(content), at)


def hops(content: bytes) -> int:
    """Received fields above the first empty line (RFC 5321 section 6.3)."""
    count = 0
    for line in content.split(b"\r\n"):
        if not line:
            break
        count += line[:9].lower() == b"received:"
    return count
