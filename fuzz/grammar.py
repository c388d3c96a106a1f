"""Sessions of chance: commands and parameters that are valid, nearly valid or hostile, in any order and cut
anywhere. The same `Random` gives the same session.
"""

from random import Random
from typing import NamedTuple

from fuzz.contents import content
from fuzz.furniture import ASKED, DOMAINS, KNOWN, UNKNOWN


class Send(NamedTuple):
    """Octets in writes that end at `cuts`; `slow`: with pauses between them. `content`: only where the server
    has said 354, or with `blind` whatever it has said."""

    octets: bytes
    cuts: tuple[int, ...] = ()
    slow: bool = False
    content: bool = False
    blind: bool = False


class Wait(NamedTuple):
    """Read what is owed."""


class Tls(NamedTuple):
    """Say STARTTLS with `behind` right after it, and shake hands; not `honest`: go on in clear."""

    behind: bytes = b""
    honest: bool = True


class Close(NamedTuple):
    """`how`: "reset", "close", or "half": the client says no more and reads on."""

    how: str


Step = Send | Wait | Tls | Close

_SENDERS = (b"<eve@sender.example>", b"<>", b"<a.b-c@x.example>")
_BAD_PATHS = (
    b"<@a.example:u@office.example>", b"<ann@office.example", b"ann@office.example",
    b"<ann@@office.example>", b"<ann@office.example> <bob@office.example>",
    b"<=?utf-8?q?ann?=@office.example>", b"<a\x00b@office.example>", b"<\xc3\xa4nn@office.example>",
    b"<\xff@office.example>", b"<ann@-x-.example>", b"<ann@[127.0.0.1]>", b"<ann@[IPv6:::1]>",
    b"<ann@localhost>", b'<"a b"@office.example>', b'<"a\rb"@office.example>', b"<ann@>", b"<@>",
    b"<" + b"l" * 65 + b"@office.example>", b"<ann@" + b"d" * 64 + b".example>",
    b"<u%evil.example@office.example>", b"<ann@office.example.>", b"<ANN@OFFICE.EXAMPLE>",
    b'<"ann"@office.example>', b"<(c)ann@office.example>", b"< >", b"<postmaster>",
    b"<Postmaster@mx1.backup.example>", b"<abuse@[192.0.2.1]>", b"<ann@mx1.backup.example>",
    b"<x@waiting.example>", b"<x@rest.example>", b"<x@nowhere.example>",
    b"<x@" + b"a." * 100 + b"example>",
)  # fmt: skip
_MAIL_WORDS = (
    b"SIZE=100", b"SIZE=2999", b"SIZE=4000", b"SIZE=65536", b"SIZE=65537",
    b"SIZE=99999999999999999999999", b"SIZE=", b"SIZE=-1", b"SIZE=1e3", b"SIZE", b"BODY=8BITMIME",
    b"BODY=7BIT", b"BODY=BINARYMIME", b"body=8bitmime", b"SMTPUTF8", b"SMTPUTF8=1", b"RET=HDRS",
    b"RET=FULL", b"RET=", b"ENVID=a+2Bb", b"ENVID=+0D+0A", b"ENVID=" + b"x" * 101, b"AUTH=<>",
    b"REQUIRETLS", b"X" * 300, b"=", b"\x00", b"SIZE=1 SIZE=2",
)  # fmt: skip
_RCPT_WORDS = (
    b"NOTIFY=NEVER", b"NOTIFY=SUCCESS,FAILURE", b"NOTIFY=NEVER,DELAY", b"NOTIFY=",
    b"ORCPT=rfc822;ann@x.example", b"ORCPT=rfc822;+0A", b"ORCPT=;", b"ORCPT=utf-8;\xc3\xa4@x",
    b"ORCPT=" + b"o" * 600, b"SIZE=1", b"\xff=1",
)  # fmt: skip
_HELOS = (
    b"client.sender.example", b"[127.0.0.1]", b"", b"x" * 256, b"a b", b"a\x00b", b"\xc3\xa4", b"-",
    b"mx1.backup.example",
)  # fmt: skip
_OTHERS = (
    b"NOOP", b"NOOP whatever it says", b"RSET", b"RSET x", b"HELP", b"HELP MAIL", b"VRFY ann", b"VRFY",
    b"EXPN list", b"ETRN office.example", b"ETRN", b"QUIT x", b"DATA x", b"", b" ", b"\x00",
    b"XCLIENT ADDR=1.2.3.4", b"AUTH PLAIN AAA=", b"BDAT 5 LAST", b"GET / HTTP/1.1",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2", b"STARTTLS x", b"\x16\x03\x01\x02\x00\x01\x00", b"MAIL",
    b"MAIL FROM", b"MAIL FROM:", b"MAIL TO:<a@b>", b"RCPT", b"RCPT TO:", b"RCPT FROM:<a@b>", b"noop\t",
    b"SEND", b"DATA\t", b"250 2.0.0 Ok", b".", b"..", b"\xff\xfb\x1f",
)  # fmt: skip


def session(chance: Random) -> list[Step]:
    """One session from the connection to its end."""
    steps: list[Step] = []
    if chance.random() < 0.03:
        steps.append(
            Send(chance.choice((b"EHLO early.example\r\n", b"\r\n", b"\x00", b"GET / HTTP/1.0\r\n\r\n")))
        )
    steps.append(Wait())
    if chance.random() < 0.95:
        steps += _said(chance, [_helo(chance)], alone=0.97)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        kind = chance.random()
        if kind < 0.72:
            steps += _transaction(chance)
        elif kind < 0.87:
            steps += _said(chance, [_other(chance) for _ in range(chance.choice((1, 1, 2, 4, 8)))], alone=0.5)
        elif kind < 0.95:
            steps.append(Tls(_behind(chance), chance.random() < 0.9))
            steps += _said(chance, [_helo(chance)], alone=0.97)
        else:
            steps.append(_long(chance))
    if chance.random() < 0.8:
        steps.append(_cut(chance, b"QUIT\r\n"))
    return _ended(chance, steps)


def _ended(chance: Random, steps: list[Step]) -> list[Step]:
    """With a chance, closed at any octet."""
    if chance.random() > 0.12:
        return steps
    kept = steps[: chance.randrange(1, len(steps) + 1)]
    if isinstance(last := kept[-1], Send) and last.octets:
        end = chance.randrange(len(last.octets))
        kept[-1] = last._replace(octets=last.octets[:end], cuts=tuple(cut for cut in last.cuts if cut < end))
    return [*kept, Close(chance.choice(("reset", "close", "half")))]


def _helo(chance: Random) -> bytes:
    if chance.random() < 0.9:
        return chance.choice((b"EHLO ", b"EHLO ", b"EHLO ", b"ehlo ", b"HELO ")) + _HELOS[0]
    return chance.choice((b"EHLO ", b"HELO ", b"EHLO  ")) + chance.choice(_HELOS)


def _other(chance: Random) -> bytes:
    kind = chance.random()
    if kind < 0.6:
        return chance.choice(_OTHERS)
    if kind < 0.75:
        return _mail(chance)
    if kind < 0.9:
        return _rcpt(chance, chance.choice(tuple(DOMAINS)))
    return _helo(chance) if kind < 0.95 else b"DATA"


def _mail(chance: Random) -> bytes:
    path = chance.choice(_SENDERS) if chance.random() < 0.93 else chance.choice(_BAD_PATHS)
    words = [b"MAIL FROM:" + path]
    while chance.random() < 0.25:
        words.append(chance.choice(_MAIL_WORDS[:4] if chance.random() < 0.6 else _MAIL_WORDS))
    return _mutated(chance, b" ".join(words))


def _rcpt(chance: Random, domain: str) -> bytes:
    kind = chance.random()
    if kind < 0.72:
        path = f"<{chance.choice(KNOWN)}@{domain}>".encode()
    elif kind < 0.8:
        path = f"<{chance.choice(UNKNOWN)}@{domain}>".encode()
    elif kind < 0.87:
        path = f"<{chance.choice(ASKED)}{chance.randrange(300)}@{domain}>".encode()
    else:
        path = chance.choice(_BAD_PATHS)
    words = [b"RCPT TO:" + path]
    while chance.random() < 0.15:
        words.append(chance.choice(_RCPT_WORDS[:2] if chance.random() < 0.6 else _RCPT_WORDS))
    return _mutated(chance, b" ".join(words))


def _mutated(chance: Random, line: bytes) -> bytes:
    """Nearly always as it was."""
    if chance.random() > 0.05:
        return line
    at = chance.randrange(len(line) + 1)
    octet = chance.choice(
        (b"\x00", b"\r", b"\n", b" ", b"\t", b">", b"<", b"\xff", b"\x7f", b":", b"@", b"\r\n")
    )
    match chance.randrange(4):
        case 0:
            return line[:at] + octet + line[at:]
        case 1:
            return line[:at] + line[at + 1 :]
        case 2:
            return line.lower() if chance.random() < 0.5 else line + b"  "
    return line[:at] + octet + line[at + 1 :]


def _transaction(chance: Random) -> list[Step]:
    domain = chance.choice(tuple(DOMAINS))
    commands = [_mail(chance)]
    for _ in range(chance.choice((1, 1, 1, 2, 3, 12))):
        other = chance.choice(tuple(DOMAINS)) if chance.random() < 0.1 else domain
        commands.append(_rcpt(chance, other))
    if chance.random() < 0.04:
        commands.insert(chance.randrange(len(commands)), _other(chance))
    octets = content(chance) if chance.random() < 0.97 else b""
    behind = b""
    if chance.random() < 0.25:
        behind = b"".join(_other(chance) + b"\r\n" for _ in range(chance.choice((1, 2, 3))))
    blind = chance.random() < 0.1
    if chance.random() < 0.1:  # everything in one write, as no client may but some do
        whole = b"".join(each + b"\r\n" for each in (*commands, b"DATA")) + octets + behind
        return [_cut(chance, whole), Wait()]
    steps = _said(chance, [*commands, b"DATA"], alone=0.3)
    return [*steps, _cut(chance, octets + behind)._replace(content=True, blind=blind), Wait()]


def _said(chance: Random, commands: list[bytes], alone: float) -> list[Step]:
    """One by one with chance `alone`, else in one write."""
    lines = [each + b"\r\n" for each in commands]
    if chance.random() < alone:
        return [step for line in lines for step in (_cut(chance, line), Wait())]
    return [_cut(chance, b"".join(lines)), *([Wait()] if chance.random() < 0.8 else [])]


def _behind(chance: Random) -> bytes:
    """What some say in clear right behind STARTTLS (CVE-2011-0411)."""
    if chance.random() < 0.7:
        return b""
    return chance.choice((b"NOOP\r\n", b"EHLO x\r\nMAIL FROM:<a@b>\r\n", b"RSET", b"\x00" * 20, b"\r\n"))


def _long(chance: Random) -> Send:
    """Near the limit of a command, or far over it."""
    size = chance.choice((510, 2040, 2044, 2045, 2046, 2047, 2048, 2049, 2100, 5000, 200_000))
    octets = b"NOOP " + b"x" * (size - 7)
    return _cut(chance, octets + chance.choice((b"\r\n", b"\r\n", b"\n", b"")))


def _cut(chance: Random, octets: bytes) -> Send:
    if chance.random() < 0.6 or len(octets) < 2:
        return Send(octets)
    if chance.random() < 0.15 and len(octets) < 200:
        return Send(octets, tuple(range(1, len(octets))), slow=chance.random() < 0.1)
    cuts = {chance.randrange(1, len(octets)) for _ in range(chance.choice((1, 1, 2, 5)))}
    return Send(octets, tuple(sorted(cuts)), slow=chance.random() < 0.5)
