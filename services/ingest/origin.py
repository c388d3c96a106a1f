"""Is a client the primary itself? A primary may ask us anything about its own domain: it knows the answers.

It is looked up only when a budget is in the way of an answer, and remembered for an hour.
"""

import asyncio
import ipaddress

from libs.mail.settings import DomainSettings
from libs.runtime.deps import Deps
from libs.smtp.lookup import look_up
from libs.smtp.route import Ours, said
from services.ingest.connections import Peer
from services.ingest.known import Known

REMEMBERED_S = 3600.0


class Origins:
    """What is remembered is bounded by the addresses that the MX hosts of relay domains have."""

    def __init__(self, deps: Deps, known: Known) -> None:
        self._deps, self._known = deps, known
        host = deps.config.host
        self._ours = Ours(deps.config.installation.hosts, (*host.ipv4, *host.ipv6))
        self._until: dict[tuple[str, str], float] = {}  # (client, domain) -> monotonic time

    def is_primary(self, client: Peer, domain: str) -> bool:
        """Is `client` known to be the primary of `domain`?"""
        if not self._until:
            return False
        return self._until.get((client.address, domain), 0.0) > self._deps.clock.mono()

    async def find(self, client: Peer, domain: str) -> bool:
        """Ask DNS: the MX hosts of the domain as they are now, and as they last worked. Where DNS does not
        answer nobody is the primary: what the client hears then is temporary."""
        addresses = await self._addresses(domain)
        if not any(_same(client.address, each) for each in addresses):
            return False
        now = self._deps.clock.mono()
        self._until = {key: until for key, until in self._until.items() if until > now}
        self._until[client.address, domain] = now + REMEMBERED_S
        return True

    async def _addresses(self, domain: str) -> set[str]:
        dns, state = self._deps.dns, self._known.primaries.get(domain.encode())
        asked = [dns.ask(host, kind) for host in (state.mx if state else ()) for kind in ("A", "AAAA")]
        settings = self._known.domains.get(domain.encode())
        place = said(settings.primary_host, "") if isinstance(settings, DomainSettings) else None
        route = await look_up(dns, domain, self._ours, list.reverse, place)  # in whatever order
        last = await asyncio.gather(*asked)
        return {target.address for target in route.targets} | {
            str(record) for answer in last for record in answer.records
        }


def _same(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return False
