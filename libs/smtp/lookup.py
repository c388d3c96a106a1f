"""DNS asked for a domain's route: MX, then every address at once."""

import asyncio
import ipaddress
from typing import cast

from libs.runtime.dns import Answer, Dns, Kind
from libs.smtp.route import Exchange, Found, Ours, Route, Shuffle, Target, candidates, choose, is_null_mx


async def look_up(dns: Dns, domain: str, ours: Ours, shuffle: Shuffle) -> Route:
    """The route to `domain` (lower-case A-label or address literal). `shuffle`: in place, as random.shuffle.

    Without an MX record the domain's own addresses count, with preference 0 (RFC 5321 section 5.1).
    """
    if domain.startswith("["):
        return _literal(domain)
    answer = await dns.ask(domain, "MX")
    match answer.kind:
        case Kind.NXDOMAIN:
            return Route((), (), Found.NXDOMAIN)
        case Kind.TIMEOUT | Kind.SERVFAIL:
            return Route((), (), Found.TROUBLE)
        case Kind.NODATA:
            records = [(0, domain)]
        case Kind.OK:
            records = cast(list[tuple[int, str]], list(answer.records))
    if is_null_mx(records):
        return Route((), (), Found.NULL_MX)
    named = any(host in ours.hosts for _, host in records)
    looked_up = [_exchange(dns, preference, host) for preference, host in candidates(records, ours)]
    return choose(await asyncio.gather(*looked_up), ours, shuffle, named=named)


async def _exchange(dns: Dns, preference: int, host: str) -> Exchange:
    answers = await asyncio.gather(dns.ask(host, "A"), dns.ask(host, "AAAA"))
    addresses = tuple(cast(str, record) for answer in answers for record in answer.records)
    trouble = not addresses and any(_failed(answer) for answer in answers)
    return Exchange(preference, host, addresses, trouble)


def _failed(answer: Answer) -> bool:
    return answer.kind in (Kind.TIMEOUT, Kind.SERVFAIL)


def _literal(domain: str) -> Route:
    """[192.0.2.1] or [IPv6:...] (RFC 5321 section 4.1.3)."""
    text = domain.removeprefix("[").removesuffix("]")
    text = text[5:] if text.lower().startswith("ipv6:") else text
    try:
        address = str(ipaddress.ip_address(text))
    except ValueError:
        return Route((), (), Found.NONE)
    return Route(((Target(domain, address),),), (domain,), Found.OK)
