"""The DNS server of the tests, asked by a resolver that is not ours."""

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.resolver
import pytest

from tests.helpers.zone import Zone

TEXT = """
office.example     MX 10 mx.office.example     ; the primary
                   MX 20 mx1.backup.example
mx.office.example  A 127.0.0.2
mx.office.example  AAAA ::1
www.office.example CNAME mx.office.example
slow.example       !timeout
sick.example       !servfail MX
sick.example       A 127.0.0.9
"""


def resolver(zone: Zone) -> dns.asyncresolver.Resolver:
    found = dns.asyncresolver.Resolver(configure=False)
    found.nameservers, found.port = [zone.address], zone.port
    found.lifetime = 1.0
    return found


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_real_resolver_reads_it(tcp: bool) -> None:
    """Answers, aliases, NXDOMAIN and NODATA reach dnspython's own resolver over UDP and TCP."""
    async with Zone(TEXT) as zone:
        ask = resolver(zone)
        mx = await ask.resolve("office.example.", "MX", tcp=tcp)
        assert sorted(str(record) for record in mx) == ["10 mx.office.example.", "20 mx1.backup.example."]
        www = await ask.resolve("www.office.example.", "A", tcp=tcp)
        assert (str(www[0]), str(www.canonical_name)) == ("127.0.0.2", "mx.office.example.")
        with pytest.raises(dns.resolver.NXDOMAIN):
            await ask.resolve("nothing.example.", "A", tcp=tcp)
        with pytest.raises(dns.resolver.NoAnswer):
            await ask.resolve("office.example.", "AAAA", tcp=tcp)
        with pytest.raises(dns.resolver.NoAnswer):  # no records, but there are names below it
            await ask.resolve("example.", "A", tcp=tcp)
        assert zone.streams == (len(zone.questions) if tcp else 0)


async def test_trouble() -> None:
    """!timeout stays silent, !servfail says so, for the type it names only."""
    async with Zone(TEXT) as zone:
        ask = resolver(zone)
        with pytest.raises(dns.resolver.LifetimeTimeout):
            await ask.resolve("slow.example.", "A")
        with pytest.raises(dns.resolver.NoNameservers):
            await ask.resolve("sick.example.", "MX")
        assert str((await ask.resolve("sick.example.", "A"))[0]) == "127.0.0.9"


async def test_it_changes_while_it_runs() -> None:
    """`set` takes effect at the next question."""
    async with Zone("a.example A 127.0.0.1") as zone:
        ask = resolver(zone)
        assert str((await ask.resolve("a.example.", "A"))[0]) == "127.0.0.1"
        zone.set("a.example A 127.0.0.2")
        assert str((await ask.resolve("a.example.", "A"))[0]) == "127.0.0.2"


async def test_long_answers_are_truncated_over_udp() -> None:
    """What does not fit into 512 octets, or into what EDNS allows, carries TC and comes whole over TCP."""
    text = "\n".join(f'long.example TXT "{number:03d}{"x" * 200}"' for number in range(12))
    async with Zone(text) as zone:
        ask = resolver(zone)
        answer = await ask.resolve("long.example.", "TXT")
        assert len(answer) == 12
        assert zone.streams == 1


@pytest.mark.parametrize("line", ["a.example !sleep", "a.example !timeout A B", "a.example A 300.1.1.1"])
def test_wrong_lines_are_refused(line: str) -> None:
    """A typing error in a test's zone is an error, not an empty answer."""
    with pytest.raises((ValueError, dns.exception.DNSException)):
        Zone(line)


async def test_it_vouches_as_a_validating_resolver_does() -> None:
    """AD where it was asked for and nobody said that the name is not signed (RFC 6840 section 5.7)."""
    text = f"{TEXT}\nmx.office.example !unsigned A\n"
    async with Zone(text, validating=True) as zone:
        ask = resolver(zone)
        ask.flags = dns.flags.RD | dns.flags.AD
        signed = {}
        for name, rtype in (
            ("office.example.", "MX"),
            ("mx.office.example.", "A"),
            ("mx.office.example.", "AAAA"),
        ):
            signed[name, rtype] = bool((await ask.resolve(name, rtype)).response.flags & dns.flags.AD)
        assert list(signed.values()) == [True, False, True]
        ask.flags = dns.flags.RD
        assert not (await ask.resolve("office.example.", "MX")).response.flags & dns.flags.AD
