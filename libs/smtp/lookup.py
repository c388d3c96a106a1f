"""DNS asked for a domain's route: MX, then every address at once; and for what it says of certificates."""

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import cast

from libs.runtime.dns import Answer, Dns, Kind
from libs.smtp.dane import Tlsa
from libs.smtp.route import (
    Exchange,
    Found,
    Ours,
    Place,
    Route,
    Shuffle,
    Target,
    candidates,
    choose,
    is_null_mx,
)
from libs.smtp.tls_policy import UNSIGNED, Signed


async def look_up(dns: Dns, domain: str, ours: Ours, shuffle: Shuffle, place: Place | None = None) -> Route:
    """The route to `domain` (lower-case A-label or address literal). `shuffle`: in place, as random.shuffle;
    `place`: where the owner says that it goes, whatever its MX records say.

    Without an MX record the domain's own addresses count, with preference 0 (RFC 5321 section 5.1).
    """
    if place is not None and place.host:
        return await _there(dns, place, ours, shuffle)
    if domain.startswith("["):
        return _literal(domain)
    answer = await dns.ask(domain, "MX")
    match answer.kind:
        case Kind.NXDOMAIN:
            return Route((), (), Found.NXDOMAIN, expires=answer.expires)
        case Kind.TIMEOUT | Kind.SERVFAIL:
            return Route((), (), Found.TROUBLE, expires=answer.expires)
        case Kind.NODATA:
            records = [(0, domain)]
        case Kind.OK:
            records = cast(list[tuple[int, str]], list(answer.records))
    if is_null_mx(records):
        return Route((), (), Found.NULL_MX, expires=answer.expires)
    named = any(host in ours.hosts for _, host in records)
    wanted = candidates(records, ours)
    looked_up = await asyncio.gather(*(_addresses(dns, host) for _, host in wanted))
    exchanges = [_exchange(*each, found) for each, found in zip(wanted, looked_up, strict=True)]
    signed = frozenset(
        host for (_, host), found in zip(wanted, looked_up, strict=True) if _signed(answer, found)
    )
    expires = min([answer.expires, *(each.expires for found in looked_up for each in found)])
    return choose(exchanges, ours, shuffle, named=named)._replace(secure=signed, expires=expires)


async def _there(dns: Dns, place: Place, ours: Ours, shuffle: Shuffle) -> Route:
    """The addresses of one host; the loop rule holds for it, too."""
    if place.host.startswith("["):
        route = _literal(place.host)
    else:
        found = await _addresses(dns, place.host)
        route = choose([_exchange(0, place.host, found)], ours, shuffle)
        route = route._replace(expires=min(each.expires for each in found))
    at_port = [tuple(target._replace(port=place.port) for target in each) for each in route.preferences]
    return route._replace(preferences=tuple(at_port), names_us=False)


async def look_up_tlsa(dns: Dns, host: str, port: int) -> Signed:
    """What DNS says of the certificates of `host`, whose addresses are signed (RFC 7672 section 2.2)."""
    answer = await dns.ask(f"_{port}._tcp.{host}", "TLSA")
    if _failed(answer):
        return Signed(trouble=True)
    if answer.kind is not Kind.OK or not answer.authentic:
        return UNSIGNED
    return Signed(tuple(_tlsa(cast(str, each)) for each in answer.records))


def _tlsa(record: str) -> Tlsa:
    usage, selector, matching, data = record.split(" ")
    return Tlsa(int(usage), int(selector), int(matching), bytes.fromhex(data))


async def _addresses(dns: Dns, host: str) -> tuple[Answer, Answer]:
    return await asyncio.gather(dns.ask(host, "A"), dns.ask(host, "AAAA"))


def _exchange(preference: int, host: str, answers: Sequence[Answer]) -> Exchange:
    addresses = tuple(cast(str, record) for answer in answers for record in answer.records)
    trouble = not addresses and any(_failed(answer) for answer in answers)
    return Exchange(preference, host, addresses, trouble)


def _signed(mx: Answer, addresses: Sequence[Answer]) -> bool:
    """Without a signature on all of these a forger chooses the host, and with it the TLSA records (RFC 7672
    section 2.1.3)."""
    used = [answer for answer in addresses if answer.records]
    return mx.authentic and bool(used) and all(answer.authentic for answer in used)


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
