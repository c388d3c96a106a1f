"""Processes of deliver come and go, freeze and wake while they drain the queues of many domains.

Each mail is handed over; a process that froze or was killed with mails in hand costs each of those one
duplicate at most. Brokers that go away meanwhile cost nothing.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.kafka.cluster import Cluster
from tests.helpers.mailing import Mailing, check
from tests.helpers.patience import until
from tests.helpers.primary import Primary
from tests.helpers.running import HOSTS, Running
from tests.helpers.zone import Zone

MANY = 10_000
DOMAINS = tuple(f"office-{number}.example" for number in range(12))
RECIPIENTS = tuple(f"ann@{domain}" for domain in DOMAINS)
MAILS = 360
AWAY_S = 10.0
FROZEN_S = 20.0  # longer than a member of the group may be silent (10 s)
ZONE = "\n".join(
    [
        *(f"{domain} MX 10 mail.office.example\n{domain} MX 20 mx1.backup.example" for domain in DOMAINS),
        "mail.office.example A 127.0.0.2",
        'sender.example TXT "v=spf1 ip4:127.0.0.1 -all"',
    ]
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(500)]


class House(NamedTuple):
    """`one` has all services; others have a deliver each."""

    one: Running
    primary: Primary
    stack: AsyncExitStack
    folder: Path
    kafka: tuple[str, ...]
    zone: Zone

    async def joins(self, name: str) -> Running:
        """One more process of deliver, on the second host."""
        other = Running(
            self.folder / name,
            dns=self.zone.servers,
            dial_port=self.primary.port,
            kafka=self.kafka,
            host=HOSTS[1],
            join=self.one,
            timing__probe_s="0.5",
        )
        other.names = ("deliver",)
        return await self.stack.enter_async_context(other)

    def bounced(self, *others: Running) -> int:
        return sum(len(at.events("Bounce")) + len(at.events("Expiration")) for at in (self.one, *others))


@asynccontextmanager
async def house(folder: Path, kafka: tuple[str, ...], replication: int = 1) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        zone = await stack.enter_async_context(Zone(ZONE))
        primary = await stack.enter_async_context(Primary(known=set(RECIPIENTS), address="127.0.0.2"))
        one = await stack.enter_async_context(
            Running(
                folder / "one",
                dns=zone.servers,
                dial_port=primary.port,
                kafka=kafka,
                replication=replication,
                timing__probe_s="0.5",
            )
        )
        for domain in DOMAINS:
            said = await one.ask("domain", "add", domain)
            assert said.code == 0, said.err
        yield House(one, primary, stack, folder, kafka, zone)


async def waiting(at: House, mails: int = MAILS) -> Mailing:
    """So many mails wait for their primaries, which are away."""
    mailing = Mailing(lambda: [at.one.smtp_port], RECIPIENTS)
    await mailing.send(RECIPIENTS, senders=1, within=60)  # now each recipient is known
    await at.primary.got(len(RECIPIENTS))
    await at.primary.down()
    await mailing.send((f"waits-{number}" for number in range(mails)), senders=20, within=300)
    return mailing


async def arrived(at: House, mailing: Mailing, faults: int) -> None:
    """Everything is there, unaltered, and nothing oftener than the faults explain."""

    def found() -> bool:
        if len(at.primary.received) < len(mailing.accepted):
            return False
        return not check(mailing, (mail.content for mail in at.primary.received)).lost

    await until(found, within=300)
    result = check(mailing, (mail.content for mail in at.primary.received))
    copies = len(at.primary.received) - len(mailing.accepted)
    print(f"accepted {len(mailing.accepted)}, lost 0, copies too many {copies}, {result.duplicates} mails")
    assert not result.altered
    assert not mailing.refused
    assert copies <= faults * len(mailing.accepted)


async def test_members_come_and_go(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """From one process to four and back while the queues are drained: joined, stopped in order, killed."""
    async with house(tmp_path, broker) as at:
        mailing = await waiting(at)
        at.primary.slow(0.1, "DOT")
        await at.primary.up()
        others = [await at.joins(f"other-{number}") for number in range(3)]
        await at.primary.got(len(RECIPIENTS) + 20)
        assert await others[0].stop("deliver") == 0
        await others[1].kill("deliver")
        at.primary.slow(0.0, "DOT")
        await arrived(at, mailing, faults=1)
        assert not at.bounced(*others)


async def test_a_frozen_member(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """A process that stands still for longer than its claims last, with mails in hand, and then goes on: it
    believes for a moment that it still owns them, and harms nothing."""
    async with house(tmp_path, broker) as at:
        mailing = await waiting(at)
        at.primary.slow(0.2, "DOT")
        await at.primary.up()
        await at.primary.got(len(RECIPIENTS) + 10)
        at.one.send("deliver", signal.SIGSTOP)
        other = await at.joins("other")
        await asyncio.sleep(FROZEN_S)  # what is tested is time that goes by
        at.one.send("deliver", signal.SIGCONT)
        at.primary.slow(0.0, "DOT")
        await arrived(at, mailing, faults=1)
        assert not at.bounced(other)


async def test_a_rolling_restart(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """Two processes restarted in order, twice, while they replay: nothing is handed over twice."""
    async with house(tmp_path, broker) as at:
        mailing = await waiting(at)
        other = await at.joins("other")
        at.primary.slow(0.1, "DOT")
        await at.primary.up()
        for member in (at.one, other, at.one, other):
            assert await member.stop("deliver") == 0
            await member.start("deliver")
            await member.ready("deliver")
        at.primary.slow(0.0, "DOT")
        await arrived(at, mailing, faults=0)
        assert not at.bounced(other)


async def test_brokers_that_go_away(tmp_path: Path, brokers: Cluster) -> None:
    """With 10,000 mails waiting and on their way: one broker killed, another frozen, two away at once (fewer
    replicas than a record needs), all restarted."""
    async with house(tmp_path, brokers.bootstrap, replication=3) as at:
        mailing = await waiting(at, MANY)
        at.primary.slow(0.01, "DOT")
        await at.primary.up()
        await at.primary.got(len(RECIPIENTS) + 100)
        brokers.kill(1)
        await at.primary.got(len(RECIPIENTS) + 1000)
        brokers.restart(1)
        brokers.freeze(2)
        await at.primary.got(len(RECIPIENTS) + 2000)
        brokers.thaw(2)
        for number in (0, 1):
            brokers.kill(number)
        await asyncio.sleep(AWAY_S)  # what is tested is time that goes by
        for number in (0, 1):
            brokers.restart(number)
        await at.primary.got(len(RECIPIENTS) + 3000, within=120)
        for number in range(3):
            brokers.kill(number)
        for number in range(3):
            brokers.restart(number)
        at.primary.slow(0.0, "DOT")
        await arrived(at, mailing, faults=1)
        assert not at.bounced()
