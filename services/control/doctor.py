"""Examines a domain end to end, as senders and we see it: DNS, then each server of the best preference.
Never DATA: nothing that is said to a server leaves anything there.
"""

import asyncio
import random
import secrets
from collections.abc import Sequence
from typing import cast

from libs.mail.address import BadAddress, domain_name
from libs.runtime.clock import Clock
from libs.runtime.config import Config
from libs.runtime.dns import Answer, Dns, Kind
from libs.smtp.client import CALLOUT, Connection, Dialer, Fault, Target
from libs.smtp.lookup import look_up
from libs.smtp.route import Ours, Place
from libs.smtp.sts import Policies
from libs.smtp.sts_policy import Mode, covers
from libs.smtp.tls_policy import Need, Tls
from services.control import examined
from services.control.examined import Examined, Exchange, Heard, Known, Policy, Visit

MOST = 4  # addresses that are visited
VISIT_S = 45.0
NOBODY = "no-such-user-"  # how a mailbox begins that nobody has
FOREIGN = "spf-test"  # a name below that of a host, from which nobody may send
_MX = {Kind.OK: examined.Dns.OK, Kind.NODATA: examined.Dns.NONE, Kind.NXDOMAIN: examined.Dns.NXDOMAIN}


class Doctor:
    """`examine` one domain."""

    def __init__(self, config: Config, dns: Dns, clock: Clock) -> None:
        self._config, self._dns, self._clock = config, dns, clock
        host, hosts = config.host, config.installation.hosts
        self._ours = Ours(hosts, (*host.ipv4, *host.ipv6))
        self._dialer = Dialer(config.dial, host, clock, CALLOUT, hosts=hosts)

    async def examine(self, domain: str, known: Known, place: Place | None, someone: str = "") -> Examined:
        """`domain`: a lower-case A-label; `known`: what stands in the tables; `place`: where the operator
        says that its primary is; `someone`: a mailbox that is known to exist, "" for none."""
        answer = await self._dns.ask(domain, "MX")
        records = cast(Sequence[tuple[int, str]], answer.records if answer.kind is Kind.OK else ())
        exchanges = await asyncio.gather(*(self._exchange(*each) for each in sorted(records)))
        route = await look_up(self._dns, domain, self._ours, random.shuffle, place)
        best = next(iter(route.preferences), ())
        foreign = await self._foreign()
        visits = await asyncio.gather(
            *(self._visit(target, domain, someone, foreign) for target in best[:MOST])
        )
        return Examined(
            domain,
            self._ours.hosts,
            _MX.get(answer.kind, examined.Dns.TROUBLE),
            tuple(exchanges),
            str(place) if place is not None and place.host else "",
            tuple(visits),
            await self._policy(domain, [each.host for each in exchanges]),
            known,
        )

    # --- DNS ---

    async def _exchange(self, preference: int, host: str) -> Exchange:
        if not host:
            return Exchange(preference, host)  # a null MX
        a, aaaa, alias = await asyncio.gather(*(self._dns.ask(host, each) for each in ("A", "AAAA", "CNAME")))
        addresses = tuple(cast(str, record) for answer in (a, aaaa) for record in answer.records)
        trouble = not addresses and any(_failed(answer) for answer in (a, aaaa))
        ours = host in self._ours.hosts
        to = cast(str, alias.records[0]) if alias.kind is Kind.OK else ""
        return Exchange(preference, host, addresses, to, trouble, ours)

    async def _policy(self, domain: str, hosts: Sequence[str]) -> Policy | None:
        config = self._config
        if not config.dial.mta_sts:
            return None
        policies = Policies(config.dial, self._dns, self._clock, config.state_directory)
        try:
            policy = await policies.of(domain)
        finally:
            await policies.close()
        if policy is None:
            return None
        missing = tuple(host for host in hosts if host and not covers(policy, host))
        return Policy(policy.mode is Mode.ENFORCE, missing)

    async def _foreign(self) -> str:
        """A mailbox that nobody may send from, by SPF; "" where DNS does not say so."""
        try:
            name = domain_name(f"{FOREIGN}.{self._config.host.name}")
        except BadAddress:
            return ""
        answer = await self._dns.ask(name, "TXT")
        return f"postmaster@{name}" if "v=spf1 -all" in answer.records else ""

    # --- a server ---

    async def _visit(self, target: Target, domain: str, someone: str, foreign: str) -> Visit:
        began = self._clock.mono()
        try:
            async with asyncio.timeout(VISIT_S):
                connection = await self._dialer.connect(target)
                visit = await self._ask(connection, domain, someone, foreign)
        except TimeoutError:
            return Visit(target.host, target.address, stage="SESSION", reason="timeout")
        except Fault as fault:
            return Visit(target.host, target.address, fault.stage, fault.reply, fault.reason)
        offered = connection.tls or "STARTTLS" in connection.capabilities
        certificate = await self._certificate(target) if offered else ""
        return examined.seen(visit, certificate, self._clock.mono() - began)

    async def _ask(self, connection: Connection, domain: str, someone: str, foreign: str) -> Visit:
        """Raises Fault."""
        host = self._config.host.name
        asked = [f"postmaster@{domain}", f"{NOBODY}{secrets.token_hex(6)}@{domain}", *filter(None, [someone])]
        try:
            said = [Heard(*each) for each in await connection.verify(f"postmaster@{host}", asked)]
            # Whom it knows: an answer about the sender, and not about the recipient.
            whom = someone or asked[0]
            spf = [Heard(*each) for each in await connection.verify(foreign, [whom])] if foreign else [None]
        finally:
            if connection.usable:
                await connection.quit()
            else:
                connection.abort()
        target = connection.target
        return Visit(
            target.host,
            target.address,
            greeting=connection.greeting,
            capabilities=dict(connection.capabilities),
            tls=connection.tls,
            postmaster=said[0],
            nobody=said[1],
            known=said[2] if someone else None,
            foreign=spf[0],
        )

    async def _certificate(self, target: Target) -> str:
        """What is wrong with its certificate or its TLS, "" for nothing."""
        try:
            connection = await self._dialer.connect(target, Tls(Need.NAMED, "TLS", target.host))
        except Fault as fault:
            return fault.detail.removeprefix("TLS: ") or str(fault)
        await connection.quit()
        return ""


def _failed(answer: Answer) -> bool:
    return answer.kind in (Kind.TIMEOUT, Kind.SERVFAIL)
