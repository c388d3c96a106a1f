"""The PROXY header: what is one, at which octet it is none, and the same as aiosmtpd's on good ones."""

import asyncio
import ipaddress
import struct

import pytest
from aiosmtpd.proxy_protocol import get_proxy
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.proxy import LINE, MOST, BadHeader, Header, header, plain, trusted

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4, V6 = "203.0.113.7", "2001:db8::7"


def binary(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    """A header of version 2."""
    size = len(rest) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, size) + rest


def tcp(source: str, destination: str, tlv: bytes = b"", *, command: int = 0x21) -> bytes:
    """PROXY over TCP, version 2."""
    ends = [ipaddress.ip_address(end) for end in (source, destination)]
    family = 0x11 if ends[0].version == 4 else 0x21
    return binary(command, family, ends[0].packed + ends[1].packed + struct.pack("!HH", 4711, 25) + tlv)


GOOD = {
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 25\r\n": V4,
    b"PROXY TCP4 203.0.113.7 192.0.2.1 0 65535\r\n": V4,
    b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n": V6,
    b"PROXY TCP6 2001:0DB8:0:0:0:0:0:7 ::1 4711 25\r\n": V6,
    b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 4711 25\r\n": V4,
    b"PROXY UNKNOWN\r\n": "",
    b"PROXY UNKNOWN ffff:f...f:ffff anything goes\r\n": "",
    tcp(V4, "192.0.2.1"): V4,
    tcp(V6, "2001:db8::1"): V6,
    tcp("::ffff:203.0.113.7", "::1"): V4,
    tcp(V4, "192.0.2.1", b"\x02\x00\x0cmail.example" + b"\x04\x00\x02xx"): V4,
    tcp(V4, "192.0.2.1", b"\x20\xff\xff cut short"): V4,
    tcp(V4, "192.0.2.1", b"\x04" + b"\x00" * (MOST - 29)): V4,
    tcp(V4, "192.0.2.1", command=0x20): "",
    binary(0x20, 0x00, b""): "",
    binary(0x21, 0x00, b"whatever"): "",
}

BAD = [
    b"EHLO client.example\r\n",
    b"\r\n\r\nQUIT\r\n",
    b"proxy TCP4 203.0.113.7 192.0.2.1 4711 25\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY UDP4 203.0.113.7 192.0.2.1 4711 25\r\n",
    b"PROXY TCP4  203.0.113.7 192.0.2.1 4711 25\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 25 \r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 25\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 1_0 25\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 +1 25\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 025 25\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 25\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 25\t\r\n",
    b"PROXY TCP4 203.0.113.07 192.0.2.1 4711 25\r\n",
    b"PROXY TCP4 203.0.113 192.0.2.1 4711 25\r\n",
    b"PROXY TCP4 203.0.113.7 2001:db8::1 4711 25\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 25\r\n",
    b"PROXY TCP6 203.0.113.7 192.0.2.1 4711 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 4711 25\r\n",
    b"PROXY UNKNOWN " + b"x" * LINE,
    binary(0x11, 0x11, b"x" * 12),
    binary(0x22, 0x11, b"x" * 12),
    binary(0x21, 0x11, b"x" * 11),
    binary(0x21, 0x21, b"x" * 35),
    binary(0x21, 0x12, b"x" * 12),
    binary(0x21, 0x31, b"x" * 216),
    binary(0x21, 0x01, b"x" * 12),
    binary(0x21, 0x11, b"", 0xFFFF),
    SIGNATURE[:-1] + b"\r\x21\x11\x00\x0c" + b"x" * 12,
]


@pytest.mark.parametrize(("octets", "client"), GOOD.items())
def test_a_header(octets: bytes, client: str) -> None:
    """What is behind a header is left alone, and no part of a header is taken for one."""
    assert header(octets) == Header(len(octets), client)
    assert header(bytearray(octets) + b"EHLO client.example\r\n") == Header(len(octets), client)
    assert all(header(octets[:end]) is None for end in range(len(octets)))


@pytest.mark.parametrize("octets", BAD)
def test_no_header(octets: bytes) -> None:
    """What is no header is refused as a whole, and nothing of it before was taken for one."""
    with pytest.raises(BadHeader):
        header(octets)
    for end in range(len(octets)):
        try:
            assert header(octets[:end]) is None
        except BadHeader:
            break


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"PROXY " + rest)
       | st.binary(max_size=200).map(lambda rest: SIGNATURE + rest))  # fmt: skip
def test_any_octets(octets: bytes) -> None:
    """Any octets are a header, no header, or the beginning of one; what is wrong stays wrong."""
    said: list[object] = []
    for end in range(len(octets) + 1):
        try:
            said.append(header(octets[:end]))
        except BadHeader:
            said.append("bad")
    first = next((each for each in said if each is not None), None)
    after = said[said.index(first) :] if first is not None else []
    assert all(each == first for each in after)
    if isinstance(first, Header):
        assert first.length <= len(octets)
        assert not first.client or ipaddress.ip_address(first.client)


@given(st.binary(min_size=1, max_size=20))
def test_nothing_is_waited_for_beyond_the_longest_header(some: bytes) -> None:
    """After MOST octets there is an answer, whatever they are."""
    octets = some * MOST
    for start in (b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11"):
        try:
            assert header(start + octets) is not None
        except BadHeader:
            continue


@given(
    st.ip_addresses(), st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=100), st.booleans()
)
async def test_the_same_as_aiosmtpd(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address, one: int, other: int, tlv: bytes, old: bool
) -> None:
    """On headers that are good, both parsers name the same client."""
    to = "192.0.2.1" if source.version == 4 else "2001:db8::1"
    octets = tcp(str(source), to, tlv)
    if old:
        octets = f"PROXY TCP{source.version} {source} {to} {one} {other}\r\n".encode()
    reader = asyncio.StreamReader()
    reader.feed_data(octets)
    reader.feed_eof()
    theirs = await get_proxy(reader)
    assert theirs.valid
    found = header(octets)
    assert found == Header(len(octets), plain(str(theirs.src_addr)))


def test_who_is_trusted() -> None:
    """Networks of both families; an address that is none is trusted by nobody."""
    networks = [ipaddress.ip_network(each) for each in ("10.0.0.0/8", "2001:db8:1::/48")]
    assert trusted("10.1.2.3", networks)
    assert trusted("::ffff:10.1.2.3", networks)
    assert trusted("2001:db8:1::5%eth0", networks)
    assert not trusted("11.0.0.1", networks)
    assert not trusted("2001:db8:2::5", networks)
    assert not trusted("", networks)
    assert not trusted("10.0.0.1", [])
