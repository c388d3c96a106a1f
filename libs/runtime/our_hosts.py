"""What DNS and the certificate must say of our own hosts, so that strangers and primaries believe them."""

import ipaddress
from collections.abc import Iterator, Mapping

from msgspec import Struct

EXPIRES_S = 14 * 86_400.0  # a certificate that ends so soon should have been renewed
SPF = "v=spf1 a -all"  # of a host's name: it sends from its own addresses, and nobody else does
NOBODY = "v=spf1 -all"


class Certificate(Struct, frozen=True):
    """`names`: DNS names in lower case; `ends`: wall seconds."""

    names: tuple[str, ...]
    ends: float


class Host(Struct, frozen=True):
    """One of our hosts as DNS has it. `trouble`: it did not answer; `spf`, `spf_test`: the TXT records of its
    name and of spf-test below it."""

    name: str
    addresses: tuple[str, ...] = ()
    trouble: bool = False
    spf: tuple[str, ...] = ()
    spf_test: tuple[str, ...] = ()


class Here(Struct, frozen=True):
    """What is known of the host that this is. `configured`: the published addresses of its configuration;
    `present`: those of them that this machine has; `pointers`: address -> names by reverse DNS;
    `certificate`: None where none is configured."""

    name: str
    configured: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    pointers: Mapping[str, tuple[str, ...]] = {}
    certificate: Certificate | None = None


class Check(Struct, frozen=True):
    """`right` False: `says` is what is wrong, else what was looked at. `about`: dns, spf, address,
    reverse_dns or certificate."""

    host: str
    right: bool
    says: str
    about: str = ""


def checks(hosts: tuple[Host, ...], here: Here, now: float) -> tuple[Check, ...]:
    """Of every host, then what only the one can see that this is; `now`: wall seconds."""
    found: list[Check] = []
    for host in hosts:
        found += _of_dns(host)
    mine = next((host for host in hosts if host.name == here.name), Host(here.name))
    return (*found, *_of_addresses(here, mine), *_of_certificate(here, now))


def _of_dns(host: Host) -> Iterator[Check]:
    if host.trouble:
        yield Check(host.name, False, "its name servers do not answer", "dns")
        return
    if not host.addresses:
        yield Check(host.name, False, "it has no address in DNS", "dns")
        return
    yield Check(host.name, True, f"its addresses in DNS are {', '.join(host.addresses)}", "dns")
    spf = [text for text in host.spf if text.lower().startswith("v=spf1")]
    if spf == [SPF]:
        yield Check(host.name, True, f"its SPF record is `{SPF}`", "spf")
    else:
        had = f"not `{'`, `'.join(spf)}`" if spf else "it has none"
        yield Check(host.name, False, f"its SPF record must be one, `{SPF}`: {had}", "spf")
    if NOBODY in host.spf_test:
        yield Check(host.name, True, "domain doctor can see whether SPF is checked on us", "spf")
    else:
        lacks = f"spf-test.{host.name} has no TXT record `{NOBODY}`: domain doctor needs it"
        yield Check(host.name, False, lacks, "spf")


def _of_addresses(here: Here, host: Host) -> Iterator[Check]:
    known, configured = set(host.addresses), [str(ipaddress.ip_address(each)) for each in here.configured]
    if not configured:
        yield Check(here.name, False, "no published addresses are configured ([host] ipv4, ipv6)", "address")
    for address in configured:
        if address not in here.present:
            yield Check(here.name, False, f"this machine does not have the address {address}", "address")
        if not host.trouble and address not in known:
            yield Check(here.name, False, f"{address} is configured, and not in DNS", "address")
        names = here.pointers.get(address, ())
        if here.name in names:
            yield Check(here.name, True, f"the reverse DNS of {address} names it", "reverse_dns")
        else:
            said = f"says {', '.join(names)}" if names else "says nothing"
            yield Check(
                here.name, False, f"the reverse DNS of {address} must name it, and {said}", "reverse_dns"
            )
    for address in sorted(known.difference(configured)):
        yield Check(
            here.name, False, f"{address} is in DNS, and not configured: owners would not allow it", "address"
        )


def _of_certificate(here: Here, now: float) -> Iterator[Check]:
    certificate = here.certificate
    if certificate is None:
        lacks = "no certificate is configured: STARTTLS is not offered (smtp.tls_certificate)"
        yield Check(here.name, False, lacks, "certificate")
        return
    if not _covers(certificate.names, here.name):
        yield Check(
            here.name,
            False,
            f"its certificate is for {', '.join(certificate.names) or 'no name'}",
            "certificate",
        )
    left_s = certificate.ends - now
    if left_s <= 0:
        yield Check(here.name, False, "its certificate has expired", "certificate")
    elif left_s < EXPIRES_S:
        yield Check(here.name, False, f"its certificate ends in {left_s / 86_400:.0f} days", "certificate")
    else:
        yield Check(
            here.name, True, f"its certificate is valid for {left_s / 86_400:.0f} days", "certificate"
        )


def _covers(names: tuple[str, ...], name: str) -> bool:
    """RFC 6125 section 6.4.3: a star stands for the whole first label."""
    return name in names or f"*.{name.partition('.')[2]}" in names
