"""An envelope as commands: parameters only where the server offers them (RFC 1870, 3461, 6152, 6531)."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from libs.mail.esmtp import xtext

Capabilities = Mapping[str, str]  # EHLO keyword in upper case -> its parameters, "" for none

_WORD = re.compile(r"[!-~]{1,255}")
_UNKNOWN = "[UNAVAILABLE]"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class To(NamedTuple):
    """A recipient; `notify`, `orcpt` as in libs/mail/records.py."""

    mailbox: str
    notify: tuple[str, ...] = ()
    orcpt: str = ""


class Envelope(NamedTuple):
    """What MAIL and RCPT say. `reverse_path` "" for <>; `size` in octets, 0 for unknown."""

    reverse_path: str
    recipients: tuple[To, ...]
    size: int = 0
    eightbit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


class Visitor(NamedTuple):
    """Whose mail it is: the client that we had it from, and what it said with HELO or EHLO."""

    address: str
    helo: str


class Unsendable(ValueError):  # noqa: N818 says what the envelope is to this server
    """`smtputf8`: it is needed and not offered; `syntax`: there is a control character in an address."""


def needs_smtputf8(envelope: Envelope) -> bool:
    """RFC 6531 section 3.4: the mail was declared so, or an address is not ASCII."""
    return (
        envelope.smtputf8
        or not envelope.reverse_path.isascii()
        or any(not to.mailbox.isascii() for to in envelope.recipients)
    )


def mail_command(envelope: Envelope, offered: Capabilities) -> bytes:
    """Raises Unsendable."""
    words = [f"MAIL FROM:<{envelope.reverse_path}>"]
    if envelope.size and "SIZE" in offered:
        words.append(f"SIZE={envelope.size}")
    if envelope.eightbit and "8BITMIME" in offered:
        words.append("BODY=8BITMIME")
    if needs_smtputf8(envelope):
        if "SMTPUTF8" not in offered:
            raise Unsendable("smtputf8")
        words.append("SMTPUTF8")
    if "DSN" in offered:
        if envelope.ret:
            words.append(f"RET={envelope.ret}")
        if envelope.envid:
            words.append(f"ENVID={xtext(envelope.envid)}")
    return _line(words)


def oversize(envelope: Envelope, offered: Capabilities) -> bool:
    """Is the mail larger than the server said it takes (RFC 1870 section 6)? It is asked all the same: what
    it says to MAIL is its own word, and a limit that is a mistake costs no mail."""
    limit = offered.get("SIZE", "")
    return limit.isascii() and limit.isdigit() and 0 < int(limit[:18]) < envelope.size


def rcpt_command(to: To, offered: Capabilities) -> bytes:
    """Raises Unsendable. An ORCPT in UTF-8 is left out where SMTPUTF8 is not offered (RFC 6533 section 3)."""
    words = [f"RCPT TO:<{to.mailbox}>"]
    if "DSN" in offered:
        if to.notify:
            words.append(f"NOTIFY={','.join(to.notify)}")
        if to.orcpt and (to.orcpt.isascii() or "SMTPUTF8" in offered):
            kind, _, address = to.orcpt.partition(";")
            words.append(f"ORCPT={kind};{xtext(address)}")
    return _line(words)


def xclient_command(visitor: Visitor, offered: Capabilities) -> bytes:
    """Postfix's XCLIENT_README: those of NAME, ADDR, PROTO and HELO that the server takes; b"" where it does
    not take the address, without which the others would be of somebody else. Nobody looked for a name."""
    taken = offered.get("XCLIENT", "").upper().split()
    if "ADDR" not in taken:
        return b""
    address = f"IPV6:{visitor.address}" if ":" in visitor.address else visitor.address
    helo = xtext(visitor.helo) if _WORD.fullmatch(visitor.helo) else _UNKNOWN
    given = {"NAME": _UNKNOWN, "ADDR": address, "PROTO": "ESMTP", "HELO": helo}
    return _line(["XCLIENT", *(f"{name}={value}" for name, value in given.items() if name in taken)])


def greeting_for(visitor: Visitor, own: str) -> bytes:
    """EHLO as the client said it, so that who judges its name finds it; `own` where that is no word."""
    return f"EHLO {visitor.helo if _WORD.fullmatch(visitor.helo) else own}\r\n".encode()


def _line(words: list[str]) -> bytes:
    line = " ".join(words)
    if _CONTROL.search(line):
        raise Unsendable("syntax")
    return line.encode() + b"\r\n"
