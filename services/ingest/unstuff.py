"""What comes after 354: dots taken off, the end found, line ends judged (RFC 5321 sections 4.5.2, 2.3.8).

Works on blocks of any size with a few linear passes in C and never on lines, so an endless line or a million
empty ones cost what their octets cost. At most four octets are kept back between blocks.
"""

import re
from io import IncrementalNewlineDecoder

HEAD_OCTETS = 128 * 1024  # so much of the header is looked at here

_FORGEABLE = b"\nauthentication-results"  # RFC 8601 section 5
_CUT_OCTETS = 4096  # a field that begins so near to the end of what is held may be cut off before its id
_END, _DOTTED = b"\r\n.\r\n", b"\r\n."
# The last octets that may be the beginning of an end of data, true or false, or half of a CR LF.
_UNDECIDED = re.compile(rb"(?:\r?\n(?:\.\r?)?|\r)\Z")
# A line that is a lone dot, but not between CR LF and CR LF: some server believes that content ends here.
_FALSE_END = re.compile(rb"(?<!\r)\n\.\r?\n|\r\n\.\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")


class Unstuff:
    """The state between two blocks. `ended`: the true end of data was seen. `fault`: a bare CR or a false end
    of data (with `reject_bare_lf` also a lone LF); nothing after it means anything. `size`: octets so far;
    `eightbit`: one of them was over 127; `head`: the header without the empty line, HEAD_OCTETS at most;
    `hides`: behind those it has a field that may be forged in our name."""

    def __init__(self, *, reject_bare_lf: bool = False) -> None:
        self.ended = False
        self.fault = False
        self.size = 0
        self.eightbit = False
        self._reject_bare_lf = reject_bare_lf
        self._kept = b"\r\n"  # the CR LF of the DATA line: a dot right after it ends an empty content
        self._first = True
        self.head = bytearray()
        self.hides = False
        self._in_head = True
        self._beyond = b""  # the last octets of a header that is longer than `head`

    def feed(self, wire: bytearray) -> bytes:
        """Take what has arrived from the front of `wire` and return the content in it; what follows the end
        of data stays there. Lone LFs have become CR LF. With `fault` set nothing is returned."""
        data = self._kept + wire
        end = dotted = data.find(_DOTTED)  # one search finds both: in most mail only the end has a dot
        if dotted >= 0 and not data.startswith(_END, dotted):
            end = data.find(_END, dotted)
        if end < 0:
            wire.clear()
            undecided = _UNDECIDED.search(data, len(data) - 4 if len(data) > 4 else 0)
            cut = undecided.start() if undecided else len(data)
            seen, self._kept = data, data[cut:]
        else:
            del wire[: end + len(_END) - len(self._kept)]
            cut = end + 2
            seen = data[: end + len(_END)]
            self.ended = True
        content = data[:cut]
        bare_lf = self._judge(seen)
        if self.fault:
            self.ended = False
            return b""
        if bare_lf:
            content = _BARE_LF.sub(b"\r\n", content)
        if bare_lf or 0 <= dotted < cut - 2:
            content = content.replace(b"\r\n.", b"\r\n")
        if self._first and content:
            content = content[2:]
            self._first = False
        self.size += len(content)
        if not content.isascii():
            self.eightbit = True
        if self._in_head:
            self._look(content)
        return content

    @property
    def hops(self) -> int:
        """How many Received fields the header has, as far as it was seen (RFC 5321 section 6.3)."""
        lower = self.head.lower()
        return lower.count(b"\nreceived:") + lower.startswith(b"received:")

    def _judge(self, seen: bytes) -> bool:
        """Sets `fault`; says whether there are lone LFs."""
        ends = IncrementalNewlineDecoder(None, translate=False)
        ends.decode(str(seen, "latin-1"))  # one pass in C that only notes which line ends there are
        if ends.newlines in (None, "\r\n"):
            return False  # as nearly all mail is
        rest = seen.removesuffix(b"\r").replace(b"\r\n", b"")
        if b"\r" in rest:
            self.fault = True
        elif b"\n" in rest:
            self.fault = self._reject_bare_lf or _FALSE_END.search(seen) is not None
            return True
        return False

    def _look(self, content: bytes) -> None:
        head = self.head
        if (room := HEAD_OCTETS - len(head)) <= 0:
            self._look_beyond(self._beyond + content)
            return
        seen = max(0, len(head) - 3)
        head += content[:room]
        end = 0 if head.startswith(b"\r\n") else head.find(b"\r\n\r\n", seen) + 2
        if end != 1:
            del head[end:]
            self._in_head = False
        elif len(head) >= HEAD_OCTETS:
            self._look_beyond(bytes(head[-_CUT_OCTETS:]) + content[room:])

    def _look_beyond(self, octets: bytes) -> None:
        """The header goes on behind what is held of it."""
        end = octets.find(b"\r\n\r\n")
        self._in_head = end < 0
        self.hides = self.hides or _FORGEABLE in (octets if end < 0 else octets[:end]).lower()
        self._beyond = octets[-len(_FORGEABLE) :]
