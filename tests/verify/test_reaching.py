"""Which address of a primary is asked: real sockets at several addresses of loopback, of both families."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from libs.mail.knowledge import Imported, RecipientStatus, RecipientTry, Status
from libs.mail.records import Overrides
from libs.smtp.client import CALLOUT, Connection, Dialer
from services.verify.asking import NEGATIVES
from services.verify.callouts import NOBODY
from services.verify.reaching import BUSY, Reach
from tests.helpers.clock import Clock
from tests.helpers.patience import until
from tests.helpers.primary import CAPABILITIES, Primary, server_context
from tests.verify.house import ANN, BOB, EVE, House, asked, at, house

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


async def test_where_the_owner_says_that_it_is(tmp_path: Path) -> None:
    """Recipients are asked about where the mail goes, and MX records are no way around that."""
    async with at() as primary, Primary(address="127.0.0.3") as own, house(tmp_path, primary) as it:
        await it.add(overrides=Overrides(primary_host=f"[127.0.0.3]:{own.port}"))
        await it.ask("ann@office.example")
        assert own.visits
        await own.down()
        await own.until(lambda: not own.open_visits)
        tried = await it.ask("bob@office.example")
        assert isinstance(tried, RecipientTry)
        assert tried.last_outcome == "unreachable"
        assert not primary.visits


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


WORSE = """
office.example      MX 10 mx.office.example
                    MX 15 relay.example
                    MX 17 other.example
                    MX 20 mx1.backup.example
                    MX 20 beside.example
                    MX 30 late.example
mx.office.example   A 127.0.0.2
                    A 127.0.0.3
relay.example       A 127.0.0.4
other.example       A 127.0.0.5
beside.example      A 127.0.0.6
late.example        A 127.0.0.7
"""
CLOCK_S = 1_800_000_000.0


class Worse(NamedTuple):
    """`servers`: the best, the two worse ones, those that are no better than we are."""

    it: House
    servers: list[Primary]
    clock: Clock

    def asked(self, number: int) -> list[str]:
        return asked(self.servers[number])


@asynccontextmanager
async def worse(tmp_path: Path) -> AsyncIterator[Worse]:
    """The best preference knows BOB, the worse ones ANN; nobody of the others may ever be asked."""
    async with AsyncExitStack() as stack:
        best = await stack.enter_async_context(at(known={BOB}))
        servers = [best]
        for number in (4, 5, 6, 7):
            server = Primary(address=f"127.0.0.{number}", port=best.port, known={ANN})
            servers.append(await stack.enter_async_context(server))
        clock = Clock(CLOCK_S)
        it = await stack.enter_async_context(house(tmp_path, best, zone=WORSE, clock=clock))
        await it.add()
        yield Worse(it, servers, clock)
        assert all(server.visits == [] for server in servers[3:])


async def told(it: House, mailbox: str) -> tuple[str, str]:
    """Why the best preference said nothing, and what a worse one said."""
    answer = await it.ask(mailbox)
    assert isinstance(answer, RecipientTry)
    assert it.status(mailbox) is None
    return answer.last_outcome, answer.elsewhere


async def test_a_worse_mx_serves_who_asks_and_teaches_nothing(tmp_path: Path) -> None:
    """With every address of the best preference dead a worse one is asked: its yes and its no are for those
    who ask, every time, and never a status. The best is dialled again after 15 s."""
    async with worse(tmp_path) as place:
        await place.servers[0].down()
        for _ in range(2):
            assert await told(place.it, ANN) == ("unreachable", "deliverable")
            assert await told(place.it, EVE) == ("unreachable", "undeliverable")
        assert place.asked(1) == [ANN, EVE, ANN, EVE]
        assert place.asked(2) == []
        await place.servers[0].up()
        place.clock.advance(16)
        await place.it.ask(ANN)
        assert place.it.status(ANN) is Status.UNDELIVERABLE
        assert place.asked(0) == [ANN]
        assert len(place.asked(1)) == 4


async def test_the_worst_is_asked_where_a_better_one_is_dead_too(tmp_path: Path) -> None:
    """As far as they are above us; with all of them dead nobody is dialled again for a moment."""
    async with worse(tmp_path) as place:
        await place.servers[0].down()
        await place.servers[1].down()
        assert await told(place.it, EVE) == ("unreachable", "undeliverable")
        await place.servers[2].down()
        await until(lambda: not place.servers[2].open_visits)
        place.clock.advance(16)
        assert await told(place.it, EVE) == ("unreachable", "")
        await place.servers[2].up()
        assert await told(place.it, "new@office.example") == ("unreachable", "")
        assert place.asked(2) == [EVE]


async def test_who_is_known_is_no_question_for_a_worse_mx(tmp_path: Path) -> None:
    """Nor is a background question, nor whether the best preference is up."""
    async with worse(tmp_path) as place:
        await place.it.ask(BOB)
        assert place.it.status(BOB) is Status.DELIVERABLE
        await place.servers[0].down()
        await place.it.advance(7 * 86_400)
        await told(place.it, EVE)
        await place.it.ask(BOB)
        await place.it.ask(ANN, anew=True)
        assert place.it.status(BOB) is Status.DELIVERABLE
        assert place.asked(1) == [EVE]


async def test_a_worse_mx_is_no_way_around_the_budget(tmp_path: Path) -> None:
    """The 31st unknown recipient of an hour is not asked about there either."""
    async with worse(tmp_path) as place:
        await place.servers[0].down()
        for number in range(NEGATIVES):
            name = f"guess{number}@office.example"
            assert await told(place.it, name) == ("unreachable", "undeliverable")
        assert await told(place.it, EVE) == ("budget", "")
        assert len(place.asked(1)) == NEGATIVES


async def test_a_worse_mx_is_left_for_the_best_one(tmp_path: Path) -> None:
    """However many questions come one after the other: once it is time the best one is dialled."""
    async with worse(tmp_path) as place:
        await place.servers[0].down()
        place.servers[1].known = None
        assert await told(place.it, "u0@office.example") == ("unreachable", "deliverable")
        await place.servers[0].up()
        number = 0
        while not place.asked(0):
            number += 1
            place.clock.advance(2)
            await place.it.ask(f"u{number}@office.example")
            assert number < 20
        assert 7 <= number <= 9


async def test_a_block_is_not_got_around(tmp_path: Path) -> None:
    """Who refuses us is reached: no worse one is asked in its place."""
    async with worse(tmp_path) as place:
        place.servers[0].say("BANNER", "554 5.7.1 your address is blocked")
        assert await told(place.it, ANN) == ("policy", "")
        assert place.asked(1) == []


async def test_the_best_one_is_ourselves(tmp_path: Path) -> None:
    """By a name and an address that we do not know: whoever is worse is no better than we are."""
    async with worse(tmp_path) as place:
        place.servers[0].name = "mx1.backup.example"
        for name in (ANN, EVE):
            assert await told(place.it, name) == ("ourselves", "")
        assert place.asked(1) == []


async def test_an_import_is_no_answer_of_a_worse_mx(tmp_path: Path) -> None:
    """What it said a moment ago is not handed on to who asks now."""
    async with worse(tmp_path) as place:
        await place.servers[0].down()
        assert await told(place.it, EVE) == ("unreachable", "undeliverable")
        await place.it.put("callouts", EVE, Imported(EVE, "root"))
        tried = await until(lambda: (found := place.it.tried(EVE)) and found.imported and found)
        assert tried.elsewhere == ""


async def test_a_worse_mx_that_breaks_off(tmp_path: Path) -> None:
    """Then nothing is known, as without it."""
    async with worse(tmp_path) as place:
        await place.servers[0].down()
        place.servers[1].say("RCPT", "!drop", to=ANN)
        assert await told(place.it, ANN) == ("unreachable", "")
        place.servers[1].say("RCPT", "451 4.3.0 later", to=EVE)
        assert await told(place.it, EVE) == ("unreachable", "")
