"""Which address of a primary is asked: real sockets at several addresses of loopback, of both families."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from libs.mail.knowledge import RecipientStatus, RecipientTry, Status
from libs.smtp.client import CALLOUT, Connection, Dialer
from services.verify.callouts import NOBODY
from services.verify.reaching import BUSY, Reach
from tests.helpers.primary import CAPABILITIES, Primary, server_context
from tests.verify.house import ANN, BOB, House, at, house, until

NO_PIPELINING = tuple(line for line in CAPABILITIES if line != "PIPELINING")
FOUR = """
office.example      MX 10 mx.office.example
office.example      MX 20 mx1.backup.example
mx.office.example   A 127.0.0.2
                    A 127.0.0.3
                    A 127.0.0.4
                    A 127.0.0.5
"""


def reach(it: House, *, per_address: int = 2, within: float = 2.0) -> Reach:
    config = it.deps.config
    dialer = Dialer(config.dial, config.host, it.deps.clock, CALLOUT)
    return Reach(it.deps, dialer, per_address=per_address, per_s=100.0, burst=200.0, within=within)


class Four(NamedTuple):
    """A server at each of the four addresses."""

    it: House
    servers: list[Primary]

    @property
    def visited(self) -> int:
        return sum(bool(server.visits) for server in self.servers)


@asynccontextmanager
async def four(tmp_path: Path) -> AsyncIterator[Four]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(at())]
        for number in (3, 4, 5):
            beside = Primary(address=f"127.0.0.{number}", port=servers[0].port)
            servers.append(await stack.enter_async_context(beside))
        yield Four(await stack.enter_async_context(house(tmp_path, servers[0], zone=FOUR)), servers)


async def test_silent_addresses_do_not_hide_the_one_that_answers(tmp_path: Path) -> None:
    """Three of four take the connection and say nothing, in whatever order they come: the fourth is found."""
    async with four(tmp_path) as (it, servers):
        for silent in servers[1:]:
            silent.say("BANNER", "!silent")
        reaching = reach(it)
        found = await reaching.connect("office.example")
        assert isinstance(found, Connection)
        assert found.target.address == "127.0.0.2"
        reaching.leave(found)
        await until(lambda: not any(server.open_visits for server in servers))


async def test_a_slow_greeting_is_waited_for(tmp_path: Path) -> None:
    """Each greets later than its share of the time: no one is given up for the next."""
    async with four(tmp_path) as (it, servers):
        for slow in servers:
            slow.slow(0.7, "BANNER")
        reaching = reach(it)
        found = await reaching.connect("office.example")
        assert isinstance(found, Connection)
        reaching.leave(found)
        await until(lambda: not any(server.open_visits for server in servers))


async def test_all_are_tried_before_unreachable_is_said(tmp_path: Path) -> None:
    """Nobody greets: each address was dialled by then, and every connection is gone."""
    async with four(tmp_path) as place:
        for silent in place.servers:
            silent.say("BANNER", "!silent")
        found = await reach(place.it, within=0.6).connect("office.example")
        assert not isinstance(found, Connection)
        assert (found.reason, place.visited) == ("unreachable", 4)
        await until(lambda: not any(server.open_visits for server in place.servers))


async def test_a_block_at_one_address_wins_over_silence_at_the_others(tmp_path: Path) -> None:
    """The owner is told what to do about it; a dead address has no such words."""
    async with four(tmp_path) as place:
        for silent in place.servers[1:]:
            silent.say("BANNER", "!silent")
        place.servers[0].say("BANNER", "554 5.7.1 your address is blocked")
        found = await reach(place.it, within=0.6).connect("office.example")
        assert not isinstance(found, Connection)
        assert (found.blocked, found.reply) == (True, "554 5.7.1 your address is blocked")


async def test_full_is_not_unreachable(tmp_path: Path) -> None:
    """Who waits for a slot in vain has learnt nothing of the primary."""
    async with at() as primary, house(tmp_path, primary) as it:
        reaching = reach(it, per_address=1, within=0.3)
        first = await reaching.connect("office.example")
        assert isinstance(first, Connection)
        assert await reaching.connect("office.example") is BUSY
        assert not reaching.wanted("127.0.0.2")
        waiting = asyncio.create_task(reaching.connect("office.example"))
        await until(lambda: reaching.wanted("127.0.0.2"))
        reaching.leave(first)
        second = await waiting
        assert isinstance(second, Connection)
        reaching.leave(second)


async def test_many_domains_of_one_server(tmp_path: Path) -> None:
    """Two sessions at a time for all of them; one that has nothing to ask makes room for the next."""
    domains = [f"d{number}.example" for number in range(24)]
    zone = "mx.office.example A 127.0.0.2\nmx1.backup.example A 127.0.0.9\n" + "\n".join(
        f"{domain} MX 10 mx.office.example\n{domain} MX 20 mx1.backup.example" for domain in domains
    )
    async with at() as primary, house(tmp_path, primary, zone=zone) as it:
        for domain in domains:
            await it.add(domain)
        answers = await asyncio.gather(*(it.ask(f"ann@{domain}") for domain in domains))
        assert {type(answer) for answer in answers} == {RecipientStatus}
        assert primary.most_at_once == 2


@pytest.mark.parametrize("address", ["127.0.0.2", "::1"])
async def test_both_families(tmp_path: Path, address: str) -> None:
    """A primary with an address of each family is asked at the one that answers."""
    zone = """
    office.example      MX 10 mx.office.example
    office.example      MX 20 mx1.backup.example
    mx.office.example   A 127.0.0.2
                        AAAA ::1
    """
    async with Primary(address=address, known={ANN}) as primary, house(tmp_path, primary, zone=zone) as it:
        await it.add()
        await it.ask(ANN)
        await it.ask(BOB)
        assert (it.status(ANN), it.status(BOB)) == (Status.DELIVERABLE, Status.UNDELIVERABLE)


@pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING])
async def test_every_command_of_a_session(tmp_path: Path, capabilities: tuple[str, ...]) -> None:
    """MAIL with our postmaster, a RCPT each, RSET, again; QUIT at the end, and never DATA; with and without
    PIPELINING."""
    async with at(known={ANN}, capabilities=capabilities) as primary, house(tmp_path, primary) as it:
        await it.add()
        await it.ask(ANN)
        await it.ask(BOB)
        await it.callouts.drain()
        await primary.until(lambda: not primary.open_visits)
        (visit,) = primary.visits
        transaction = ["MAIL FROM:<postmaster@mx1.backup.example>", "RCPT TO:<{}>", "RSET"]
        asked = [line.format(mailbox) for mailbox in (ANN, BOB) for line in transaction]
        said = [line for line in visit.commands if NOBODY not in line]  # asked first, in the same transaction
        assert said == ["EHLO mx1.backup.example", *asked, "QUIT"]
        assert len(visit.commands) == len(said) + 1
        assert (visit.client, primary.violations) == ("127.0.0.9", [])


async def test_tls_where_it_is_offered(tmp_path: Path) -> None:
    """And that it is offered is known then."""
    async with at(tls=server_context("mx.office.example")) as primary, house(tmp_path, primary) as it:
        await it.add()
        await it.ask(ANN)
        assert primary.visits[0].tls
        facts = await until(it.facts)
        assert facts.starttls


async def test_a_forbidden_address_beside_an_allowed_one(tmp_path: Path) -> None:
    """What the name of an MX has besides is not dialled; the other address is."""
    zone = """
    office.example      MX 10 mx.office.example
    office.example      MX 20 mx1.backup.example
    mx.office.example   A 10.0.0.1
                        A 169.254.169.254
                        AAAA ::ffff:127.0.0.2
                        A 127.0.0.2
    """
    async with at() as primary, house(tmp_path, primary, zone=zone) as it:
        await it.add()
        await it.ask(ANN)
        assert it.status(ANN) is Status.DELIVERABLE


async def test_a_worse_mx_teaches_nothing(tmp_path: Path) -> None:
    """With every address of the best preference dead, what a worse one would say is not taken for knowledge:
    neither its yes nor its no."""
    zone = """
    office.example      MX 10 mx.office.example
                        MX 15 relay.example
                        MX 20 mx1.backup.example
    mx.office.example   A 127.0.0.2
                        A 127.0.0.3
    relay.example       A 127.0.0.4
    """
    async with (
        at() as primary,
        Primary(address="127.0.0.4", port=primary.port, known={ANN}),
        house(tmp_path, primary, zone=zone) as it,
    ):
        await primary.down()
        await it.add()
        for mailbox in (ANN, BOB):
            assert isinstance(await it.ask(mailbox), RecipientTry)
            assert it.status(mailbox) is None
