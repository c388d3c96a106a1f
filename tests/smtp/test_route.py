"""Where mail for a domain goes, from real DNS answers; and which addresses are never dialled."""

import ipaddress
from typing import Any

import pytest

from libs.runtime.dns import Dns
from libs.smtp.lookup import look_up
from libs.smtp.route import Found, Ours, Place, Route, Target, forbidden, place, said
from tests.helpers.clock import Clock
from tests.helpers.zone import Zone

OURS = Ours(("mx1.backup.example", "mx2.backup.example"), ("198.51.100.1", "2001:db8::1"))
ADDRESSES = """
a.example           A 192.0.2.1
b.example           A 192.0.2.2
                    AAAA 2001:db8:1::2
c.example           A 192.0.2.3
empty.example       TXT "no address"
sick.example        !servfail
half.example        A 192.0.2.4
half.example        !servfail AAAA
alias.example       CNAME a.example
disguise.example    A 198.51.100.1
mx1.backup.example  A 198.51.100.1
mx2.backup.example  A 198.51.100.2
"""


async def route(
    mx: str, domain: str = "office.example", shuffle: Any = list.sort, place: Place | None = None
) -> Route:
    async with Zone(ADDRESSES + mx) as zone:
        dns = Dns(zone.servers, Clock(), 1.0)
        found = await look_up(dns, domain, OURS, shuffle, place)
        await dns.close()
        return found


def records(*mx: str) -> str:
    return "\n".join(f"office.example MX {record}" for record in mx)


async def test_order() -> None:
    """Better preferences first, all addresses of a host, equal preferences together (RFC 5321 section
    5.1)."""
    found = await route(records("20 b.example", "10 c.example", "20 a.example"))
    assert found.found is Found.OK
    assert found.preferences == (
        (Target("c.example", "192.0.2.3"),),
        (
            Target("a.example", "192.0.2.1"),
            Target("b.example", "192.0.2.2"),
            Target("b.example", "2001:db8:1::2"),
        ),
    )
    assert found.targets[0].host == "c.example"
    assert found.hosts == ("c.example", "a.example", "b.example")
    assert not found.names_us


async def test_equal_preferences_are_shuffled_alone() -> None:
    """The shuffle sees the targets of one preference at a time."""
    seen: list[list[Target]] = []
    await route(
        records("10 a.example", "20 b.example", "20 c.example"), shuffle=lambda t: seen.append(list(t))
    )
    assert [{target.host for target in targets} for targets in seen] == [
        {"a.example"},
        {"b.example", "c.example"},
    ]


async def test_implicit_mx() -> None:
    """Without MX the domain's own address takes its mail; an alias as MX host is followed."""
    assert (await route("office.example A 192.0.2.7")).preferences == (
        (Target("office.example", "192.0.2.7"),),
    )
    assert (await route(records("10 alias.example"))).targets == (Target("alias.example", "192.0.2.1"),)


@pytest.mark.parametrize(
    ("mx", "found"),
    [
        ("", Found.NXDOMAIN),
        ("office.example MX 0 .", Found.NULL_MX),
        ("office.example TXT x", Found.NONE),
        ("office.example !timeout", Found.TROUBLE),
        ("office.example !servfail", Found.TROUBLE),
        (records("10 empty.example"), Found.NONE),
        (records("10 nowhere.example"), Found.NONE),
        (records("10 sick.example"), Found.TROUBLE),
        (records("10 sick.example", "20 empty.example"), Found.TROUBLE),
        (records("10 mx1.backup.example", "20 a.example"), Found.NONE),
        ("office.example A 198.51.100.1", Found.NONE),
    ],
)
async def test_no_targets(mx: str, found: Found) -> None:
    """Each reason why nothing can be dialled is told from the others."""
    answer = await route(mx)
    assert (answer.found, answer.targets, answer.names_us) == (found, (), False)


async def test_a_null_mx_beside_others_is_ignored() -> None:
    """RFC 7505 section 3: the null MX counts only where it is the only record."""
    found = await route(records("0 .", "10 a.example"))
    assert found.targets == (Target("a.example", "192.0.2.1"),)


@pytest.mark.parametrize(
    ("mx", "hosts"),
    [
        (records("10 a.example", "20 mx1.backup.example", "30 b.example"), ("a.example",)),
        (records("10 a.example", "20 b.example", "20 mx2.backup.example"), ("a.example",)),
        (records("10 a.example", "20 disguise.example", "30 b.example"), ("a.example",)),
        (records("10 a.example", "20 MX1.Backup.Example"), ("a.example",)),
        (records("10 a.example", "15 b.example", "20 mx1.backup.example", "30 mx2.backup.example"),
         ("a.example", "b.example")),
    ],
)  # fmt: skip
async def test_the_loop_rule(mx: str, hosts: tuple[str, ...]) -> None:
    """Where one of our names or addresses appears, that preference and all worse are dropped."""
    found = await route(mx)
    assert (found.hosts, found.names_us) == (hosts, True)


async def test_a_preference_that_could_not_be_looked_up_stays_empty() -> None:
    """What answers further down is not the best preference then; half an answer is enough to dial."""
    found = await route(records("10 sick.example", "20 a.example"))
    assert found.preferences == ((), (Target("a.example", "192.0.2.1"),))
    assert found.found is Found.OK
    found = await route(records("10 half.example", "20 a.example"))
    assert found.preferences[0] == (Target("half.example", "192.0.2.4"),)


async def test_hundreds_of_records_cost_little() -> None:
    """Of an MX set only the best hosts are looked up."""
    hosts = [f"h{number}.example" for number in range(100)]
    mx = records(*(f"{number} {host}" for number, host in enumerate(hosts)))
    addresses = "\n".join(f"{host} A 192.0.2.1" for host in hosts)
    assert len((await route(f"{mx}\n{addresses}")).hosts) == 20


@pytest.mark.parametrize(
    ("domain", "address"),
    [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::2]", "2001:db8::2"), ("[nonsense]", "")],
)
async def test_address_literals(domain: str, address: str) -> None:
    """A literal is its own route (RFC 5321 section 4.1.3)."""
    found = await route("", domain)
    assert found.targets == ((Target(domain, address),) if address else ())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("c.example", (Target("c.example", "192.0.2.3"),)),
        ("C.Example:2525", (Target("c.example", "192.0.2.3", 2525),)),
        ("b.example:26", (Target("b.example", "192.0.2.2", 26), Target("b.example", "2001:db8:1::2", 26))),
        ("[192.0.2.9]:2525", (Target("[192.0.2.9]", "192.0.2.9", 2525),)),
        ("[2001:DB8:0::9]", (Target("[2001:db8::9]", "2001:db8::9"),)),
        ("mx1.backup.example", ()),
        ("disguise.example", ()),
        ("empty.example", ()),
    ],
)
async def test_where_the_owner_says(text: str, found: tuple[Target, ...]) -> None:
    """A host of his own in the place of his MX records; one of us is none (RFC 5321 section 6.3)."""
    told = await route(records("10 a.example"), place=place(text))
    assert told.targets == found
    assert not told.names_us


@pytest.mark.parametrize("text", ["", ":25", "a.example:", "a.example:x", "::1", "[a.example]", "a b:25"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 whatever its text is, domains.py says what would be right
        place(text)


def test_what_the_owner_says() -> None:
    """A name for the certificate goes with his MX records, too."""
    assert said("", "") is None
    assert said("a.example:26", "x.example") == Place("a.example", 26, "x.example")
    assert said("", "x.example") == Place("", 0, "x.example")


async def test_expires_with_its_records() -> None:
    """The route is asked for again when the first of its records ends."""
    clock = Clock()
    async with Zone(f"$TTL 600\n{records('10 a.example')}\na.example 60 A 192.0.2.1") as zone:
        dns = Dns(zone.servers, clock, 1.0)
        found = await look_up(dns, "office.example", OURS, list.sort)
        await dns.close()
    assert found.expires == clock.mono() + 1  # of the answer that there is no AAAA


FORBIDDEN = """
0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.192 192.0.2.1 192.168.1.1 198.18.0.1 198.51.100.7 203.0.113.7 224.0.0.1 239.1.1.1
240.0.0.1 255.255.255.255 168.63.129.16 :: ::1 ::ffff:8.8.8.8 ::ffff:127.0.0.1 ::7f00:1 64:ff9b::7f00:1
64:ff9b::a00:1 64:ff9b:1::1 100::1 2001::1 2001:db8::5 2002:7f00:1:: fc00::1 fd00:ec2::254 fe80::1
fe80::1%eth0 fec0::1 ff02::1 mx.example 1.2.3 127.1 0x7f000001 8.8.8.8/32
"""


@pytest.mark.parametrize("address", ["", *FORBIDDEN.split()])
def test_forbidden(address: str) -> None:
    """Nothing inside, nothing that is no address, and no other spelling of either."""
    assert forbidden(address, ())


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "100.63.255.255", "172.32.0.1", "192.169.0.1", "2a00:1450:4001::1b", "64:ff9b::808:808"],
)
def test_allowed(address: str) -> None:
    """What is out on the internet may be dialled, up to the borders of the forbidden ranges."""
    assert not forbidden(address, ())


def test_exceptions() -> None:
    """An allowed network lifts the ban for itself, never for our own addresses, and not for a mapped form."""
    allow = (ipaddress.ip_network("127.0.0.0/8"),)
    assert not forbidden("127.0.0.2", allow)
    assert forbidden("127.0.0.9", allow, ("127.0.0.9",))
    assert forbidden("::ffff:127.0.0.2", allow)
    assert forbidden("10.0.0.1", allow)
