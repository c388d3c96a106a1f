"""Parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), DSN (RFC 3461).

ENVID and ORCPT keep their case; both are checked here so that no control character gets any further.
"""

import re
from typing import NamedTuple

ENVID_OCTETS = 100  # RFC 3461 section 5.4, encoded
ORCPT_OCTETS = 500  # RFC 3461 section 5.4

_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([!-<>-~\x80-\xff]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_PRINTABLE = re.compile(r"[ -~]*")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9\-]+")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})


class BadParameter(ValueError):  # noqa: N818 says what it is
    """A parameter that is malformed or, with `unknown`, not one that we offer (RFC 5321 section 4.1.1.11)."""

    def __init__(self, keyword: str, *, unknown: bool = False) -> None:
        super().__init__(keyword)
        self.unknown = unknown


class MailParameters(NamedTuple):
    """`size`: octets declared, 0 where not; `eightbit`: BODY=8BITMIME; `ret`: FULL, HDRS or "" (RFC 3461
    section 4.3); `envid`: decoded, "" where not given (section 4.4)."""

    size: int = 0
    eightbit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


class RcptParameters(NamedTuple):
    """`notify`: subset of NEVER SUCCESS FAILURE DELAY, empty where not given (RFC 3461 section 4.1); `orcpt`:
    `type;address`, decoded, "" where not given (section 4.2)."""

    notify: tuple[str, ...] = ()
    orcpt: str = ""


NO_MAIL_PARAMETERS = MailParameters()
NO_RCPT_PARAMETERS = RcptParameters()


def mail_parameters(raw: bytes) -> MailParameters:
    """What follows the path of MAIL. Raises BadParameter."""
    if not raw:
        return NO_MAIL_PARAMETERS
    size, eightbit, smtputf8, ret, envid = 0, False, False, "", ""
    for keyword, value in _parameters(raw):
        match keyword:
            case "SIZE" if value.isascii() and value.isdigit() and len(value) <= 20:
                size = int(value)
            case "BODY" if value.upper() in ("7BIT", "8BITMIME"):
                eightbit = value.upper() == "8BITMIME"
            case "SMTPUTF8" if not value:
                smtputf8 = True
            case "RET" if value.upper() in ("FULL", "HDRS"):
                ret = value.upper()
            case "ENVID" if value and len(value) <= ENVID_OCTETS:
                envid = unxtext(value)
            case "SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID":
                raise BadParameter(keyword)
            case _:
                raise BadParameter(keyword, unknown=True)
    return MailParameters(size, eightbit, smtputf8, ret, envid)


def rcpt_parameters(raw: bytes, *, smtputf8: bool = False) -> RcptParameters:
    """What follows the path of RCPT; `smtputf8`: UTF-8 may stand in ORCPT=utf-8;... (RFC 6533 section 3).

    Raises BadParameter.
    """
    if not raw:
        return NO_RCPT_PARAMETERS
    notify: tuple[str, ...] = ()
    orcpt = ""
    for keyword, value in _parameters(raw):
        match keyword:
            case "NOTIFY":
                notify = tuple(value.upper().split(","))
                if notify != ("NEVER",) and (
                    not _NOTIFY.issuperset(notify) or len(set(notify)) < len(notify)
                ):
                    raise BadParameter(keyword)
            case "ORCPT" if len(value.encode()) <= ORCPT_OCTETS:
                orcpt = _orcpt(value, smtputf8=smtputf8)
            case "ORCPT":
                raise BadParameter(keyword)
            case _:
                raise BadParameter(keyword, unknown=True)
    return RcptParameters(notify, orcpt)


def xtext(text: str) -> str:
    """RFC 3461 section 4: printable ASCII encoded so that it can be a parameter's value. UTF-8 stays as it is
    (RFC 6533 section 3; only where SMTPUTF8 was used and is offered)."""
    return "".join(f"+{ord(c):02X}" if c in "+= " or ord(c) < 33 or ord(c) == 127 else c for c in text)


def unxtext(text: str) -> str:
    """The printable ASCII that `text` encodes. Raises BadParameter."""
    if not _XTEXT.fullmatch(text):
        raise BadParameter("xtext")
    decoded = _HEX.sub(lambda match: chr(int(match[1], 16)), text)
    if not _PRINTABLE.fullmatch(decoded):
        raise BadParameter("xtext")
    return decoded


def _orcpt(value: str, *, smtputf8: bool) -> str:
    kind, semicolon, encoded = value.partition(";")
    if not semicolon or not encoded or not _ADDRESS_TYPE.fullmatch(kind):
        raise BadParameter("ORCPT")
    if encoded.isascii():
        return f"{kind};{unxtext(encoded)}"
    if not smtputf8 or kind.lower() != "utf-8" or _UNSAFE.search(encoded):
        raise BadParameter("ORCPT")
    return f"{kind};{encoded}"


def _parameters(raw: bytes) -> list[tuple[str, str]]:
    """(keyword in upper case, value) of each; one that comes twice is malformed."""
    found: dict[str, str] = {}
    for word in raw.split(b" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise BadParameter("syntax")
        keyword = match[1].decode().upper()
        if keyword in found:
            raise BadParameter(keyword)
        try:
            found[keyword] = (match[2] or b"").decode()
        except UnicodeDecodeError as error:
            raise BadParameter(keyword) from error
    return list(found.items())
