"""Looks at our own hosts: at DNS, at this machine's addresses, at the certificate."""

import asyncio
import ipaddress
import socket
from pathlib import Path
from typing import cast

from cryptography import x509

from libs.runtime.clock import SystemClock
from libs.runtime.config import Config
from libs.runtime.dns import Dns, Kind
from libs.runtime.our_hosts import Certificate, Check, Here, Host, checks


class Unreadable(Exception):  # noqa: N818
    """A certificate file; the text says which."""


async def hosts(config: Config, dns: Dns) -> tuple[Host, ...]:
    """All of the installation."""
    return tuple(await asyncio.gather(*(_host(dns, name) for name in config.installation.hosts)))


async def here(config: Config, dns: Dns) -> Here:
    """The one that this is. Raises Unreadable."""
    host = config.host
    configured = (*host.ipv4, *host.ipv6)
    pointers = await asyncio.gather(*(_pointers(dns, each) for each in configured))
    file = config.smtp.tls_certificate
    return Here(
        host.name,
        configured,
        tuple(each for each in configured if _is_here(each)),
        dict(zip(configured, pointers, strict=True)),
        None if file is None else await asyncio.to_thread(_certificate, file),
    )


async def _host(dns: Dns, name: str) -> Host:
    a, aaaa, spf, test = await asyncio.gather(
        dns.ask(name, "A"), dns.ask(name, "AAAA"), dns.ask(name, "TXT"), dns.ask(f"spf-test.{name}", "TXT")
    )
    addresses = tuple(cast(str, record) for answer in (a, aaaa) for record in answer.records)
    trouble = not addresses and any(answer.kind in (Kind.TIMEOUT, Kind.SERVFAIL) for answer in (a, aaaa))
    texts = [cast("tuple[str, ...]", answer.records) for answer in (spf, test)]
    return Host(name, addresses, trouble, *texts)


async def _pointers(dns: Dns, address: str) -> tuple[str, ...]:
    answer = await dns.ask(ipaddress.ip_address(address).reverse_pointer, "PTR")
    return cast("tuple[str, ...]", answer.records)


def _is_here(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _certificate(file: Path) -> Certificate:
    """Raises Unreadable."""
    try:
        [leaf, *_] = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        raise Unreadable(f"{file} is no certificate: {error}") from error
    try:
        named = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Certificate((), leaf.not_valid_after_utc.timestamp())
    names = tuple(name.lower() for name in named.get_values_for_type(x509.DNSName))
    return Certificate(names, leaf.not_valid_after_utc.timestamp())


async def checked(config: Config, dns: Dns, now: float) -> tuple[Check, ...]:
    """All of it, at `now` (wall seconds). Raises Unreadable."""
    return checks(*await asyncio.gather(hosts(config, dns), here(config, dns)), now)


async def look(config: Config) -> tuple[Check, ...]:
    """The same, once. Raises Unreadable."""
    clock = SystemClock()
    dns = Dns([(at.address, at.port) for at in config.dns.servers], clock, config.dns.timeout_s)
    try:
        return await checked(config, dns, clock.wall())
    finally:
        await dns.close()
