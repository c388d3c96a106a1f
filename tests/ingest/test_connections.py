"""Who may connect: in all, per client network, and how many a second. No socket, no clock."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.buckets import Buckets
from services.ingest.connections import Connections, Peer, Rates, peer_at
from services.ingest.limits import NO_ROOM, Limit, limits_by_reply, patience_s

MANY = 10_000
EXEMPT = [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8:5::/48")]


def connections(
    *, most: int = MANY, per_client: int = MANY, new: int = MANY, new_per_client: int = MANY
) -> Connections:
    return Connections(Rates(most, per_client, new, new_per_client, 3600.0, 500))


def client(name: str, *, exempt: bool = False) -> Peer:
    return Peer(name, name, exempt)


def test_a_client_is_an_address_or_a_64() -> None:
    """An IPv4 address and an IPv6 /64 are one client; a mapped IPv4 address is IPv4."""
    assert peer_at("192.0.2.1", ()).network == peer_at("::ffff:192.0.2.1", ()).network == "192.0.2.1"
    one, other = peer_at("2001:db8:1:2::9", ()), peer_at("2001:db8:1:2:ffff::1", ())
    assert one.network == other.network == "2001:db8:1:2::/64"
    assert peer_at("2001:db8:1:3::9", ()).network != one.network
    assert peer_at("fe80::1%eth0", ()).network == "fe80::/64"
    assert peer_at("", ()) == Peer("", "")


def test_exempt_networks() -> None:
    """A client in one of the networks is exempt, in whatever way its address is written."""
    addresses = ("192.0.2.9", "::ffff:192.0.2.9", "2001:db8:5::1", "198.51.100.1", "2001:db8:6::1", "unix")
    assert [peer_at(each, EXEMPT).exempt for each in addresses] == [True, True, True, False, False, False]


def test_connections_are_counted_per_client_and_in_all() -> None:
    """Each limit by its name; closing gives the place back, and who was refused took none."""
    at = connections(most=3, per_client=2)
    a, b, c = client("a"), client("b"), client("c")
    assert [at.opened(a, 0.0) for _ in range(4)] == [None, None, *[Limit.CLIENT_CONNECTIONS] * 2]
    assert at.opened(b, 0.0) is None
    assert at.opened(c, 0.0) is Limit.CONNECTIONS
    at.closed(c, Limit.CONNECTIONS)
    at.closed(a, None)
    assert at.open == 2
    assert at.opened(c, 0.0) is None


def test_new_connections_a_second() -> None:
    """So many at once, and so many more each second, of a client and of all."""
    at = connections(new_per_client=2, new=3)
    a, b, c = client("a"), client("b"), client("c")
    assert [at.opened(a, 0.0) for _ in range(3)] == [None, None, Limit.CLIENT_CONNECTION_RATE]
    assert at.opened(b, 0.0) is None
    assert at.opened(b, 0.0) is Limit.CONNECTION_RATE
    assert at.opened(a, 0.4) is Limit.CLIENT_CONNECTION_RATE
    assert at.opened(a, 0.5) is None
    assert at.opened(a, 0.5) is Limit.CLIENT_CONNECTION_RATE
    assert [at.opened(c, 9.0), at.opened(c, 9.0), at.opened(b, 9.0)] == [None] * 3
    assert at.opened(b, 9.0) is Limit.CONNECTION_RATE


def test_who_is_refused_costs_nobody_else() -> None:
    """A client that is over its own limits does not use up what all have together."""
    at = connections(new=3, new_per_client=2)
    flooding, other = client("flooding"), client("other")
    for _ in range(1000):
        at.opened(flooding, 0.0)
    assert at.opened(other, 0.0) is None


def test_an_exempt_client_is_never_refused() -> None:
    """And what it does is no other client's loss."""
    at = connections(most=2, per_client=1, new=2, new_per_client=1)
    monitor = client("m", exempt=True)
    assert [at.opened(monitor, 0.0) for _ in range(5)] == [None] * 5
    for _ in range(5):
        at.closed(monitor, None)
    assert at.opened(client("a"), 0.0) is None
    assert (at.lasts_s(monitor), at.data_rate(monitor)) == (float("inf"), 0)
    assert (at.lasts_s(client("a")), at.data_rate(client("a"))) == (3600.0, 500)


def test_a_blocked_client_waits_for_its_quit_in_a_room_of_its_own() -> None:
    """RFC 5321 3.1 has it stay until QUIT. A hundred may, for 30 s, and they take no place of others."""
    at = connections(most=2, per_client=2)
    blocked = client("b")._replace(blocked=True)
    said = [at.opened(blocked, 0.0) for _ in range(101)]
    assert said == [*[Limit.BLOCKED_CLIENTS] * 100, Limit.CONNECTIONS]
    assert (at.open, at.lasts_s(blocked)) == (0, 30.0)
    at.closed(blocked, Limit.CONNECTIONS)
    assert at.opened(blocked, 0.0) is Limit.CONNECTIONS
    at.closed(blocked, Limit.BLOCKED_CLIENTS)
    assert at.opened(blocked, 0.0) is Limit.BLOCKED_CLIENTS


def test_a_flood_from_many_networks_is_counted_in_bounded_memory() -> None:
    """Half a million networks: what is remembered of them is bounded, the limit in all holds."""
    at = connections(new=100, new_per_client=1)
    let_in = [at.opened(client(str(number)), 0.0) for number in range(500_000)].count(None)
    assert let_in == 100
    assert len(at._new_per_client) == 100
    buckets = Buckets(5, room=1000)
    for number in range(50_000):
        buckets.take(str(number), 0.0)
    assert len(buckets) == 1000
    assert not buckets.spent("0", 0.0)  # forgotten is full


@given(st.integers(1, 50), st.lists(st.floats(0.0, 3.0), max_size=200))
def test_a_bucket_gives_its_rate_and_no_more(most: int, gaps: list[float]) -> None:
    """In any time t at most `most` + `most` * t are had, whatever the rhythm."""
    buckets, now, had = Buckets(most), 0.0, 0
    for gap in gaps:
        now += gap
        if not buckets.spent("a", now):
            buckets.take("a", now)
            had += 1
        assert had <= most + most * now + 1e-6


def test_a_slow_content_is_waited_for_as_long_as_its_rate_allows() -> None:
    """RFC 5321 has no figure for this: the grace, and a second more for each second's worth of octets."""
    assert patience_s(0, 0.0, rate=500, grace_s=300.0) == 300.0
    assert patience_s(0, 300.0, rate=500, grace_s=300.0) == 0.0
    assert patience_s(5000, 300.0, rate=500, grace_s=300.0) == 10.0
    assert patience_s(10, 9e9, rate=0, grace_s=300.0) == 300.0


def test_every_limit_has_a_reply_of_its_own() -> None:
    """So that the metric can tell them apart, and an operator who reads a reply, too."""
    by_reply = limits_by_reply("mx1.backup.example")
    assert set(by_reply.values()) == set(Limit)
    assert len(by_reply) == len(Limit) + 1  # unknown recipients: with and without an accepted one
    assert all(reply.code in (421, 451, 452, 552, 550, 554) for reply in by_reply)
    assert {say("h") for say in NO_ROOM.values()} <= set(limits_by_reply("h"))
