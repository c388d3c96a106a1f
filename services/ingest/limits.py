"""How much of everything: connections, errors, storage, recipients on suspicion, patience with verify.

Counters here hold numbers only; whoever has a clock passes `now` (monotonic seconds).
"""

import ipaddress
from collections import Counter

from msgspec import Struct

DISK_FULL = 0.8  # rule 13: above this share of the fullest log's disk new mail gets 452
COMMAND_OCTETS = 2048  # RFC 5321 section 4.5.3.1.4 (512), and what SIZE, DSN and SMTPUTF8 add to it
DATA_S = 50 * 60.0  # rule 5: DATA lasts at most so long
COMMIT_S = 60 * 60.0  # rule 5: and a commit comes within this of the first chunk's acknowledgement
FAILED_S = 5.0  # rule 2: a partition that failed answers 451 at RCPT for so long
HOPS = 100  # RFC 5321 section 6.3: more Received fields are a loop
HOUR_S = 3600.0
CLIENT_SUSPICIONS, DOMAIN_SUSPICIONS = 20, 500  # recipients accepted unverified within an hour
TIMEOUTS, RETRY_S = 3, 15.0  # so many in a row and nobody waits any more, but one every so often


class Load(Struct, frozen=True):
    """What the installation can take now. `full`: the log's disk is; `failed`: an append to the domain's
    partition failed just now; `suspicious`: the budget of unverified recipients is spent."""

    full: bool = False
    failed: bool = False
    suspicious: bool = False


class Limits(Struct, frozen=True):
    """What one session may do; sizes in octets. `capabilities`: keywords of EHLO but STARTTLS."""

    host: str
    capabilities: tuple[str, ...]
    max_size: int
    max_errors: int
    max_recipients: int
    tls: bool
    load: Load = Load()


def network(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address (a mapped IPv4 is IPv4)."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return address
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))


class Connections:
    """How many are open, in all and per client network."""

    def __init__(self, most: int, most_per_client: int) -> None:
        self.open = 0
        self._most, self._most_per_client = most, most_per_client
        self._clients: Counter[str] = Counter()

    def opened(self, client: str) -> bool:
        """Count one more of network `client`; False: too many (it must be closed() all the same)."""
        self.open += 1
        self._clients[client] += 1
        return self.open <= self._most and self._clients[client] <= self._most_per_client

    def closed(self, client: str) -> None:
        self.open -= 1
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]


class Suspicions:
    """Recipients accepted unverified, in windows of an hour: what is spent is only given back as a whole."""

    def __init__(self) -> None:
        self._until = 0.0
        self._clients: dict[str, set[str]] = {}
        self._domains: dict[str, set[str]] = {}

    def spent(self, client: str, domain: str, mailbox: str, now: float) -> bool:
        """Would `mailbox` be one too many for this client network or domain? One already counted is not."""
        self._turn(now)
        return any(
            mailbox not in counted and len(counted) >= most
            for counted, most in (
                (self._clients.get(client, ()), CLIENT_SUSPICIONS),
                (self._domains.get(domain, ()), DOMAIN_SUSPICIONS),
            )
        )

    def count(self, client: str, domain: str, mailbox: str, now: float) -> None:
        """`mailbox` of `domain` was accepted unverified from `client`."""
        self._turn(now)
        self._clients.setdefault(client, set()).add(mailbox)
        self._domains.setdefault(domain, set()).add(mailbox)

    def _turn(self, now: float) -> None:
        if now >= self._until:
            self._until = now + HOUR_S
            self._clients.clear()
            self._domains.clear()


class Patience(Struct, frozen=True):
    """With something that should answer: after TIMEOUTS in a row only one waits every RETRY_S."""

    timeouts: int = 0
    retry_at: float = 0.0

    def waits(self, now: float) -> bool:
        return self.timeouts < TIMEOUTS or now >= self.retry_at

    def began(self, now: float) -> "Patience":
        """Somebody waits: who comes next while it does, and patience is over, does not."""
        return Patience(self.timeouts, now + RETRY_S) if self.timeouts >= TIMEOUTS else self

    def timed_out(self, now: float) -> "Patience":
        return Patience(self.timeouts + 1, now + RETRY_S)


FULL_PATIENCE = Patience()


class Breakdowns:
    """Partitions whose last append failed; each is left alone for FAILED_S."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def failed(self, partition: int, now: float) -> None:
        self._until[partition] = now + FAILED_S

    def broken(self, partition: int, now: float) -> bool:
        return bool(self._until) and self._until.get(partition, 0.0) > now
