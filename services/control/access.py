"""Whom to block and whom to allow: what may be asked for, and when it ends (docs/decisions/0010).

A record ends by the log's clock: the time at which the log took it, and what it lasts.
"""

import ipaddress
import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from libs.mail.address import BadAddress, domain_name, mailbox
from libs.mail.records import Access, Permission
from services.control.domains import Malformed, Refused, Unknown

MOST = 10_000  # rules: every ingest process holds them all
WIDEST = {4: 8, 6: 16}  # a wider network is a slip of the hand, or everybody
LONGEST_S = 10 * 365 * 86_400.0

_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Listed(NamedTuple):
    """A record and when the log took it."""

    access: Access
    since: float

    @property
    def ends(self) -> float:
        return self.since + self.access.lasts_s if self.access.lasts_s else math.inf


def subject(text: str) -> str:
    """What a person typed in the form that is compared: `192.0.2.7`, `2001:db8::/32`, `eve@sender.example`,
    `@sender.example`. Raises Malformed."""
    text = text.strip()
    if "@" not in text:
        return _network(text)
    try:
        return f"@{domain_name(text[1:])}" if text.startswith("@") else mailbox(text).key
    except BadAddress as error:
        raise Malformed(f"{text!r} is neither a mail address nor @ and a domain") from error


def duration_s(text: str) -> float:
    """`90s`, `15m`, `2h`, `7d` in seconds. Raises Malformed."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(int(match[1]) * _UNITS[match[2]]) if match else 0.0
    if not 0 < seconds <= LONGEST_S:
        raise Malformed(f"{text!r} is no duration such as 90s, 15m, 2h or 7d, at most 10 years")
    return seconds


def permission(text: str) -> Permission:
    """Raises Malformed."""
    try:
        return Permission(text)
    except ValueError as error:
        raise Malformed(f"{text!r} is neither block nor allow") from error


def added(listed: Iterable[Listed], access: Access) -> Access:
    """`access`, if there is room for it. Raises Refused."""
    subjects = {each.access.subject for each in listed}
    if access.subject not in subjects and len(subjects) >= MOST:
        raise Refused(
            f"there are {MOST} rules already: remove some, or block a network in place of addresses"
        )
    return access


def known(listed: Iterable[Listed], name: str) -> Listed:
    """The rule for subject `name`. Raises Unknown."""
    for each in listed:
        if each.access.subject == name:
            return each
    raise Unknown(f"there is no rule for {name}")


def ended(listed: Iterable[Listed], now: float) -> list[str]:
    """The subjects whose rules are over at `now`, by the log's clock."""
    return [each.access.subject for each in listed if each.ends <= now]


def row(listed: Listed) -> dict[str, Any]:
    """A rule for people; `until` 0 for ever."""
    access = listed.access
    return {
        "subject": access.subject,
        "rule": access.permission.value,
        "since": listed.since,
        "until": listed.ends if access.lasts_s else 0.0,
        "by": access.by,
    }


def _network(text: str) -> str:
    try:
        given = ipaddress.ip_interface(text.replace("%", " "))  # a zone says nothing to anybody else
    except ValueError as error:
        raise Malformed(
            f"{text!r} is neither an IP address or network nor a sender (eve@sender.example, @sender.example)"
        ) from error
    network: Network = given.network
    if given.ip != network.network_address:
        raise Malformed(f"{text!r} is an address inside of a network: did you mean {given.ip} or {network}?")
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    if network.prefixlen < WIDEST[network.version]:
        widest = WIDEST[network.version]
        raise Malformed(f"{text!r} is too wide: a rule is for a /{widest} at most")
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if single else str(network)
