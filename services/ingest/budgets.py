"""What strangers may learn or use up within an hour: unknown recipients of a client, unverified ones of a
client and of a domain. Who reconnects finds its budget as it left it; a known recipient costs nothing.
"""

import math
from typing import NamedTuple

from msgspec.structs import replace

from libs.mail import replies
from libs.mail.address import Mailbox
from libs.mail.records import Basis
from services.ingest.buckets import Buckets
from services.ingest.connections import Peer
from services.ingest.facts import Accept
from services.ingest.limits import HOUR_S, Load

ROOM = 200_000  # unverified recipients counted in one hour, some 100 octets each


class Allowance(NamedTuple):
    """Within an hour: `unknown`: recipients that a client is told to be unknown; `unverified`: recipients of
    a client that are accepted on suspicion; `unverified_of_domain`: the same of a domain."""

    unknown: int
    unverified: int
    unverified_of_domain: int


class Suspicions:
    """Recipients accepted unverified, in windows of an hour: what is spent is only given back as a whole.

    With more than `room` of them no further one is accepted in this hour: they are told to come again."""

    def __init__(self, per_client: int, per_domain: int, *, room: int = ROOM) -> None:
        self._per_client, self._per_domain, self._room = per_client, per_domain, room
        self._until, self._counted = 0.0, 0
        self._clients: dict[str, set[int]] = {}
        self._domains: dict[str, set[int]] = {}

    @property
    def empty(self) -> bool:
        return not self._domains

    def spent(self, client: str, domain: str, mailbox: str, now: float) -> bool:
        """Would `mailbox` be one too many for this client network ("": nobody's) or domain? One already
        counted is not."""
        self._turn(now)
        counted = hash(mailbox)
        return self._over(self._domains.get(domain), counted, self._per_domain) or (
            client != "" and self._over(self._clients.get(client), counted, self._per_client)
        )

    def _over(self, those: set[int] | None, counted: int, most: int) -> bool:
        if those is None:
            return self._counted >= self._room
        return counted not in those and (len(those) >= most or self._counted >= self._room)

    def count(self, client: str, domain: str, mailbox: str, now: float) -> None:
        """`mailbox` of `domain` was accepted unverified from `client`."""
        self._turn(now)
        counted = hash(mailbox)
        for key, where in ((client, self._clients), (domain, self._domains)):
            if key:
                those = where.setdefault(key, set())
                self._counted += counted not in those
                those.add(counted)

    def _turn(self, now: float) -> None:
        if now >= self._until:
            self._until, self._counted = now + HOUR_S, 0
            self._clients.clear()
            self._domains.clear()


class Budgets:
    """Both budgets. Exempt clients have none of their own; a domain's is for everybody."""

    def __init__(self, allowance: Allowance) -> None:
        self._unknown = Buckets(allowance.unknown, HOUR_S)
        self._suspicions = Suspicions(allowance.unverified, allowance.unverified_of_domain)

    def load(self, load: Load, to: Mailbox, client: Peer, now: float) -> Load:
        """`load` with what is spent for this recipient and client. `now`: monotonic seconds."""
        if self._suspicions.empty and not self._unknown:
            return load
        suspicious = self._suspicions.spent(_network(client), to.domain, to.key, now)
        harvesting = not client.exempt and self._unknown.spent(client.network, now)
        if not suspicious and not harvesting:
            return load
        return replace(load, suspicious=suspicious, harvesting=harvesting)

    def questions(self, client: Peer, now: float) -> float:
        """How many recipients may be asked for at once on behalf of `client`: each may turn out to be
        unknown."""
        return math.inf if client.exempt else self._unknown.left(client.network, now)

    def count(self, answer: object, to: Mailbox, client: Peer, now: float) -> None:
        """`answer` is what this client is told about a recipient."""
        if answer is replies.UNKNOWN_RECIPIENT:
            if not client.exempt:
                self._unknown.take(client.network, now)
        elif isinstance(answer, Accept) and answer.basis is Basis.SUSPICION:
            self._suspicions.count(_network(client), to.domain, to.key, now)


def _network(client: Peer) -> str:
    return "" if client.exempt else client.network
