"""Who is at the other end, and may it come in: connections in all and per client, and new ones a second.

A connection that is refused counts nowhere: however many come, those that are there already, and others that
come within their own limits, do not notice.
"""

import ipaddress
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from libs.mail.records import Permission
from services.ingest.access import NO_RULES, Rules
from services.ingest.buckets import Buckets
from services.ingest.limits import Limit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

BLOCKED, BLOCKED_S = 100, 30.0  # sessions of blocked clients at once, and how long one may last
_ALL = ""  # the bucket of all clients together


class Peer(NamedTuple):
    """The client of a connection. `network`: what counts as one client; `exempt`: limits of clients do not
    hold for it; `blocked`: it is not to come in."""

    address: str
    network: str
    exempt: bool = False
    blocked: bool = False


NOBODY = Peer("", "")


class Rates(NamedTuple):
    """`connections`, `per_client`: open at once; `new`, `new_per_client`: a second; `session_s`: how long one
    may last; `data`: the least octets a second of content, 0 for none."""

    connections: int
    per_client: int
    new: int
    new_per_client: int
    session_s: float
    data: int


def peer_at(address: str, exempt: Sequence[Network], access: Rules = NO_RULES) -> Peer:
    """`exempt`: networks that limits do not hold for, unless `access` says otherwise."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return Peer(address, address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    said = access.client(ip)
    allowed = any(ip in each for each in exempt) if said is None else said is Permission.ALLOW
    return Peer(address, network(ip), allowed, said is Permission.BLOCK)


def network(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.ip_network((ip, 64), strict=False))


class Connections:
    """Those that are open. What is counted here is bounded by them, and by the room of the buckets."""

    def __init__(self, rates: Rates) -> None:
        self.open = 0
        self._blocked = 0
        self._rates = rates
        self._clients: Counter[str] = Counter()
        self._new = Buckets(rates.new)
        self._new_per_client = Buckets(rates.new_per_client)

    def opened(self, client: Peer, now: float) -> Limit | None:
        """Which limit is in the way of one more, None for none. Call closed() when it ends.

        `now`: monotonic seconds. Who is over its own limit is seen first, so that it costs nobody else. A
        blocked client stays until it says QUIT; that is for a few of them at a time."""
        if client.blocked:
            if self._blocked >= BLOCKED:
                return Limit.CONNECTIONS
            self._blocked += 1
            return Limit.BLOCKED_CLIENTS
        if not client.exempt:
            if (limit := self._in_the_way(client.network, now)) is not None:
                return limit
            self._new.take(_ALL, now)
            self._new_per_client.take(client.network, now)
        self.open += 1
        self._clients[client.network] += 1
        return None

    def closed(self, client: Peer, limit: Limit | None) -> None:
        """`limit`: what opened() said."""
        if limit is Limit.BLOCKED_CLIENTS:
            self._blocked -= 1
        if limit is not None:
            return
        self.open -= 1
        self._clients[client.network] -= 1
        if not self._clients[client.network]:
            del self._clients[client.network]

    def lasts_s(self, client: Peer) -> float:
        """How long a session of `client` may last."""
        if client.blocked:
            return BLOCKED_S
        return math.inf if client.exempt else self._rates.session_s

    def data_rate(self, client: Peer) -> int:
        """How many octets of content a second `client` must send, 0 for any."""
        return 0 if client.exempt else self._rates.data

    def _in_the_way(self, client: str, now: float) -> Limit | None:
        if self._clients[client] >= self._rates.per_client:
            return Limit.CLIENT_CONNECTIONS
        if self._new_per_client.spent(client, now):
            return Limit.CLIENT_CONNECTION_RATE
        if self.open >= self._rates.connections:
            return Limit.CONNECTIONS
        return Limit.CONNECTION_RATE if self._new.spent(_ALL, now) else None
