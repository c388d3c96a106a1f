"""What `auth check` is asked: a message and who brought it, from a JSON line or the command's options."""

import ipaddress
import re
from base64 import b64decode
from codecs import BOM_UTF8
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from libs.mail.address import BadAddress, domain_name, mailbox
from libs.mail.records import Enforce

_LONE_LF = re.compile(rb"(?<!\r)\n")
_NO_ADDRESS = re.compile(r"[<>]|\s[^@]*\Z")  # a name stands before it, or parameters behind it
_LITERAL = re.compile(r"\[(?:ipv6:)?(.*)\]", re.IGNORECASE)
_NAMES = "id, message, message_b64, ip, helo, mail_from, relay, at, dns, enforce, trusted"


class Malformed(ValueError):  # noqa: N818
    """A sentence that says what is wrong. `id`: of a line that could not be read, where it has one."""

    def __init__(self, sentence: str, id_: object = None) -> None:
        super().__init__(sentence)
        self.id = id_


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a batch. What is missing, null or empty is not told; but an empty `mail_from` is the null
    reverse-path, and an empty message is one. `id` comes back with the result, whatever it is."""

    id: Any = None
    message: str | None = None
    message_b64: str | None = None
    ip: str | None = None
    helo: str | None = None
    mail_from: str | None = None
    relay: str | None = None
    at: str | float | None = None
    dns: str | None = None
    enforce: str | None = None
    trusted: tuple[str, ...] | None = None


class Inquiry(Struct, frozen=True):
    """`message`: with CR LF; `mail_from`: "" for the null reverse-path; `relay`: the address of a trusted
    relay that handed it over, and named `ip` and `helo`, or nobody; `at`: wall seconds when it came, None for
    now; `enforce`: what the relay domain wants refused; `trusted`: whose ARC seals are believed. None: not
    told, so what needs it is not checked."""

    message: bytes | None = None
    ip: str | None = None
    helo: str | None = None
    mail_from: str | None = None
    relay: str | None = None
    at: float | None = None
    enforce: Enforce = Enforce.OFF
    trusted: frozenset[str] = frozenset()

    @property
    def of_sender(self) -> bool:
        """Is there enough to check SPF?"""
        return self.of_client and (self.mail_from is not None or self.helo is not None)

    @property
    def of_client(self) -> bool:
        """Is it known whom it came from, or that nobody was named?"""
        return self.ip is not None or self.relay is not None

    @property
    def whole(self) -> bool:
        """Is there all that a verdict rests on?"""
        return self.message is not None and self.of_client and self.mail_from is not None


def line(raw: bytes) -> Line:
    """Raises Malformed."""
    try:
        said = msgspec.json.decode(raw.removeprefix(BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the line is no JSON: {_lower(str(error))}") from error
    try:
        return msgspec.convert(said, Line)
    except msgspec.ValidationError as error:
        id_ = said.get("id") if isinstance(said, dict) else None
        raise Malformed(f"{_lower(str(error))}; known are {_NAMES}", id_) from error


def inquiry(asked: Line) -> Inquiry:
    """Raises Malformed."""
    return Inquiry(
        _message(asked),
        _address("ip", asked.ip) if asked.ip else None,
        _helo(asked.helo) if asked.helo else None,
        None if asked.mail_from is None else _reverse_path(asked.mail_from),
        _address("relay", asked.relay) if asked.relay else None,
        None if asked.at in (None, "") else _time(asked.at),
        _enforce(asked.enforce) if asked.enforce else Enforce.OFF,
        frozenset(name.lower() for name in asked.trusted or ()),
    )


def host_name(text: str) -> str:
    """A name of ours. Raises Malformed."""
    try:
        return domain_name(text)
    except BadAddress as error:
        raise Malformed(f"host must be a host name such as mx1.backup.example, not {text!r}") from error


def _message(asked: Line) -> bytes | None:
    if asked.message and asked.message_b64:
        raise Malformed("message and message_b64 are two messages")
    if not asked.message_b64:
        told = asked.message if asked.message_b64 is None else asked.message or ""
        return None if told is None else as_sent(told.encode())
    try:
        return as_sent(b64decode("".join(asked.message_b64.split()), validate=True))
    except ValueError as error:
        raise Malformed("message_b64 is no base64") from error


def as_sent(message: bytes) -> bytes:
    """As SMTP carries it: a line feed that stands alone, as files have them, is a line end; so is the end."""
    if message and not message.endswith(b"\n"):
        message += b"\r\n"
    return _LONE_LF.sub(b"\r\n", message)


def _address(name: str, text: str) -> str:
    """Also as an address literal (RFC 5321 section 4.1.3)."""
    try:
        return str(ipaddress.ip_address(_LITERAL.sub(r"\1", text.strip())))
    except ValueError as error:
        raise Malformed(f"{name} must be an IPv4 or IPv6 address, not {text!r}") from error


def _helo(text: str) -> str:
    if not text.isprintable():
        raise Malformed(f"helo must be one line of printable text, not {text!r}")
    return text.strip()


def _reverse_path(text: str) -> str:
    """In normal form, as a session has it; what no session would take is looked at as it is."""
    text = text.strip()
    inner = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    if not inner:
        return ""
    try:
        return str(mailbox(inner))
    except BadAddress:
        if "@" in inner and inner.isprintable() and not _NO_ADDRESS.search(inner):
            return inner
    raise Malformed(f"mail_from must be an address such as bob@sender.example, or <>, not {text!r}")


def _enforce(text: str) -> Enforce:
    try:
        return Enforce(text)
    except ValueError as error:
        raise Malformed(f"enforce must be off, dmarc or spf, not {text!r}") from error


def _time(given: str | float) -> float:
    """Seconds since 1970, or a date and time (UTC, if it names no zone)."""
    try:
        seconds = float(given)
    except ValueError:
        try:
            moment = datetime.fromisoformat(str(given))
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError) as error:
            raise Malformed(f"at must be a time such as 2026-11-24T10:00:00Z, not {given!r}") from error
    if not 0 <= seconds < 1e12:
        raise Malformed(f"at must be a time such as 2026-11-24T10:00:00Z, not {given!r}")
    return seconds


def _lower(sentence: str) -> str:
    """As it stands behind other words."""
    return sentence if sentence[:2].isupper() else sentence[:1].lower() + sentence[1:]
