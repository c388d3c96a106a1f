"""The PROXY protocol, versions 1 and 2: whom a proxy that we trust connects for.

Its text is doc/proxy-protocol.txt of HAProxy; sections named here are its. The header comes first and exactly
once, before the banner. Only the client's address is of use to us: what a proxy adds behind the addresses
(TLV, section 2.2.7) is stepped over. Why this is not aiosmtpd's parser: docs/decisions/0011.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

LINE = 107  # section 2.1: octets of the longest header of version 1, with its CR LF
MOST = 4096  # of version 2: section 2.2.7 asks for 536 at least; a certificate among the TLVs takes some 2 kB
_V1, _V2 = b"PROXY ", b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = 16
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_ADDRESS = re.compile(rb"[0-9A-Fa-f:.]+")
_TCP4, _TCP6 = 0x11, 0x21  # family and protocol: what a mail can come over

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BadHeader(Exception):  # noqa: N818
    """What came is no header of the PROXY protocol, or speaks of something that is no TCP connection."""


class Header(NamedTuple):
    """`length`: octets of the header; `client`: the IP address that the proxy speaks for (an IPv4 address
    that came mapped into IPv6 is IPv4), "" when it speaks for itself (LOCAL, such as its health checks) or
    does not know (UNKNOWN, UNSPEC): then the address of the connection counts."""

    length: int
    client: str


def header(octets: bytes | bytearray) -> Header | None:
    """The header at the front of `octets`; None while more of it must come. Raises BadHeader, at the first
    octet that shows it: nobody can make us wait for, or hold, more than MOST octets."""
    if octets.startswith(_V2):
        return _binary(octets)
    if octets.startswith(_V1):
        return _line(octets)
    if _V1.startswith(octets) or _V2.startswith(octets):
        return None
    raise BadHeader("not a PROXY header")


def plain(address: str) -> str:
    """An IPv4 address that comes as `::ffff:192.0.2.1` is 192.0.2.1, for limits and for SPF."""
    if not address.startswith("::ffff:"):
        return address
    mapped = ipaddress.IPv6Address(address).ipv4_mapped
    return address if mapped is None else str(mapped)


def trusted(address: str, networks: Sequence[Network]) -> bool:
    """May whoever connects from `address` say for whom it does?"""
    try:
        ip = ipaddress.ip_address(plain(address.partition("%")[0]))
    except ValueError:
        return False
    return any(ip in network for network in networks)


def _line(octets: bytes | bytearray) -> Header | None:
    """Section 2.1: `PROXY TCP4 192.0.2.7 198.51.100.1 4711 25`, single blanks, CR LF."""
    end = octets.find(b"\n", 0, LINE)
    if end < 0:
        if len(octets) >= LINE:
            raise BadHeader("version 1: too long")
        return None
    if octets[end - 1 : end] != b"\r":
        raise BadHeader("version 1: not ended by CR LF")
    words = bytes(octets[: end - 1]).split(b" ")
    if words[1] == b"UNKNOWN":
        return Header(end + 1, "")  # the rest of the line is to be ignored
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise BadHeader("version 1: not of the form PROXY TCP4|TCP6 source destination port port")
    for port in words[4:]:
        if not _PORT.fullmatch(port) or int(port) > 65535:
            raise BadHeader("version 1: no port")
    source, _ = (_address(word, 4 if words[1] == b"TCP4" else 6) for word in words[2:4])
    return Header(end + 1, source)


def _address(word: bytes, version: int) -> str:
    if not _ADDRESS.fullmatch(word):
        raise BadHeader("version 1: no address")
    try:
        address = ipaddress.ip_address(word.decode())
    except ValueError as error:
        raise BadHeader("version 1: no address") from error
    if address.version != version:
        raise BadHeader("version 1: an address of the other family")
    return plain(str(address))


def _binary(octets: bytes | bytearray) -> Header | None:
    """Section 2.2: signature, version and command, family and protocol, length; addresses, TLVs."""
    if len(octets) < _FIXED:
        return None
    command, family = octets[12], octets[13]
    length = _FIXED + int.from_bytes(octets[14:16], "big")
    if command not in (0x20, 0x21):
        raise BadHeader("version 2: neither LOCAL nor PROXY")
    if length > MOST:
        raise BadHeader("version 2: too long")
    local = command == 0x20 or family == 0x00
    if not local and family not in (_TCP4, _TCP6):
        raise BadHeader("version 2: not a TCP connection")
    size = 4 if family == _TCP4 else 16
    if not local and length < _FIXED + 2 * size + 4:
        raise BadHeader("version 2: addresses cut short")
    if len(octets) < length:
        return None
    source = "" if local else plain(str(ipaddress.ip_address(bytes(octets[_FIXED : _FIXED + size]))))
    return Header(length, source)
