"""What a session means: all that the client has sent, and which replies to it are legal.

A second opinion, written from the standards and from nothing of services/. It follows a session as it goes:
`sent` and `replied` in the order in which the client sent and read. Where a command is plainly right or
plainly wrong exactly one reply will do; where it is neither, any reply that speaks of the client's doing; the
replies of a mail server's own trouble never, since nothing here is in trouble.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from fuzz.dotted import Meaning, hops, meaning
from fuzz.furniture import DEFER, DOMAINS, HOST, KNOWN, MAX_ERRORS, MAX_SIZE, REJECT, SMALL_SIZE, UNKNOWN

LINE = 2048  # octets of a command, CR LF included
MOST_RECIPIENTS = 100  # RFC 5321 section 4.5.3.1.8
_REPLY = re.compile(rb"([2-5][0-9][0-9])([ -])([ -~]*)\r\n")
_ENHANCED = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3} .")
_NAME = rb"[A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*"
_HELO = re.compile(_NAME)
_MAIL = re.compile(
    rb"FROM:<(?:%b@%b)?>((?: SIZE=[0-9]{1,9}| BODY=8BITMIME| RET=HDRS| SMTPUTF8)?)" % (_NAME, _NAME),
    re.IGNORECASE,
)
_RCPT = re.compile(
    rb"TO:<(%b)@(%b)>(?: NOTIFY=NEVER| NOTIFY=SUCCESS,FAILURE| ORCPT=rfc822;ann@x\.example)?"
    % (_NAME, _NAME),
    re.IGNORECASE,
)
_BEHIND_QUIT = re.compile(rb"(?is)(?<![^\n])QUIT *\r\n.")
_QUEUED = re.compile(r"2\.0\.0 Ok: queued as ([a-z2-7]{24})")

# What may be said to a command at all, in any state. 421 4.7.0 takes the place of the last 5yz that is borne.
_SYNTAX = {"501 5.5.4"}
_LEGAL = {
    "HELO": {"250 ", "554 5.5.0"} | _SYNTAX,
    "EHLO": {"250 ", "554 5.5.0"} | _SYNTAX,
    "MAIL": {"250 2.1.0", "501 5.1.7", "503 5.5.1", "552 5.3.4", "553 5.6.7", "555 5.5.4"} | _SYNTAX,
    "RCPT": {
        "250 2.1.5", "451 4.3.2", "451 4.3.5", "451 4.7.1", "452 4.5.3", "501 5.1.3", "503 5.5.1",
        "550 5.1.1", "550 5.7.1", "552 5.3.4", "553 5.6.7", "555 5.5.4",
    } | _SYNTAX,
    "DATA": {"354 ", "451 4.5.0", "451 4.5.1", "503 5.5.1", "554 5.5.1", "554 5.5.0"} | _SYNTAX,
    "RSET": {"250 2.0.0"} | _SYNTAX,
    "NOOP": {"250 2.0.0"},
    "QUIT": {"221 2.0.0"} | _SYNTAX,
    "HELP": {"214 2.0.0"},
    "VRFY": {"252 2.1.5"} | _SYNTAX,
    "EXPN": {"252 2.1.5"} | _SYNTAX,
    "STARTTLS": {"220 2.0.0", "503 5.5.1"} | _SYNTAX,
    "ETRN": {"250 2.0.0", "458 4.3.0", "458 4.7.1", "459 4.7.1", "503 5.5.1"} | _SYNTAX,  # RFC 1985
}  # fmt: skip
_CLOSING = {"221 2.0.0", "451 4.5.0", "554 5.5.0", "554 5.6.11"}


class Violation(Exception):  # noqa: N818 says what it is
    """The server did what it must not do."""


class Mailed(NamedTuple):
    """What got its 250: the id, and what must be in the queue under it."""

    id: str
    content: bytes
    recipients: int


class Reading:
    """`mode`: banner, command, content, tls (a handshake must come now) or over. `mailed`: what got 250."""

    def __init__(self) -> None:
        self.mode = "banner"
        self.mailed: list[Mailed] = []
        self._wire = bytearray()  # what was sent and not answered yet
        self._helo = self._mail = self._tls = False
        self._later = self._stray = False  # a recipient was refused for now; DATA was refused
        self._inside = False  # a content that has got no reply
        self._errors = 0
        self._size: int | None = 0  # declared; None: not plain
        self._recipients: list[str] = []  # the domain of each that was accepted, "?" where not plain
        self._scanned = (0, meaning(b""))  # a content is read once as long as nothing is added to it

    # --- what the client does ---

    def sent(self, octets: bytes) -> None:
        self._wire += octets

    def encrypted(self) -> None:
        """The handshake is done: all that was said in clear is forgotten (RFC 3207 section 4.2)."""
        self._wire.clear()
        self.mode, self._tls = "command", True
        self._helo = False
        self._forget()

    @property
    def owed(self) -> bool:
        """A reply must come, whatever the client does next."""
        match self.mode:
            case "banner":
                return True
            case "command":
                return b"\n" in self._wire or len(self._wire) > LINE
            case "content":
                return self._meaning().state != "open"
        return False

    @property
    def begun(self) -> bool:
        """The client is in the middle of a line."""
        return bool(self._wire)

    def unanswered(self) -> Iterator[bytes]:
        """Contents that may be in the queue although their 250 was never read."""
        starts = [0] if self._inside else []
        starts += [found.end() for found in re.finditer(rb"(?i)(?<![^\n])DATA *\r\n", self._wire)]
        for start in starts:
            found = meaning(bytes(self._wire[start:]))
            if found.state == "ended":
                yield found.content

    # --- what the server says ---

    def replied(self, lines: list[bytes]) -> None:
        """The lines of one reply, CR LF included. Raises Violation."""
        status, text = _parsed(lines)
        if "4.3.0" in status:
            raise Violation(f"trouble of its own: {text}")
        match self.mode:
            case "banner":
                self._must(status, {"220 ", "554 5.5.0"} if self._wire else {"220 "})
                self.mode = "command" if status == "220 " else "over"
            case "command" if self.owed:
                self._command(status, text)
            case "content" if self.owed:
                self._content(status, text)
            case _:
                raise Violation(f"a reply to nothing: {text}")

    def closed(self) -> None:
        """The server has closed the connection. Raises Violation when it had no reason to. Whoever says more
        behind QUIT over TLS may lose the replies before it: TCP forgets them when octets come to a closed
        socket."""
        behind = self._meaning().length if self.mode == "content" and self.owed else 0
        if self._tls and self.mode in ("command", "content") and _BEHIND_QUIT.search(self._wire, behind):
            self.mode = "over"
        if self.mode != "over":
            raise Violation(f"closed without a word ({self.mode})")

    def _must(self, status: str, legal: set[str]) -> None:
        if status not in legal:
            raise Violation(f"said {status!r}, legal is {' or '.join(sorted(legal))}")

    def _answer(self, status: str, legal: set[str]) -> bool:
        """Count errors; was the command done (2yz, 3yz)?"""
        if status == "421 4.7.0" and self._errors + 1 == MAX_ERRORS and any(each[0] == "5" for each in legal):
            self.mode = "over"
            return False
        self._must(status, legal)
        if status in _CLOSING:
            self.mode = "over"
        elif status[0] == "5":
            self._errors += 1
            if self._errors >= MAX_ERRORS:
                raise Violation(f"{self._errors} errors, and no 421")
        return status[0] in "23"

    # --- commands ---

    def _command(self, status: str, text: str) -> None:
        end = self._wire.find(b"\n") + 1
        line = bytes(self._wire[:end])
        if not end or end > LINE or line[-2:] != b"\r\n":
            self._must(status, {"500 5.5.2"})
            self.mode = "over"
            return
        del self._wire[:end]
        word, _, rest = line[:-2].partition(b" ")
        verb, rest = word.upper().decode("latin-1"), rest.strip(b" ")
        legal = set(_LEGAL.get(verb, self._unasked() if self._stray else {"500 5.5.2"}))
        plain = self._plain(verb, rest)
        if plain:
            legal &= plain
        if self._answer(status, legal):
            self._done(verb, rest, text)
        self._later |= verb == "RCPT" and status[0] == "4"
        self._stray |= verb == "DATA" and status[0] != "3"

    def _unasked(self) -> set[str]:
        """A content that no 354 asked for: where a recipient was refused for now, it may come again."""
        return {"451 4.5.0" if self._later else "554 5.5.0"}

    def _plain(self, verb: str, rest: bytes) -> set[str]:
        """The only legal replies where the command is plain; else none."""
        early = {"554 5.5.0"} if self._wire else set()  # RFC 2920: EHLO ends a group, and so does DATA
        unasked = self._unasked() if self._wire else set()
        match verb:
            case "EHLO" | "HELO":
                return early | ({"250 "} if _HELO.fullmatch(rest) and len(rest) < 200 else {"250 ", *_SYNTAX})
            case "MAIL" if not self._helo or self._mail:
                return {"503 5.5.1"}
            case "MAIL" if len(rest) < 60 and (found := _MAIL.fullmatch(rest)):
                _, _, size = found[1].upper().partition(b" SIZE=")
                return {"552 5.3.4"} if size and int(size) > MAX_SIZE else {"250 2.1.0"}
            case "RCPT" if not self._mail:
                return {"503 5.5.1"}
            case "RCPT" if (found := _RCPT.fullmatch(rest)) and len(found[1]) + len(found[2]) < 60:
                return self._recipient(found[1].decode().lower(), found[2].decode().lower())
            case "DATA" if rest:
                return _SYNTAX | unasked
            case "RSET" | "QUIT" | "STARTTLS" if rest:
                return _SYNTAX
            case "DATA" if self._mail and self._recipients:
                return {"354 "}
            case "DATA":
                nobody = "451 4.5.1" if self._later else "554 5.5.1"
                return unasked | {nobody if self._mail else "503 5.5.1"}
            case "RSET" | "QUIT":
                return _LEGAL[verb] - _SYNTAX
            case "STARTTLS":
                return {"503 5.5.1"} if self._tls else {"220 2.0.0"}
            case "VRFY" | "EXPN":
                return {"252 2.1.5"} if rest else _SYNTAX
        return set()

    def _recipient(self, local: str, domain: str) -> set[str]:
        """Another domain than that of the first recipient must wait for the next transaction."""
        first = self._recipients[0] if self._recipients else domain
        if domain not in DOMAINS or first == "?" or len(self._recipients) >= MOST_RECIPIENTS:
            return set()
        if first != domain:
            return {"452 4.5.3"}
        if self._size is None or self._size > DOMAINS[domain]:
            return {"552 5.3.4"} if self._size else set()
        return {"250 2.1.5"} if local in KNOWN else {"550 5.1.1"} if local in UNKNOWN else set()

    def _done(self, verb: str, rest: bytes, text: str) -> None:
        match verb:
            case "EHLO" | "HELO":
                self._helo = True
                self._forget()
                if verb == "EHLO" and ("STARTTLS" in text.split("\n")) == self._tls:
                    raise Violation("STARTTLS is offered in clear, and only there")
            case "MAIL":
                plain = _MAIL.fullmatch(rest)
                self._forget()
                self._mail = True
                self._size = int(plain[1].upper().partition(b"SIZE=")[2] or 0) if plain else None
            case "RCPT":
                plain = _RCPT.fullmatch(rest)
                domain = plain[2].decode().lower() if plain else "?"
                self._recipients.append(domain if domain in DOMAINS or domain == HOST else "?")
            case "RSET":
                self._forget()
            case "DATA":
                self.mode, self._inside = "content", True
                self._scanned = (-1, meaning(b""))
            case "STARTTLS":
                self.mode = "tls"
                self._wire.clear()

    def _forget(self) -> None:
        """No transaction is open."""
        self._mail = self._later = self._stray = False
        self._recipients.clear()

    # --- contents ---

    def _meaning(self) -> Meaning:
        if self._scanned[0] != len(self._wire):
            self._scanned = (len(self._wire), meaning(bytes(self._wire)))
        return self._scanned[1]

    def _content(self, status: str, text: str) -> None:
        found = self._meaning()
        recipients, domain = len(self._recipients), self._recipients[0]
        self.mode, self._inside = "command", False
        self._forget()
        if found.state == "false":
            self._must(status, {"554 5.6.11"})
            self.mode = "over"
            return
        del self._wire[: found.length]
        most = DOMAINS.get(domain, MAX_SIZE)
        if len(found.content) > most or (domain == "?" and status == "552 5.3.4"):
            legal = {"552 5.3.4"} if len(found.content) > SMALL_SIZE else set()
        elif hops(found.content) > 100:
            legal = {"554 5.4.6"}
        elif REJECT in found.content:
            legal = {"550 5.7.1"}
        elif DEFER in found.content:
            legal = {"451 4.7.1"}
        else:
            legal = {"250 2.0.0"}
        if self._answer(status, legal):
            queued = _QUEUED.fullmatch(text)
            if queued is None:
                raise Violation(f"no id in {text!r}")
            self._errors = 0
            self.mailed.append(Mailed(queued[1], found.content, recipients))


def _parsed(lines: list[bytes]) -> tuple[str, str]:
    """("250 2.1.5", text of all lines); the enhanced code is "" where none belongs. Raises Violation."""
    codes, enhanced, texts = set(), set(), []
    for number, line in enumerate(lines, 1):
        match = _REPLY.fullmatch(line)
        if match is None or (match[2] == b"-") == (number == len(lines)):
            raise Violation(f"no reply: {line!r}")
        text = match[3].decode()
        codes.add(match[1].decode())
        found = _ENHANCED.match(text)
        enhanced.add(text.partition(" ")[0] if found else "")
        texts.append(text)
    if len(codes) > 1 or len(enhanced) > 1:
        raise Violation(f"lines with unequal codes: {lines!r}")
    (code,), (each,) = codes, enhanced
    # RFC 2034 section 4: all but the banner, the answers to EHLO and HELO, and 3yz have one.
    bare = not each
    own = code == "354" or (code in ("220", "250") and texts[0].startswith(HOST))
    if bare != own:
        raise Violation(f"{'no' if bare else 'an'} enhanced code: {lines!r}")
    if each and each[0] != code[0]:
        raise Violation(f"code and enhanced code disagree: {lines!r}")
    return f"{code} {each}", "\n".join(texts)
