"""Which servers take a domain's mail (RFC 5321 section 5.1, RFC 7505), and what is never dialled."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from libs.mail.address import domain_name

MOST_HOSTS = 20  # of an MX set are looked at, best preference first

Shuffle = Callable[[list[Any]], object]  # in place, as random.shuffle


class Found(StrEnum):
    """OK: there are targets. NONE: nothing is left above us, or no host has an address. TROUBLE: DNS did not
    answer, so nothing is known."""

    OK = "ok"
    NULL_MX = "null mx"
    NXDOMAIN = "nxdomain"
    NONE = "none"
    TROUBLE = "trouble"


class Target(NamedTuple):
    """One address to dial; `host` is the MX host that has it; `port` 0: the usual one."""

    host: str
    address: str
    port: int = 0


class Place(NamedTuple):
    """What the owner says of his server: a host (lower-case A-label) or an [address literal], "" for where
    the MX records say; `port` 0: the usual one; `tls_name`: what its certificate must be for, "" for
    anything."""

    host: str
    port: int = 0
    tls_name: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


_PLACE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::([0-9]{1,5}))?")


def said(primary_host: str, tls_name: str) -> Place | None:
    """Of the settings of a domain; None where they say nothing. Raises ValueError."""
    found = place(primary_host) if primary_host else Place("")
    return found._replace(tls_name=tls_name) if primary_host or tls_name else None


def place(text: str) -> Place:
    """`mail.office.example`, `mail.office.example:2525`, `[192.0.2.1]:2525`. Raises ValueError."""
    match = _PLACE.fullmatch(text)
    if match is None or not 0 < int(match[2] or 25) < 65536:
        raise ValueError(text)
    host, port = match[1], int(match[2] or 0)
    if host.startswith("["):
        return Place(f"[{ipaddress.ip_address(host[1:-1])}]", port)
    return Place(domain_name(host), port)


class Route(NamedTuple):
    """`preferences`: the targets of each preference, best first, each already shuffled. A preference is empty
    when its hosts' addresses could not be looked up (what answers further down is then not the best).
    `hosts`: the MX hosts that are used, best first. `names_us`: the MX set names one of our hosts, and above
    it there is one that can be dialled. `secure`: the hosts of which a validating resolver on this machine
    said that MX and addresses are signed. `expires`: monotonic seconds, when to ask again."""

    preferences: tuple[tuple[Target, ...], ...]
    hosts: tuple[str, ...]
    found: Found
    names_us: bool = False
    secure: frozenset[str] = frozenset()
    expires: float = float("inf")

    @property
    def targets(self) -> tuple[Target, ...]:
        """All, best first."""
        return tuple(target for targets in self.preferences for target in targets)


class Ours(NamedTuple):
    """Our own host names (lower-case A-labels) and published addresses: the marks of the loop rule."""

    hosts: tuple[str, ...]
    addresses: tuple[str, ...]


class Exchange(NamedTuple):
    """One MX record with the addresses of its host; `trouble`: they could not be looked up (completely)."""

    preference: int
    host: str
    addresses: tuple[str, ...]
    trouble: bool = False


def is_null_mx(records: Sequence[tuple[int, str]]) -> bool:
    """RFC 7505: the domain takes no mail. One record with an empty host, and no other."""
    return bool(records) and all(not host for _, host in records)


def candidates(records: Iterable[tuple[int, str]], ours: Ours) -> list[tuple[int, str]]:
    """The records worth looking up: those better than the best one that names us, best first."""
    ordered = sorted({(preference, host) for preference, host in records if host})
    limit = min((preference for preference, host in ordered if host in ours.hosts), default=None)
    return [record for record in ordered if limit is None or record[0] < limit][:MOST_HOSTS]


def choose(exchanges: Sequence[Exchange], ours: Ours, shuffle: Shuffle, *, named: bool = False) -> Route:
    """The route over `exchanges`; `named`: the MX set names one of our hosts.

    Where one of our names or addresses appears, its preference and all worse ones are dropped (RFC 5321
    section 5.1: else mail goes round between the hosts of one domain).
    """
    marks = [
        e.preference for e in exchanges if e.host in ours.hosts or set(e.addresses) & set(ours.addresses)
    ]
    limit = min(marks, default=None)
    used = [e for e in exchanges if limit is None or e.preference < limit]
    preferences: list[tuple[Target, ...]] = []
    for preference in sorted({e.preference for e in used}):
        equal = [e for e in used if e.preference == preference]
        targets = [Target(e.host, address) for e in equal for address in e.addresses]
        shuffle(targets)
        if targets or any(e.trouble for e in equal):
            preferences.append(tuple(targets))
    there = any(preferences)
    trouble = any(e.trouble for e in used)
    found = Found.OK if there else Found.TROUBLE if trouble else Found.NONE
    hosts = tuple(e.host for e in sorted(used, key=lambda e: e.preference))
    return Route(tuple(preferences), hosts, found, names_us=there and (named or limit is not None))


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Not Python's is_global: its answer changes with the version, and it knows no metadata services.
_FORBIDDEN: tuple[_Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    168.63.129.16/32
    ::/96 ::ffff:0:0/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 3fff::/20 5f00::/16 fc00::/7
    fe80::/10 fec0::/10 ff00::/8
    """.split()
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits


def forbidden(address: str, allow: Sequence[_Network], ours: Sequence[str] = ()) -> bool:
    """May `address` never be dialled? Loopback, private, shared (RFC 6598), link-local, unique local,
    multicast, documentation, IPv4-mapped, metadata services, no address at all; `ours` even when allowed."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return True
    if str(parsed) in ours:
        return True
    if any(parsed in network for network in allow):
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed in _NAT64:
        parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
    return any(parsed in network for network in _FORBIDDEN)
