"""The resolver against real DNS servers on loopback: kinds of answers, caching, sharing, and what never
raises."""

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.runtime.clock import SystemClock
from libs.runtime.dns import Dns, Kind
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S
from tests.helpers.zone import Zone

TEXT = """
office.example          300 MX 20 MX2.office.example
                        300 MX 10 mx1.office.example
                        300 TXT "v=spf1 " "include:b\\246h -all"
mx1.office.example      A 192.0.2.1
                        A 192.0.2.2
                        AAAA 2001:db8:0:0::1
www.office.example      CNAME mx1.office.example
broken.example          CNAME nowhere.example
loop.example            CNAME loop2.example
loop2.example           CNAME loop.example
null.example            MX 0 .
1.2.0.192.in-addr.arpa  PTR mx1.Office.example
forever.example         604800 A 192.0.2.9
never.example           0 A 192.0.2.10
slow.example            !timeout
sick.example            !servfail
"""


def resolver(*zones: Zone, clock: Clock | SystemClock | None = None, timeout_s: float = 1.0) -> Dns:
    return Dns([server for zone in zones for server in zone.servers], clock or Clock(), timeout_s)


async def test_records_of_each_type() -> None:
    """Addresses in their short form, hosts as lower-case A-labels without dot, "" for the null MX, TXT
    joined."""
    async with Zone(TEXT) as zone:
        dns = resolver(zone)
        mx = await dns.ask("Office.Example.", "MX")
        assert sorted(mx.records) == [(10, "mx1.office.example"), (20, "mx2.office.example")]
        assert sorted((await dns.ask("mx1.office.example", "A")).records) == ["192.0.2.1", "192.0.2.2"]
        assert (await dns.ask("mx1.office.example", "AAAA")).records == ("2001:db8::1",)
        assert sorted((await dns.ask("www.office.example", "A")).records) == ["192.0.2.1", "192.0.2.2"]
        assert (await dns.ask("www.office.example", "CNAME")).records == ("mx1.office.example",)
        assert (await dns.ask("mx1.office.example", "CNAME")).kind is Kind.NODATA
        assert (await dns.ask("null.example", "MX")).records == ((0, ""),)
        assert (await dns.ask("office.example", "TXT")).records == ("v=spf1 include:b\xf6h -all",)
        pointer = ipaddress.ip_address("192.0.2.1").reverse_pointer
        assert (await dns.ask(pointer, "PTR")).records == ("mx1.office.example",)
        await dns.close()


@pytest.mark.parametrize(
    ("name", "rtype", "kind"),
    [
        ("nothing.example", "A", Kind.NXDOMAIN),
        ("office.example", "A", Kind.NODATA),
        ("broken.example", "A", Kind.NXDOMAIN),
        ("loop.example", "A", Kind.SERVFAIL),
        ("sick.example", "A", Kind.SERVFAIL),
        ("slow.example", "A", Kind.TIMEOUT),
        ("a..example", "A", Kind.NXDOMAIN),
        ("", "A", Kind.NXDOMAIN),
        ("x" * 64 + ".example", "A", Kind.NXDOMAIN),
        (".".join(["x" * 60] * 5), "A", Kind.NXDOMAIN),
        ("m\xfcller.example", "A", Kind.NXDOMAIN),
        ("a b\\.example", "A", Kind.NXDOMAIN),
        ("\x00\r\n.example", "A", Kind.NXDOMAIN),
    ],
)
async def test_kinds(name: str, rtype: str, kind: Kind) -> None:
    """Each trouble is a kind of its own, and a name that no DNS can hold does not exist; nothing raises."""
    async with Zone(TEXT) as zone:
        dns = resolver(zone, timeout_s=0.2)
        answer = await dns.ask(name, rtype)
        assert (answer.kind, answer.records) == (kind, ())
        assert dns.cached(name, rtype) == answer
        await dns.close()


@pytest.mark.parametrize(
    ("name", "least_s", "most_s"),
    [
        ("mx1.office.example", 1, 1),
        ("never.example", 1, 1),  # no time to live: a message's look-ups still agree with each other
        ("forever.example", 3600, 3600),
        ("nothing.example", 1, 300),
        ("sick.example", 5, 5),
        ("slow.example", 5, 5),
    ],
)
async def test_lifetimes(name: str, least_s: float, most_s: float) -> None:
    """Answers live as long as they say, within the caps; failures a few seconds; then they are asked
    again."""
    clock = Clock()
    async with Zone(TEXT) as zone:
        dns = resolver(zone, clock=clock, timeout_s=0.2)
        answer = await dns.ask(name, "A")
        assert least_s <= answer.expires - clock.mono() <= most_s
        asked = len(zone.questions)
        assert await dns.ask(name, "A") == answer
        assert len(zone.questions) == asked
        clock.advance(most_s)
        assert dns.cached(name, "A") is None
        await dns.ask(name, "A")
        assert len(zone.questions) > asked
        await dns.close()


async def test_a_change_is_seen_after_its_time() -> None:
    """What was learnt stays until it expires, then the new answer counts."""
    clock = Clock()
    async with Zone("a.example 60 A 192.0.2.1") as zone:
        dns = resolver(zone, clock=clock)
        await dns.ask("a.example", "A")
        zone.set("a.example 60 A 192.0.2.2")
        clock.advance(59)
        assert (await dns.ask("a.example", "A")).records == ("192.0.2.1",)
        clock.advance(1)
        assert (await dns.ask("a.example", "A")).records == ("192.0.2.2",)
        await dns.close()


async def test_equal_questions_share_one_query() -> None:
    """However many ask at once, the server hears one question; an asker that gives up spoils nothing."""
    async with Zone(TEXT) as zone:
        dns = resolver(zone)
        askers = [asyncio.create_task(dns.ask("office.example", "MX")) for _ in range(50)]
        await asyncio.sleep(0)
        askers[0].cancel()
        answers = await asyncio.gather(*askers[1:])
        assert len({answer.records for answer in answers}) == 1
        assert zone.questions == [("office.example", "MX")]
        with pytest.raises(asyncio.CancelledError):
            await askers[0]
        await dns.close()


async def test_the_next_server_is_asked() -> None:
    """A server that is silent, sick or gone costs time, not the answer."""
    for trouble in ("a.example !timeout", "a.example !servfail"):
        async with Zone(trouble) as sick, Zone("a.example A 192.0.2.1") as well:
            dns = resolver(sick, well, clock=SystemClock(), timeout_s=0.8)
            assert (await dns.ask("a.example", "A")).records == ("192.0.2.1",)
            await dns.close()
    async with Zone("a.example A 192.0.2.1") as well:
        gone = Zone()
        async with gone:
            pass
        dns = resolver(gone, well, clock=SystemClock(), timeout_s=0.8)
        assert (await dns.ask("a.example", "A")).records == ("192.0.2.1",)
        await dns.close()


async def test_servfail_is_told_from_silence() -> None:
    """With one server sick and one silent the answer is SERVFAIL: somebody was heard."""
    async with Zone("a.example !timeout") as silent, Zone("a.example !servfail") as sick:
        dns = resolver(silent, sick, clock=SystemClock(), timeout_s=0.4)
        assert (await dns.ask("a.example", "A")).kind is Kind.SERVFAIL
        await dns.close()


async def test_truncated_answers_come_over_tcp() -> None:
    """An answer that does not fit into 1232 octets is fetched whole."""
    text = "\n".join(f'long.example TXT "{number:03d}{"x" * 200}"' for number in range(12))
    async with Zone(text) as zone:
        dns = resolver(zone)
        assert len((await dns.ask("long.example", "TXT")).records) == 12
        assert zone.streams == 1
        await dns.close()


@pytest.mark.parametrize(("records", "kind"), [(120, Kind.OK), (130, Kind.SERVFAIL), (3000, Kind.SERVFAIL)])
async def test_an_answer_of_too_many_records_is_not_read(records: int, kind: Kind) -> None:
    """Whoever wrote them, reading an answer of thousands would take longer than all else about a mail."""
    text = "\n".join(f"many.example A 198.51.{n % 256}.{n // 256}" for n in range(records))
    async with Zone(text) as zone:
        dns = resolver(zone)
        assert (await dns.ask("many.example", "A")).kind is kind
        assert zone.streams == 1
        await dns.close()


class Noise(Zone):
    """Says over UDP that an answer does not fit, and over TCP the answer with `edits`: (where, octet) that is
    another there, behind the id; without its last `cut` octets."""

    edits: Sequence[tuple[int, int]] = ()
    cut = 0

    def respond(self, wire: bytes, limit: int) -> bytes | None:
        octets = bytearray(super().respond(wire, limit) or b"")
        if limit < 65535:
            octets[2] |= 2  # TC, RFC 1035 section 4.1.1
            return bytes(octets)
        for at, octet in self.edits:
            octets[2 + at % (len(octets) - 2)] = octet
        return bytes(octets[: len(octets) - self.cut])


ASKED = [
    ("office.example", "MX"),
    ("office.example", "TXT"),
    ("www.office.example", "A"),
    ("mx1.office.example", "AAAA"),
    ("1.2.0.192.in-addr.arpa", "PTR"),
    ("broken.example", "A"),
]


@settings(deadline=None)
@given(
    st.sampled_from(ASKED),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6),
    st.integers(0, 8),
)
def test_whatever_a_server_says_is_an_answer(
    question: tuple[str, str], edits: list[tuple[int, int]], cut: int
) -> None:
    """No octet of an answer makes reading it raise: it says something, or it is no answer."""

    async def ask() -> None:
        async with Noise(TEXT) as zone:
            zone.edits, zone.cut = edits, cut
            dns = resolver(zone, timeout_s=0.2)
            answer = await dns.ask(*question)
            assert answer.kind in Kind
            assert answer.kind is Kind.OK or not answer.records
            assert zone.streams
            await dns.close()

    asyncio.run(ask())


async def test_servers_without_edns() -> None:
    """FORMERR to EDNS is answered by the same question without it (RFC 6891 section 7)."""
    async with Zone("a.example A 192.0.2.1", edns=False) as zone:
        dns = resolver(zone)
        assert (await dns.ask("a.example", "A")).records == ("192.0.2.1",)
        assert zone.questions == [("a.example", "A")] * 2
        await dns.close()
    async with Zone("a.example A 192.0.2.1", edns=False) as old, Zone("a.example !servfail") as sick:
        dns = resolver(old, sick)  # the old server is asked again before the sick one is believed
        assert (await dns.ask("a.example", "A")).records == ("192.0.2.1",)
        await dns.close()


async def test_closing_ends_what_flies() -> None:
    """close() does not wait for silent servers, and leaves no task behind."""
    async with Zone(TEXT) as zone:
        dns = resolver(zone, timeout_s=30)
        asker = asyncio.create_task(dns.ask("slow.example", "A"))
        async with asyncio.timeout(PATIENCE_S):
            while not zone.questions:  # noqa: ASYNC110 a datagram on its way
                await asyncio.sleep(0.001)
            await dns.close()
        with pytest.raises(asyncio.CancelledError):
            await asker


async def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came first goes first when there is no more room."""
    monkeypatch.setattr("libs.runtime.dns._ROOM", 10)
    async with Zone() as zone:
        dns = resolver(zone)
        for number in range(15):
            await dns.ask(f"n{number}.example", "A")
        known = [number for number in range(15) if dns.cached(f"n{number}.example", "A")]
        assert known == list(range(5, 15))
        await dns.close()


async def test_the_cache_is_bounded_in_octets(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may have 64 kB, and a stranger's many names as many such answers. What is asked again counts
    once."""
    monkeypatch.setattr("libs.runtime.dns._ROOM_OCTETS", 1000)
    clock = Clock()
    text = "\n".join(f'n{number}.example 60 TXT "{"x" * 240}"' for number in range(8))
    async with Zone(text) as zone:
        dns = resolver(zone, clock=clock)
        for number in (0, 1, 0, 0, 0, 2, 3):
            await dns.ask(f"n{number}.example", "TXT")
            clock.advance(100)
        assert [name for name, _ in dns._cache] == [f"n{number}.example" for number in (1, 0, 2, 3)]
        for number in (4, 5):
            await dns.ask(f"n{number}.example", "TXT")
        assert [name for name, _ in dns._cache] == [f"n{number}.example" for number in (2, 3, 4, 5)]
        await dns.close()


async def test_the_systems_servers() -> None:
    """Without servers in the configuration those of the machine are taken."""
    dns = Dns((), Clock())
    assert dns.servers
    assert all(port == 53 for _, port in dns.servers)
    await dns.close()
