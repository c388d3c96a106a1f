"""What TLS must be with each MX host of a route, from what the domain and its hosts say of themselves."""

import asyncio
from collections.abc import Mapping

from libs.runtime.clock import Clock
from libs.runtime.config import Config
from libs.runtime.dns import Dns
from libs.smtp.lookup import look_up_tlsa
from libs.smtp.route import Place, Route
from libs.smtp.sts import Policies
from libs.smtp.tls_policy import ANY, UNSIGNED, Barred, Signed, Tls, known_as, required


class Demands:
    """Asks for MTA-STS and DANE where the configuration has them."""

    def __init__(self, config: Config, dns: Dns, clock: Clock) -> None:
        dial = config.dial
        self._dns, self._port, self._dane = dns, dial.port, dial.dane
        self._policies = Policies(dial, dns, clock, config.state_directory) if dial.mta_sts else None

    async def of(self, domain: str, route: Route, place: Place | None = None) -> Mapping[str, Tls | Barred]:
        """For each host of the route to `domain` (lower-case A-label; an address literal has no policy).

        `place`: what the owner says of his server; what TLS must be where he sends us he says, too.
        """
        if place is not None:
            return dict.fromkeys(route.hosts, known_as(place.tls_name) if place.tls_name else ANY)
        if domain.startswith("["):
            return {host: required(domain, host, None, UNSIGNED) for host in route.hosts}
        policy = None if self._policies is None else await self._policies.of(domain)
        signed = await asyncio.gather(*(self._signed(host, route) for host in route.hosts))
        return {
            host: required(domain, host, policy, says) for host, says in zip(route.hosts, signed, strict=True)
        }

    async def _signed(self, host: str, route: Route) -> Signed:
        if not self._dane or host not in route.secure:
            return UNSIGNED
        return await look_up_tlsa(self._dns, host, self._port)

    async def close(self) -> None:
        if self._policies is not None:
            await self._policies.close()
