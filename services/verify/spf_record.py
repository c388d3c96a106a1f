"""The grammar of SPF records (RFC 7208 sections 4.5, 4.6.1, 7 and 12): texts -> one record -> its terms.

Everything is read before anything is evaluated, so that an error anywhere is one (section 4.6). Takes time
linear in the record, and no record is read that is longer than any DNS answer should be.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

# Octets of a record and of one term that are read at all (section 3.4 asks for what fits one UDP answer).
_RECORD, _TERM = 4096, 512
_NAME_OCTETS = 253

_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_MECHANISM = re.compile(r"([-+?~]?)([A-Za-z0-9]+)(?::(.+?))?(?:/([0-9]+))?(?://([0-9]+))?", re.DOTALL)
_EXPAND = re.compile(r"%(?:([%_-])|\{([slodiphvcrt])(0*[1-9][0-9]*)?(r?)([-.+,/_=]*)\})", re.IGNORECASE)
_STRING = re.compile(rf"(?:{_EXPAND.pattern}|[!-$&-~]++)*+", re.IGNORECASE)
_IN_EXPLANATIONS = re.compile(r"%\{[crt]", re.IGNORECASE)  # section 7.2: nowhere else
_LAST_LABEL = re.compile(r"(?![0-9]+\Z)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_ESCAPED = {"%": "%", "_": " ", "-": "%20"}
_RESULTS = {"": "pass", "+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_WITH_LENGTHS = frozenset(("a", "mx"))
_NAME_NEEDED = frozenset(("include", "exists"))
_NETWORKS = {"ip4": ipaddress.IPv4Address, "ip6": ipaddress.IPv6Address}
_MECHANISMS = frozenset(("include", "a", "mx", "ptr", "exists", "all", *_NETWORKS))


class Wrong(ValueError):  # noqa: N818
    """A syntax error: which, and where. The result is permerror."""


class Mechanism(NamedTuple):
    """`result`: when it matches; `argument`: a domain-spec not yet expanded, the address of ip4 or ip6, or
    ""; `lengths`: of networks, IPv4 and IPv6."""

    name: str
    result: str
    argument: str
    lengths: tuple[int, int]


def select(texts: Iterable[bytes]) -> str | None:
    """The one SPF record among TXT records (section 4.5), None without one. Raises Wrong."""
    found = [text for text in texts if text[:6].lower() == b"v=spf1" and text[6:7] in (b"", b" ")]
    if len(found) > 1:
        raise Wrong("several SPF records")
    return found[0].decode("latin-1") if found else None


@lru_cache(maxsize=1024)
def terms(record: str) -> tuple[str, ...]:
    """Its mechanisms in order and, last, `redirect=`; the other modifiers decide nothing. Raises Wrong.
    Remembered: an evaluation starts again with each answer of DNS."""
    if len(record) > _RECORD:
        raise Wrong("record too long")
    mechanisms, once = [], dict[str, str]()
    for term in filter(None, record.split(" ")[1:]):
        if len(term) > _TERM:
            raise Wrong("term too long")
        if not (match := _MODIFIER.fullmatch(term)):
            mechanism(term)
            mechanisms.append(term)
            continue
        name, value = match[1].lower(), match[2]
        if name not in ("redirect", "exp"):
            if not _STRING.fullmatch(value):
                raise Wrong(f"not a macro string: {term}")
            continue
        if name in once:  # section 6
            raise Wrong(f"{name}= appears twice")
        _check_name(value, term)
        once[name] = value
    return (*mechanisms, *(f"redirect={once[name]}" for name in once if name == "redirect"))


@lru_cache(maxsize=4096)
def mechanism(term: str) -> Mechanism:
    """Raises Wrong."""
    match = _MECHANISM.fullmatch(term)
    name = match[2].lower() if match else ""
    if match is None or name not in _MECHANISMS:
        raise Wrong(f"no mechanism: {term}")
    qualifier, _, argument, short, long = match.groups(default="")
    if name == "all":
        if argument or short or long:
            raise Wrong(f"all has no argument: {term}")
        return Mechanism(name, _RESULTS[qualifier], "", (32, 128))
    if name in _NETWORKS:
        _check_address(name, argument, term)
        if long:
            raise Wrong(f"two slashes: {term}")
        length = _length(short, 32 if name == "ip4" else 128, term)
        return Mechanism(name, _RESULTS[qualifier], argument, (length, length))
    if (short or long) and name not in _WITH_LENGTHS:
        raise Wrong(f"{name} has no length: {term}")
    if argument or name in _NAME_NEEDED:
        _check_name(argument, term)
    return Mechanism(
        name, _RESULTS[qualifier], argument, (_length(short, 32, term), _length(long, 128, term))
    )


def _length(digits: str, most: int, term: str) -> int:
    if not digits:
        return most
    if len(digits) > 3 or (digits[0] == "0" and len(digits) > 1) or int(digits) > most:
        raise Wrong(f"bad length: {term}")
    return int(digits)


def _check_address(name: str, text: str, term: str) -> None:
    try:
        address = _NETWORKS[name](text)
    except ValueError as error:
        raise Wrong(f"no address: {term}") from error
    if getattr(address, "scope_id", None) is not None:
        raise Wrong(f"no address: {term}")


def _check_name(spec: str, term: str) -> None:
    """domain-spec: a macro-string that ends with a macro or with a label that can be the last one."""
    if not spec or not _STRING.fullmatch(spec) or _IN_EXPLANATIONS.search(spec.replace("%%", "")):
        raise Wrong(f"no name: {term}")
    tail = spec[max((match.end() for match in _EXPAND.finditer(spec)), default=0) :]
    if not tail:
        return
    _, dot, label = tail.removesuffix(".").rpartition(".")
    if not dot or not _LAST_LABEL.fullmatch(label):
        raise Wrong(f"no name: {term}")


def expand(spec: str, value: Callable[[str], str]) -> str:
    """The name that a domain-spec comes to (section 7.3), without final dot; `value`: of a macro letter."""

    def one(match: re.Match[str]) -> str:
        escaped, letter, digits, reverse, delimiters = match.groups()
        if escaped:
            return _ESCAPED[escaped]
        text = value(letter.lower())
        if digits or reverse or delimiters:
            parts = re.split(f"[{re.escape(delimiters or '.')}]", text)
            if reverse:
                parts.reverse()
            text = ".".join(parts[-int(digits) :] if digits else parts)
        return quote(text, safe="") if letter.isupper() else text

    name = _EXPAND.sub(one, spec).removesuffix(".")
    if len(name) <= _NAME_OCTETS:
        return name
    dot = name.find(".", len(name) - _NAME_OCTETS - 1)  # whole labels go, from the left
    return name[dot + 1 :] if dot >= 0 else name.rpartition(".")[2]
