"""Whom the operator has blocked or allowed: the records of `access` as an index (docs/decisions/0010).

The rule for the smallest network, and for an address before its domain, is the one that counts.
"""

import ipaddress
import math
from collections.abc import Iterable
from typing import NamedTuple

from libs.mail.address import Mailbox
from libs.mail.records import Access, Permission

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Listed(NamedTuple):
    """A record and when it ends, by the log's clock."""

    access: Access
    ends: float


class Rules:
    """Those that are in force at `now`, by the log's clock; `ends`: when the first of them does not any
    more."""

    def __init__(self, listed: Iterable[Listed] = (), now: float = 0.0) -> None:
        self.ends = math.inf
        self._senders: dict[str, Permission] = {}
        self._networks: dict[tuple[int, int], dict[int, Permission]] = {}  # by version and length of prefix
        for access, ends in listed:
            if ends > now:
                self.ends = min(self.ends, ends)
                self._add(access)
        self._longest_first = sorted(self._networks, reverse=True)

    def client(self, ip: Address) -> Permission | None:
        """What the operator said of this client, None for nothing."""
        for version, length in self._longest_first:
            if version == ip.version:
                found = self._networks[version, length].get(int(ip) >> (ip.max_prefixlen - length))
                if found is not None:
                    return found
        return None

    def blocks(self, sender: Mailbox) -> bool:
        """Is mail from this address not taken?"""
        if not self._senders:
            return False
        said = self._senders.get(sender.key) or self._senders.get(f"@{sender.domain}")
        return said is Permission.BLOCK

    def _add(self, access: Access) -> None:
        if "@" in access.subject:
            self._senders[access.subject] = access.permission
            return
        network = ipaddress.ip_network(access.subject)
        bits = network.max_prefixlen - network.prefixlen
        of_this_length = self._networks.setdefault((network.version, network.prefixlen), {})
        of_this_length[int(network.network_address) >> bits] = access.permission


NO_RULES = Rules()
