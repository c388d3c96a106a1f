"""A new address of one of our hosts: what is announced, and to whom."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from libs.mail.records import Domain
from services.control.domains import Malformed, named

AHEAD = timedelta(days=30)


class Announced(NamedTuple):
    """`day`: from then on, UTC, 2027-01-31."""

    host: str
    address: str
    day: str

    @property
    def key(self) -> str:
        """Tells one announcement from the next: another day for the same is another."""
        return f"{self.host} {self.address} {self.day}"


def announced(host: str, address: str, day: str | None, now: float, hosts: Sequence[str]) -> Announced:
    """As a person typed it at `now` (wall seconds); `day` None: in 30 days. Raises Malformed."""
    name, today = named(host), datetime.fromtimestamp(now, UTC).date()
    if name not in hosts:
        raise Malformed(f"{name} is none of our hosts: {', '.join(hosts)}")
    try:
        found = ipaddress.ip_address(address)
    except ValueError as error:
        raise Malformed(f"{address!r} is no IP address") from error
    if found.is_loopback or found.is_unspecified or found.is_multicast or found.is_link_local:
        raise Malformed(f"{found} is no address that others could see")
    try:
        when = today + AHEAD if day is None else date.fromisoformat(day)
    except ValueError as error:
        raise Malformed(f"{day!r} is no date such as {today + AHEAD}") from error
    if when <= today:
        raise Malformed(f"{when} is not ahead: owners need time to let the address in")
    return Announced(name, str(found), when.isoformat())


def by_contact(domains: Iterable[Domain]) -> Mapping[str, Sequence[str]]:
    """The domains of each contact, in order; one without is told through its postmaster."""
    found: dict[str, list[str]] = {}
    for each in sorted(domains, key=lambda each: each.domain):
        found.setdefault(each.overrides.contact or f"postmaster@{each.domain}", []).append(each.domain)
    return found
