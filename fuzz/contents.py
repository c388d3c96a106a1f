"""Contents of chance, as they go over the wire, and their ends: true ones, and those that smuggle."""

from random import Random

from fuzz.furniture import DEFER, REJECT

# Ends that some server somewhere takes for the end of data. Behind them comes what would be a second mail.
FALSE_ENDS = (
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n",
    b"\r\n.\x00\r\n", b"\r\n\x00.\r\n", b"\r\n.\r\x00\n", b"\r\n. \r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\n",
    b"\n\n.\r\n", b"\r\n.\n\r\n", b"\x00\r\n.\n", b"\r\n.\t\r\n", b"\r\n..\r\n", b"\n..\r\n",
    b"\x85.\x85", b"\x0b.\x0b", b"\x0c.\x0c", b"\xe2\x80\xa8.\xe2\x80\xa8",
)  # fmt: skip
SMUGGLED = (
    b"MAIL FROM:<smuggler@sender.example>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\n"
    b"From: <ceo@office.example>\r\nSubject: smuggled\r\n\r\npay\r\n.\r\n"
)
_ATOMS = (
    b"\r\n", b"\r\n", b"\r\n", b".", b"..", b"\r\n.", b"\r\n..", b"a", b"Received: x\r\n", b"\xe4",
    b"\x00", b" ", b"\t", b"\x7f", b"text of a line", b"DATA\r\n", b"QUIT\r\n", b"\r\n.a\r\n", b"=\r\n",
    b"From ", b"\x1a", b"\x04",
)  # fmt: skip
_TEXT = b"Lines of text as a mail has them.\r\n"


def content(chance: Random) -> bytes:
    """What is sent after 354, nearly always to its true end."""
    head = b"Subject: fuzz %d\r\n" % chance.randrange(10**9) if chance.random() < 0.85 else b""
    if chance.random() < 0.08:
        head += chance.choice((REJECT, DEFER))
    if chance.random() < 0.8:
        head += b"\r\n"
    body = _body(chance)
    if chance.random() < 0.12:
        at = chance.choice((0, len(body), chance.randrange(len(body) + 1)))
        body = body[:at] + chance.choice(FALSE_ENDS) + SMUGGLED + body[at:]
    kind = chance.random()
    if kind < 0.03:
        return head + body  # no end at all
    if kind < 0.05:
        return b".\r\n"
    return head + body + (b".\r\n" if (head + body).endswith(b"\r\n") or not head + body else b"\r\n.\r\n")


def _body(chance: Random) -> bytes:
    kind = chance.random()
    if kind < 0.4:
        return _TEXT * chance.randrange(20)
    if kind < 0.7:
        return b"".join(chance.choice(_ATOMS) for _ in range(chance.randrange(40)))
    if kind < 0.78:
        atoms = (*_ATOMS, b"\r", b"\n", b"\n")
        return b"".join(chance.choice(atoms) for _ in range(chance.randrange(25)))
    if kind < 0.84:
        return b"lone\n" * chance.randrange(1, 5) + b".dot\n..\n"
    if kind < 0.88:
        return b"\r\n" * chance.choice((1, 2, 3000, 32_000))
    if kind < 0.92:
        return b"x" * chance.choice((998, 999, 2048, 2990, 3000, 65_530, 65_536, 70_000)) + b"\r\n"
    if kind < 0.94:
        return b"Received: by hop; now\r\n" * chance.choice((99, 100, 101, 130))
    if kind < 0.97:
        return (
            bytes(chance.choice(b"abcdefgh \xe4\xf6\xfc\x80") for _ in range(chance.randrange(300))) + b"\r\n"
        )
    return b".\r\n" if chance.random() < 0.5 else b"..\r\n...\r\n.x\r\n"
