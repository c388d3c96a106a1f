"""Nobody has all of what there is: connections of an address, slots, turns. Counted, not timed."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.deliver.addresses import CONNECTIONS, Addresses
from services.deliver.carrier import TURN
from tests.deliver.house import ZONE, house
from tests.helpers.patience import until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

BACKLOG = 400
OTHER = (
    ZONE
    + """
other.example       MX 10 mx.office.example
                    MX 20 mx1.backup.example
"""
)


async def test_a_backlog_and_a_single_mail_at_one_server(tmp_path: Path) -> None:
    """Two domains share a server, and the one has all connections to it: the other's only mail waits for
    a turn or two of each, and not for the backlog."""
    async with Zone(OTHER) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain("other.example")
        ids = [await home.queue(content=b"Subject: %d\r\n\r\nx\r\n" % n) for n in range(BACKLOG)]
        async with home.delivering():
            await primary.until(lambda: primary.open_visits == CONNECTIONS)
            single = await home.queue("kim@other.example", domain="other.example")
            before = len(primary.received)
            await until(lambda: any("kim" in mail.recipients[0][0] for mail in primary.received))
            at = next(n for n, mail in enumerate(primary.received) if "kim" in mail.recipients[0][0])
            assert at - before <= 2 * CONNECTIONS * TURN
            await home.ended(ids)
        assert (await home.state("other.example"))[single] is None
        assert len(primary.received) == BACKLOG + 1
        assert primary.most_at_once <= CONNECTIONS


async def test_a_backlog_and_a_single_mail_elsewhere(tmp_path: Path) -> None:
    """A server of its own: what the other one is busy with holds up nothing."""
    apart = OTHER.replace("other.example       MX 10 mx.office", "other.example       MX 10 mx.other")
    async with (
        Zone(f"{apart}mx.other.example A 127.0.0.2\n") as zone,
        Primary() as primary,
        Primary(address="127.0.0.2", port=primary.port) as other,
        house(tmp_path, primary, zone.servers) as home,
    ):
        await home.domain("other.example")
        ids = [await home.queue(content=b"Subject: %d\r\n\r\nx\r\n" % n) for n in range(BACKLOG)]
        async with home.delivering():
            await primary.until(lambda: primary.open_visits == CONNECTIONS)
            before = len(primary.received)
            await home.queue("kim@other.example", domain="other.example")
            await other.got(1)
            assert len(primary.received) - before <= BACKLOG / 4
            await home.ended(ids)


async def test_the_rate_of_a_domain(tmp_path: Path) -> None:
    """One a minute: the second mail stays where it is, and keeps no connection busy until its time comes."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain("office.example", max_rate=1)
        async with home.sharing() as common, home.shard(common) as shard:
            first, second = await home.queue(), await home.queue()
            await primary.got(1)
            hop = shard.partition.hops["office.example"]
            assert hop.next_mail > home.clock.mono() + 30
            await until(lambda: not hop.carriers)  # it would only wait
            assert len(primary.received) == 1
            hop.next_mail = home.clock.mono()
            shard.partition.stir("office.example")
            await home.ended([first, second])
        assert len(primary.received) == 2


async def test_an_even_rate(tmp_path: Path) -> None:
    """3000 a minute over several connections: each mail has its own 20 ms."""
    async with Zone(ZONE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain("office.example", max_rate=3000)
        ids = [await home.queue() for _ in range(30)]
        async with home.delivering():
            began = home.clock.mono()
            await home.ended(ids)
            assert home.clock.mono() - began >= 29 * 0.02
        assert len(primary.received) == 30


# --- addresses ---


async def test_cancelled_while_the_last_one_leaves() -> None:
    """Who gave up waiting in the same moment finds the line gone."""
    addresses = Addresses(1, 1)

    async def wait() -> None:
        async with addresses.room("a"):
            raise AssertionError("it is taken")

    async with addresses.room("a"):
        waiting = asyncio.create_task(wait())
        await until(lambda: addresses.wanted("a"))
        waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert not addresses._lines


async def test_shares_of_the_limits() -> None:
    """Other processes dial the same addresses: each keeps to its part, one at least."""
    addresses = Addresses()
    limits = []
    for share in (1.0, 0.5, 1 / 3, 1 / 12, 0.0):
        addresses.share = share
        limits.append((addresses.limit(), addresses.limit(probe=True)))
    assert limits == [(5, 1), (2, 1), (1, 1), (1, 1), (1, 1)]


async def test_more_room_with_more_partitions() -> None:
    """Who waits is let in when partitions are gained."""
    addresses = Addresses()
    addresses.share = 0.2
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(addresses.room("a"))
        waiting = asyncio.create_task(stack.enter_async_context(addresses.room("a")))
        await until(lambda: addresses.wanted("a"))
        addresses.share = 1.0
        await waiting
        assert not addresses.wanted("a")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=40), st.randoms())
def test_never_too_many_and_nobody_forgotten(comers: list[tuple[str, bool, bool]], chance: object) -> None:
    """Whoever comes, leaves or is cancelled, in whatever order: the limits hold, in the order of coming, and
    nothing is left at the end."""

    async def run() -> None:
        addresses = Addresses(2, 1)
        inside: dict[tuple[str, bool], list[int]] = {}
        order: dict[tuple[str, bool], list[int]] = {}

        async def visit(number: int, address: str, *, probe: bool) -> None:
            async with addresses.room(address, probe=probe):
                here = inside.setdefault((address, probe), [])
                here.append(number)
                order.setdefault((address, probe), []).append(number)
                try:
                    assert len(here) <= addresses.limit(probe=probe)
                    await asyncio.sleep(0)
                finally:
                    here.remove(number)

        tasks = []
        for number, (address, probe, cancel) in enumerate(comers):
            tasks.append(asyncio.create_task(visit(number, address, probe=probe)))
            if chance.random() < 0.5:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            if cancel:
                chance.choice(tasks).cancel()  # type: ignore[attr-defined]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not [task for task in tasks if not task.cancelled() and task.exception()]
        assert all(numbers == sorted(numbers) for numbers in order.values())
        assert not addresses._lines

    asyncio.run(run())
